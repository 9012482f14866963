"""CIFAR-10: a job file for ``haversack pack``, with a ResNet-20 that trains itself first.

The photographs come from the folder that HAVERSACK_DATA names (cifar10: 50,000 to train on, 5,000 to score).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from training import fit

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("HAVERSACK_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
WEIGHTS = ROOT / "build" / "cifar10" / "weights.safetensors"
EPOCHS = 4
CALIBRATING = 256
SCORED = 1000
BATCH = 100
MARGIN = 4

metric = "top1"
baseline = 0.75
input_names = ("image",)
output_names = ("scores",)
preprocess = [
    {"op": "scale", "factor": 1 / 255, "offset": 0.0},
    {"op": "normalize", "mean": [0.491, 0.482, 0.447], "std": [0.247, 0.243, 0.262]},
    {"op": "to_chw"},
]


class Block(nn.Module):
    """Two 3 x 3 convolutions around a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.short = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.short = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features [n, channels, height / stride, width / stride]."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.short(x))


class ResNet20(nn.Module):
    """He et al. 2016 (arXiv:1512.03385, section 4.2), shortcuts projected: [n, 3, 32, 32] in, 10 scores out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        stages = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        self.blocks = nn.Sequential(
            *(
                Block(before if first else channels, channels, stride if first else 1)
                for before, channels, stride in stages
                for first in (True, False, False)
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return scores [n, 10] for normalised pixels float32 [n, 3, 32, 32]."""
        return self.classify(self.pool(self.blocks(self.stem(image))).flatten(1))


def model() -> nn.Module:
    """Return the trained network in eval mode, trained first where it has not been."""
    if not WEIGHTS.exists():
        train()
    network = ResNet20()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def calibration() -> Iterator[tuple[np.ndarray]]:
    """Yield batches of photographs that were trained on, uint8 [n, 32, 32, 3]."""
    images, _ = _photographs("train.npz", CALIBRATING)
    for start in range(0, len(images), BATCH):
        yield (images[start : start + BATCH],)


def evaluation() -> Iterator[tuple[tuple[np.ndarray], np.ndarray]]:
    """Yield (photographs, labels) that training has not seen."""
    images, labels = _photographs("dev_test.npz", SCORED)
    for start in range(0, len(images), BATCH):
        yield (images[start : start + BATCH],), labels[start : start + BATCH]


def _photographs(name: str, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return (images uint8 [n, 32, 32, 3], labels int64 [n]) of a file."""
    from PIL import Image

    with np.load(DATA / name) as data:
        packed, offsets, labels = data["bytes"], data["offsets"], data["labels"][:most].astype(np.int64)
    images = [
        np.asarray(Image.open(io.BytesIO(packed[offsets[i] : offsets[i + 1]].tobytes())).convert("RGB"))
        for i in range(len(labels))
    ]
    return np.stack(images), labels


def _moved(batch: torch.Tensor) -> torch.Tensor:
    """Return a batch [n, 3, 32, 32] moved by some pixels, half of the time mirrored."""
    wide = nn.functional.pad(batch, (MARGIN,) * 4, mode="reflect")
    top, left = (int(torch.randint(0, 2 * MARGIN + 1, ())) for _ in range(2))
    moved = wide[:, :, top : top + batch.shape[2], left : left + batch.shape[3]]
    mirrored = torch.rand(len(batch), 1, 1, 1) < 0.5
    return torch.where(mirrored, moved.flip(3), moved)


def train() -> None:
    """Train from scratch, in about ten minutes on two cores, and keep the weights."""
    from haversack.tools.data.preprocess.pipeline import Pipeline

    raw, labels = _photographs("train.npz")
    pipeline = Pipeline.parse(preprocess)
    images = torch.from_numpy(np.concatenate([pipeline((part,))[0] for part in np.array_split(raw, 50)]))
    images = images.contiguous(memory_format=torch.channels_last)  # half as long on a processor as channels first
    torch.manual_seed(0)
    network = ResNet20().to(memory_format=torch.channels_last)
    fit(network, images, torch.from_numpy(labels), WEIGHTS, epochs=EPOCHS, rate=1e-2, batch=128, change=_moved)


if __name__ == "__main__":
    model()
