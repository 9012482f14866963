"""Handwritten digits, from training to a verified int8 file: ``python examples/digits.py`` (``make demo`` begins so).

This file is also the job file: ``haversack pack examples/digits.py --budget size=140KB,drop=1pt``.
Data are scikit-learn's 1,797 digits of 8 x 8 pixels, enlarged to 32 x 32 by the declared preprocessing.
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
WEIGHTS = ROOT / "build" / "digits" / "weights.safetensors"
OUT = ROOT / "build" / "digits" / "out"
BUDGET = "size=140KB,drop=1pt"
EPOCHS = 6
BATCH = 64

metric = "top1"
baseline = 0.95
input_names = ("image",)
output_names = ("scores",)
labels = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
preprocess = [
    {"op": "resize", "height": 32, "width": 32},
    {"op": "scale", "factor": 1 / 8, "offset": -1.0},
    {"op": "to_chw"},
]
degraded = [{"op": "blur", "sigma": 0.6}, {"op": "noise", "level": 0.1}]


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape, [n, channels, height, width]."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class Digits(nn.Module):
    """A small residual network: 1 x 32 x 32 pixels in, 10 class scores out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU6())
        self.block1 = Residual(32)
        self.widen = nn.Sequential(nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.block2 = Residual(64)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return scores [n, 10] for pixels float32 [n, 1, 32, 32]."""
        x = self.block2(self.widen(self.block1(self.stem(image))))
        return self.classify(self.pool(x).flatten(1))


def split() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return raw (images [n, 8, 8, 1], labels [n]) for training and for evaluation: every third image is evaluated."""
    digits = load_digits()
    images = digits.images.astype(np.float32)[..., None]
    held = np.arange(len(images)) % 3 == 0
    return (images[~held], digits.target[~held]), (images[held], digits.target[held])


def model() -> nn.Module:
    """Return the trained network in eval mode, trained first where it has not been."""
    if not WEIGHTS.exists():
        train()
    network = Digits()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def calibration() -> Iterator[tuple[np.ndarray]]:
    """Yield batches of raw training images."""
    (images, _), _ = split()
    for start in range(0, 256, BATCH):
        yield (images[start : start + BATCH],)


def evaluation() -> Iterator[tuple[tuple[np.ndarray], np.ndarray]]:
    """Yield (raw images, labels) that training has not seen."""
    _, (images, labels) = split()
    for start in range(0, len(images), BATCH):
        yield (images[start : start + BATCH],), labels[start : start + BATCH]


def train() -> None:
    """Train from scratch, in under a minute on two cores, and keep the weights."""
    from haversack.tools.data.preprocess.pipeline import Pipeline

    (raw, labels), _ = split()
    images = torch.from_numpy(np.asarray(Pipeline.parse(preprocess)((raw,))[0]))
    torch.manual_seed(0)
    fit(Digits(), images, torch.from_numpy(labels), WEIGHTS, epochs=EPOCHS, rate=3e-3)


if __name__ == "__main__":
    model()
    # A net this small gains bytes, not time: on processors without VNNI exact int8 takes as long as float.
    wishes = ["--budget", BUDGET, "--allow", "slower-than-float", "--out", str(OUT)]
    command = [sys.executable, "-m", "haversack.cli", "pack", __file__, *wishes]
    sys.exit(subprocess.run(command, check=False).returncode)
