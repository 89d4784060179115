"""The network while it is trained: how a step is made, what changes between epochs, which devices share the work."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from utils.config import Profile
from utils.data.labels import LabelMap
from utils.data.pixels import augmented_on_device
from utils.training.losses import SparseCrossentropy, WithRelatives, unmixed
from utils.training.network import logits_of_all_ranks, stage_of, under_policy
from utils.training.weights import CLASSIFIER


class WeightAverage:
    """A moving average of all weights, running statistics too: average = d x average + (1 - d) x weight.

    The decay d is min(decay, (1 + steps) / (10 + steps)), so that the start is soon forgotten: the rule of
    tf.train.ExponentialMovingAverage. Averages of weights score better than the last ones (Polyak & Juditsky
    1992; Tarvainen & Valpola 2017, arXiv:1703.01780). Takes the memory of the weights once more. Make it inside
    the strategy's scope: every replica then averages its own copy, without talking to others.
    """

    def __init__(self, weights: list[tf.Variable], decay: float) -> None:
        self.decay, self.weights = decay, weights
        self.averages = [tf.Variable(weight, trainable=False, dtype=weight.dtype) for weight in weights]

    def restart(self) -> None:
        """Take the weights as they are for the average so far."""
        for average, weight in zip(self.averages, self.weights, strict=True):
            average.assign(weight)

    def update(self, steps: tf.Tensor) -> None:
        """Take in the weights after the optimizer has made `steps` steps."""
        steps = tf.cast(steps, tf.float32)
        decay = tf.minimum(self.decay, (1 + steps) / (10 + steps))
        for average, weight in zip(self.averages, self.weights, strict=True):
            average.assign_sub((1 - decay) * (average - weight))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in place of the weights, which come back at the end."""
        kept = [weight.numpy() for weight in self.weights]
        for average, weight in zip(self.averages, self.weights, strict=True):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, value in zip(self.weights, kept, strict=True):
                weight.assign(value)


@dataclass(frozen=True)
class _ToCompile:
    """What every compilation takes. In a holder, since Keras counts metrics that are attributes of a model again."""

    optimizer: Any
    loss: SparseCrossentropy | WithRelatives
    metrics: Sequence[tf.keras.metrics.Metric]


def stays_random(profile: Profile) -> bool:
    """Whether parts of the backbone stay at random: statistics, stages, or all where only the classifier learns."""
    classifier_alone = profile.sgd_epochs == 0 or profile.frozen_epochs == profile.epochs
    frozen = profile.frozen_stages > 0 or profile.fixed_statistics or classifier_alone
    return profile.weights == "random" and frozen


class Trainer(tf.keras.Model):
    """A network from `build_model` in training, with the profile's methods that take part in a step.

    It shares all layers with the network, and has the heads for genus and family beside its classifier; what it
    gives is `network.logits_of_all_ranks`. Make it inside the strategy's scope, call `prepare` before every epoch.

    Args:
        network: from `build_model`, images [B, S, S, 3] to species' logits [B, C].
        profile: its methods; the network, loss and optimizer are made by it already.
        labels: genus and family of the classes.
        loss: from `make_loss`, of labels and the logits of all ranks.
        metrics: of class indices and the species' logits.
    """

    def __init__(
        self,
        network: tf.keras.Model,
        profile: Profile,
        labels: LabelMap,
        *,
        optimizer: Any,
        loss: SparseCrossentropy | WithRelatives,
        metrics: Sequence[tf.keras.metrics.Metric],
    ) -> None:
        with under_policy(network.dtype_policy):  # mixed_float16 makes compile() scale the loss
            super().__init__(network.input, logits_of_all_ranks(network, profile, labels), name=network.name)
        self.rescale_mode, self.noise_clock = network.rescale_mode, network.noise_clock
        self.average = WeightAverage(self.weights, profile.ema) if profile.ema else None
        self._profile, self._classes = profile, labels.n_classes
        self._to_compile = _ToCompile(optimizer, loss, metrics)
        self._view: Callable[..., tf.Tensor] | None = None  # of the images, made at the head of a step
        self._prepared: tuple | None = None  # what the last compilation was for
        self.prepare(0)
        self.noise_clock.follow(self.optimizer)

    def prepare(self, epoch: int) -> None:
        """Set what depends on the epoch, which counts from 0: nothing of it needs to be saved.

        In the first `frozen_epochs` only the classifier, hidden layer and heads learn, and batch normalisation
        keeps its statistics, so that a new classifier does not spoil good features (Kumar et al. 2022,
        arXiv:2202.10054). The first `frozen_stages` never learn, nor does batch normalisation with
        `fixed_statistics`. From `class_weights_from` x epochs on, class weights count: deferred re-weighting,
        Cao et al. (2019, arXiv:1906.07413). Another image size is only noted here, or with
        resize "model" is what a step resizes images to.
        """
        profile = self._profile
        frozen = epoch < profile.frozen_epochs
        weighted = epoch >= profile.class_weights_from * profile.epochs
        size = profile.image_size_at(epoch)
        if (frozen, weighted, size) == self._prepared:
            return
        learning = {"hidden", CLASSIFIER, "genus_logits", "family_logits"}
        for layer in self.layers:
            fixed = profile.fixed_statistics and isinstance(layer, tf.keras.layers.BatchNormalization)
            early = stage_of(layer.name) < profile.frozen_stages
            layer.trainable = layer.name in learning or not (frozen or fixed or early)
        self._to_compile.loss.weighted = weighted
        if profile.resize == "model":
            self._view = partial(augmented_on_device, image_size=size, augment=profile.augment)
        # fit() trains what was trainable when it was compiled; and a graph for each state makes a run that is
        # continued here the same as one that came by
        with self.distribute_strategy.scope():
            for metric in self._to_compile.metrics:  # Keras resets only those used since compile()
                metric.reset_state()
            # the optimizer of before, where there is one: mixed_float16 has wrapped it
            self.compile(
                optimizer=self.optimizer or self._to_compile.optimizer,
                loss=self._to_compile.loss,
                metrics=self._to_compile.metrics,
            )
        self._prepared = (frozen, weighted, size)

    def take_classifier(self, classifiers: Mapping[str, Sequence[np.ndarray]]) -> None:
        """Set the weights of the classifier and heads, by layer; the moving average begins anew with them."""
        for name, weights in classifiers.items():
            self.get_layer(name).set_weights(weights)
        if self.average is not None:
            self.average.restart()

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step on images uint8 [B, S, S, 3] and labels, int [B] or mixed [B, 3]; figures so far.

        With the profile's resize "model" the images are crops with random numbers, see `augmented_on_device`.
        The training scores of a mixed image are those of the class that has most of it.
        """
        images, labels = data[0], data[1]
        if self._view is not None:
            images = self._view(*images)
        if self._profile.accumulate == 1:
            with tf.GradientTape() as tape:
                logits = self(images, training=True)
                loss = self.compiled_loss(labels, logits)
            self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
            self._score(labels, logits)
        else:
            self._accumulated_step(images, labels)
        if self.average is not None:
            self.average.update(self.optimizer.iterations)
        return {metric.name: metric.result() for metric in self.metrics}

    def test_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Figures so far of images uint8 [B, S, S, 3] and class indices int [B], without learning from them."""
        images, labels = data[0], data[1]
        # Of the last batch a worker may get nothing, which batch normalisation refuses on a CPU.
        filled = tf.pad(images, [[0, tf.maximum(1 - tf.shape(images)[0], 0)], *[[0, 0]] * 3])
        logits = self(filled, training=False)[: tf.shape(images)[0]]
        self.compiled_loss(labels, logits)
        self._score(labels, logits)
        return {metric.name: metric.result() for metric in self.metrics}

    def _score(self, labels: tf.Tensor, logits: tf.Tensor) -> None:
        first, second, part = unmixed(labels)
        if second is not None:
            first = tf.where(part >= 0.5, first, second)
        self.compiled_metrics.update_state(first, logits[:, : self._classes])

    def _accumulated_step(self, images: tf.Tensor, labels: tf.Tensor) -> None:
        """One step by the mean gradient of equal parts of the batch, which take turns in memory.

        The same step as by the whole batch, but that batch normalisation sees a part at a time.
        """
        parts = self._profile.accumulate
        images = tf.reshape(images, [parts, -1, *images.shape[1:]])
        labels = tf.reshape(labels, [parts, -1, *labels.shape[1:]])
        weights = self.trainable_variables
        scaling = hasattr(self.optimizer, "get_scaled_loss")  # of mixed_float16

        def add_part(part: tf.Tensor, sums: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
            self.noise_clock.part = part
            with tf.GradientTape() as tape:
                logits = self(images[part], training=True)
                loss = self.compiled_loss(labels[part], logits) / parts
                if scaling:
                    loss = self.optimizer.get_scaled_loss(loss)
            gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
            self._score(labels[part], logits)
            return part + 1, tuple(old + new for old, new in zip(sums, gradients, strict=True))

        zeros = tuple(tf.zeros(weight.shape, weight.dtype) for weight in weights)
        _, gradients = tf.while_loop(
            lambda part, _: part < parts, add_part, (tf.constant(0), zeros), parallel_iterations=1
        )
        self.noise_clock.part = 0
        if scaling:
            gradients = self.optimizer.get_unscaled_gradients(list(gradients))
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The weights to be scored and kept: the moving average where the profile has one."""
        if self.average is None:
            yield
        else:
            with self.average.applied():
                yield

    def checkpoint(self) -> tf.train.Checkpoint:
        """All that a run needs to go on: weights, optimizer, average."""
        parts = {"model": self, "optimizer": self.optimizer}
        if self.average is not None:
            parts["average"] = tf.train.Checkpoint(weights=self.average.averages)
        return tf.train.Checkpoint(**parts)


class SessionGuard(tf.keras.callbacks.Callback):
    """Stops training at a given time, and says before an epoch whether it would be over by then."""

    def __init__(self, stop_at: float | None) -> None:
        super().__init__()
        self._stop_at = math.inf if stop_at is None else stop_at
        self.stopped = False

    def allows(self, seconds: float) -> bool:
        """Whether `seconds` are left; the training counts as stopped when not."""
        self.stopped = self.stopped or time.time() + seconds >= self._stop_at
        return not self.stopped

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if not self.allows(0.0):
            self.model.stop_training = True


class StepBar(tf.keras.callbacks.Callback):
    """A bar over the steps of an epoch, for terminals."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(total=self._steps, unit="step", leave=False)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._bar.close()
