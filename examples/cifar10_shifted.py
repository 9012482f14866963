"""The CIFAR-10 network under another camera: a job file for ``haversack finetune``, after ``pack examples/cifar10.py``.

HAVERSACK_SHIFT says what that camera does: ``blur`` (a lens out of focus), ``noise`` (a small sensor) or both,
``blur+noise``, which is the usual.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import numpy as np
from cifar10 import _photographs, input_names, metric, model, output_names, preprocess  # noqa: F401

from haversack.tools.data.preprocess.pipeline import Pipeline

SHIFTS = {
    "blur": [{"op": "blur", "sigma": 1.0}],
    "noise": [{"op": "noise", "level": 0.08}],
    "blur+noise": [{"op": "blur", "sigma": 0.8}, {"op": "noise", "level": 0.06}],
}
CAMERA = Pipeline.parse(SHIFTS[os.environ.get("HAVERSACK_SHIFT", "blur+noise")])
CALIBRATING, TRAINED, SCORED = 256, 4096, 4000
BATCH = 64


@functools.cache
def _seen(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return photographs as the camera sees them, uint8 [n, 32, 32, 3], and their labels."""
    images, labels = _photographs(name, count)
    return CAMERA((images,))[0], labels


def calibration() -> Iterator[tuple[np.ndarray]]:
    """Yield batches of what the camera sees, without labels."""
    images, _ = _seen("train.npz", TRAINED)
    for start in range(0, CALIBRATING, BATCH):
        yield (images[start : start + BATCH],)


def training() -> Iterator[tuple[tuple[np.ndarray], np.ndarray]]:
    """Yield (photographs, labels): the few that were labelled under the new camera."""
    images, labels = _seen("train.npz", TRAINED)
    for start in range(0, len(images), BATCH):
        yield (images[start : start + BATCH],), labels[start : start + BATCH]


def evaluation() -> Iterator[tuple[tuple[np.ndarray], np.ndarray]]:
    """Yield (photographs, labels) that no training has seen."""
    images, labels = _seen("dev_test.npz", SCORED)
    for start in range(0, len(images), BATCH):
        yield (images[start : start + BATCH],), labels[start : start + BATCH]
