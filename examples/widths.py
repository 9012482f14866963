"""Three widths of one network on handwritten digits, on one Pareto front: ``python examples/widths.py``.

This file is also the job file: ``haversack pack examples/widths.py --budget size=30KB,drop=2pt``. ``models()`` gives
all widths; each is packed under the same budget, every drop is against the best float network of the three, one ships.
Data are scikit-learn's 1,797 digits of 8 x 8 pixels. Training takes some ten seconds on one core.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn
from training import fit

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "widths"
WIDTHS = (4, 8, 24)
EPOCHS = 8
BATCH = 64

metric = "top1"
baseline = 0.93
input_names = ("image",)
output_names = ("scores",)
preprocess = [{"op": "scale", "factor": 1 / 8, "offset": -1.0}, {"op": "to_chw"}]


def network(width: int) -> nn.Sequential:
    """Return three convolutions of a width: 1 x 8 x 8 pixels in, 10 class scores out."""

    def layer(given: int, made: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(given, made, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU()]

    layers = [*layer(1, width, 1), *layer(width, 2 * width, 2), *layer(2 * width, 4 * width, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


def models() -> dict[str, nn.Module]:
    """Return the trained networks by name, in eval mode; each is trained first where it has not been."""
    return {f"w{width}": trained(width).eval() for width in WIDTHS}


def trained(width: int) -> nn.Module:
    """Return the network of a width with the weights that training left."""
    from haversack.tools.data.preprocess.pipeline import Pipeline

    weights = FOLDER / f"w{width}.safetensors"
    torch.manual_seed(width)
    made = network(width)
    if not weights.exists():
        (raw, labels), _ = _split()
        images = torch.from_numpy(np.asarray(Pipeline.parse(preprocess)((raw,))[0]))
        fit(made, images, torch.from_numpy(labels), weights, epochs=EPOCHS, rate=1e-2)
    made.load_state_dict(load_file(weights))
    return made


def _split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return raw (images [n, 8, 8, 1], labels [n]) for training and for evaluation: every third image is evaluated."""
    digits = load_digits()
    images = digits.images.astype(np.float32)[..., None]
    held = np.arange(len(images)) % 3 == 0
    return (images[~held], digits.target[~held]), (images[held], digits.target[held])


def calibration() -> Iterator[tuple[np.ndarray]]:
    """Yield batches of raw training images."""
    (images, _), _ = _split()
    for start in range(0, 256, BATCH):
        yield (images[start : start + BATCH],)


def evaluation() -> Iterator[tuple[tuple[np.ndarray], np.ndarray]]:
    """Yield (raw images, labels) that training has not seen."""
    _, (images, labels) = _split()
    for start in range(0, len(images), BATCH):
        yield (images[start : start + BATCH],), labels[start : start + BATCH]


if __name__ == "__main__":
    # Networks this small gain bytes, not time.
    wishes = ["--budget", "size=30KB,drop=2pt", "--allow", "slower-than-float", "--out", str(FOLDER / "out")]
    command = [sys.executable, "-m", "haversack.cli", "pack", __file__, *wishes]
    sys.exit(subprocess.run(command, check=False).returncode)
