"""The tiny job's network on other data: stripes under a brighter, weaker light than it was trained for."""

import numpy as np
from tiny_job import data, input_names, labels, metric, model, output_names, preprocess  # noqa: F401


def moved(seed, count):
    images, classes = data(seed, count)
    return (0.35 * images + 0.6).astype(np.float32), classes


def calibration():
    images, _ = moved(12, 32)
    for start in range(0, 32, 16):
        yield (images[start : start + 16],)


def evaluation():
    images, classes = moved(13, 256)
    for start in range(0, 256, 64):
        yield (images[start : start + 64],), classes[start : start + 64]


def training():
    images, classes = moved(14, 512)
    for start in range(0, 512, 32):
        yield (images[start : start + 32],), classes[start : start + 32]
