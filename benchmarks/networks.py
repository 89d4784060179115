"""What a network costs: a training step and a prediction of Lite0 beside EfficientNetV2-B0, and one image in LiteRT."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import numpy as np

from benchmarks.harness import Bench, Stage, Target, repeated
from benchmarks.inputs import tensorflow

BATCH, SIZE, CLASSES = 16, 128, 40  # as profile laptop trains


def training(bench: Bench, backbone: str, frozen_stages: int = 0) -> Callable[[], float]:
    """Steps of SGDW on one batch of noise; the weights are random, which costs what pretrained ones do."""
    tf = tensorflow()
    from utils.config import load_profile
    from utils.training.losses import SparseMacroF1, make_loss
    from utils.training.network import build_model
    from utils.training.optimizer import sgdw
    from utils.training.trainer import Trainer

    profile = load_profile(
        "smoke", backbone=backbone, image_size=SIZE, batch_size=BATCH, frozen_stages=frozen_stages
    )
    model = Trainer(
        build_model(profile, CLASSES),
        profile,
        SimpleNamespace(n_classes=CLASSES),
        optimizer=sgdw(0.01, profile.weight_decay, profile.momentum),
        loss=make_loss(profile, np.ones(CLASSES, int)),
        metrics=[SparseMacroF1(CLASSES), tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (BATCH, SIZE, SIZE, 3)), tf.uint8)
    batch = images, tf.constant(rng.integers(0, CLASSES, BATCH), tf.int32)
    step = tf.function(model.train_step)
    for _ in range(2):
        step(batch)
    return repeated(bench, lambda: step(batch), BATCH)


def prediction(bench: Bench, backbone: str) -> Callable[[], float]:
    """Logits of one batch of noise, in a compiled graph."""
    tf = tensorflow()
    from utils.config import load_profile
    from utils.training.network import build_model

    model = build_model(load_profile("smoke", backbone=backbone, image_size=SIZE), CLASSES)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3)), tf.uint8)
    predict = tf.function(lambda: model(images, training=False))
    predict()
    return repeated(bench, predict, BATCH)


ONE = 224  # pixels of a single image, as profile sheets sees it


def one_image(bench: Bench, way: str) -> Callable[[], float]:
    """Probabilities of one image of noise by Lite0 of profile sheets, in LiteRT, compiled, or by predict()."""
    tf = tensorflow()
    from utils.config import load_profile
    from utils.own.answers import mean_over_views
    from utils.own.export import converted, interpreter, save_model
    from utils.training.network import build_model

    profile = load_profile("sheets", weights="random", image_size=64 if bench.quick else ONE)
    model, side = build_model(profile, CLASSES), profile.image_size
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    seen = mean_over_views(model, "none")

    def answer(image: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        return dict(zip(("probabilities", "features"), seen(image), strict=True))

    if way == "predict":
        model.predict(image, verbose=0)
        return repeated(bench, lambda: model.predict(image, verbose=0))
    if way == "compiled":
        given, call = tf.constant(image), tf.function(answer)
        call(given)
        return repeated(bench, lambda: call(given)["probabilities"].numpy())
    folder = bench.folder / "one_image"
    save_model(answer, model.variables, side, folder / "saved", batch=1)
    (folder / "model.tflite").write_bytes(converted(folder / "saved", "float32", image, profile.backbone))
    call = interpreter(folder / "model.tflite")
    call(image=image)
    return repeated(bench, lambda: call(image=image))


_SIZES = f"Batches of {BATCH} images of {SIZE} px, {CLASSES} classes, without reading them."

STAGES = (
    Stage(
        "training step, Lite0 beside B0",
        "images/s",
        {"ours": partial(training, backbone="Lite0"), "published": partial(training, backbone="B0")},
        note=f"{_SIZES} Ours is EfficientNet-Lite0, the other column EfficientNetV2-B0; all weights learn.",
    ),
    *(
        Stage(
            f"training step, {backbone}, four stages frozen",
            "images/s",
            {
                "ours": partial(training, backbone=backbone, frozen_stages=4),
                "published": partial(training, backbone=backbone),
            },
            note="The other column is the same network when all of it learns.",
        )
        for backbone in ("Lite0", "B0")
    ),
    Stage(
        "prediction, Lite0 beside B0",
        "images/s",
        {"ours": partial(prediction, backbone="Lite0"), "published": partial(prediction, backbone="B0")},
        note="Ours is EfficientNet-Lite0, the other column EfficientNetV2-B0.",
    ),
    *(
        Stage(
            f"one image, LiteRT beside {words}",
            "ms",
            {"ours": partial(one_image, way="LiteRT"), "published": partial(one_image, way=way)},
            (Target("speed / published", 2.0),),
            note=f"Lite0 of profile sheets, {ONE} px, float32, with each runtime's own number of threads.",
        )
        for way, words in (("compiled", "a compiled call"), ("predict", "Keras' predict()"))
    ),
)
