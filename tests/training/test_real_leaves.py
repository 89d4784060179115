"""Profile sheets on scans of real leaves, where a folder of them is given."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from utils.config import load_profile
from utils.data.pixels import decode_crop_resize, to_uint8
from utils.evaluation.scores import macro_f1
from utils.training.features import extract_features, fit_regression
from utils.training.network import build_model

LEAVES = os.environ.get("NAFLORA_REAL_LEAVES")


@pytest.mark.long
@pytest.mark.skipif(not LEAVES, reason="NAFLORA_REAL_LEAVES names no folder of real leaves")
def test_frozen_features_name_real_leaves_of_rare_species():
    table = pd.read_csv(Path(LEAVES) / "labels.csv")
    names, table["label"] = np.unique(table["scientificName"], return_inverse=True)
    profile = load_profile("sheets")
    network = build_model(profile, len(names))

    def features(part: str, mirrored: bool):
        rows = table[table["part_0"] == part]
        files = [str(Path(LEAVES) / name) for name in rows["file_name"]]
        images = tf.data.Dataset.from_tensor_slices((files, rows["label"].to_numpy(np.int32))).map(
            lambda file, label: (
                to_uint8(decode_crop_resize(tf.io.read_file(file), profile.image_size, profile.crop, None)),
                label,
            )
        )
        return extract_features(network, images.batch(32), progress=False, mirrored=mirrored)

    fitted = fit_regression(features("train", True), len(names), profile.regression)
    test = features("test", False)
    assert macro_f1(test.classes, fitted.predicted(test.features), len(names)) > 0.95
    best = np.argsort(-fitted.logits(test.features), axis=1)[:, :5]
    assert (best == test.classes[:, None]).any(axis=1).mean() > 0.98
