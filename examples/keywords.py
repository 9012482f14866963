"""Spoken digits: a job file for ``haversack pack``, with a network that trains itself first.

The recordings come from the folder that HAVERSACK_DATA names (fsdd: 2,700 spoken digits of six speakers, 8 kHz).
The front end is declared, not part of the network: what calibrates and scores here is what a device computes from
its microphone. Recordings of each speaker's last ten takes of a digit are held back from training and scored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from training import fit

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("HAVERSACK_DATA", ROOT.parent / "shared" / "data")) / "fsdd" / "train.npz"
WEIGHTS = ROOT / "build" / "keywords" / "weights.safetensors"
SAMPLES = 8000
HELD_TAKES = 10
CALIBRATING = 128
EPOCHS = 12
BATCH = 64

metric = "top1"
baseline = 0.9
input_names = ("features",)
output_names = ("scores",)
preprocess = [
    {"op": "log_mel", "rate": 8000, "window": 256, "hop": 128, "fft": 256, "bands": 32, "floor": 1e-6},
    {"op": "scale", "factor": 0.2, "offset": 1.0},
]


class Separable(nn.Module):
    """A depthwise 3 x 3 convolution and a pointwise one, both normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape, [n, channels, bands, frames]."""
        x = torch.relu(self.norm1(self.depthwise(x)))
        return torch.relu(self.norm2(self.pointwise(x)))


class Keywords(nn.Module):
    """DS-CNN (Zhang et al. 2017, arXiv:1711.07128), small: log-mel bands [n, 32, frames] in, 10 class scores out."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, (4, 10), stride=2, padding=(1, 4), bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(Separable(channels) for _ in range(4)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(channels, 10)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return scores [n, 10] for log-mel bands float32 [n, 32, frames]."""
        x = self.blocks(self.stem(features.unsqueeze(1)))
        return self.classify(self.pool(x).flatten(1))


def model() -> nn.Module:
    """Return the trained network in eval mode, trained first where it has not been."""
    if not WEIGHTS.exists():
        train()
    network = Keywords()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def calibration() -> Iterator[tuple[np.ndarray]]:
    """Yield batches of recordings that were trained on, float32 [n, 8000] in [-1, 1]."""
    recordings, _ = part(held=False)
    spread = recordings[:: max(1, len(recordings) // CALIBRATING)][:CALIBRATING]
    for start in range(0, len(spread), BATCH):
        yield (spread[start : start + BATCH],)


def evaluation() -> Iterator[tuple[tuple[np.ndarray], np.ndarray]]:
    """Yield (recordings, labels) that training has not heard."""
    recordings, labels = part(held=True)
    for start in range(0, len(recordings), BATCH):
        yield (recordings[start : start + BATCH],), labels[start : start + BATCH]


def part(*, held: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return (recordings float32 [n, 8000], cut or filled with silence; labels int64 [n]), by turns of the digits."""
    with np.load(DATA) as data:
        sound, offsets = data["bytes"].view("<i2"), data["offsets"] // 2
        labels, speakers = data["labels"].astype(np.int64), data["speakers"]
    takes = np.zeros(len(labels), np.int64)
    for speaker in np.unique(speakers):
        for digit in range(10):
            mine = np.flatnonzero((speakers == speaker) & (labels == digit))
            takes[mine] = np.arange(len(mine))[::-1]
    chosen = np.flatnonzero((takes < HELD_TAKES) == held)
    chosen = chosen[np.argsort(takes[chosen], kind="stable")]
    recordings = np.zeros((len(chosen), SAMPLES), np.float32)
    for row, index in enumerate(chosen):
        wave = sound[offsets[index] : offsets[index + 1]][:SAMPLES]
        recordings[row, : len(wave)] = wave / 32768.0
    return recordings, labels[chosen]


def train() -> None:
    """Train from scratch, in about a minute on two cores, and keep the weights."""
    from haversack.tools.data.preprocess.pipeline import Pipeline

    recordings, labels = part(held=False)
    features = torch.from_numpy(np.asarray(Pipeline.parse(preprocess)((recordings,))[0]))
    torch.manual_seed(0)
    fit(Keywords(), features, torch.from_numpy(labels), WEIGHTS, epochs=EPOCHS, rate=4e-3, change=_moved)


def _moved(batch: torch.Tensor) -> torch.Tensor:
    """Return features [n, bands, frames] moved by some frames."""
    return torch.roll(batch, int(torch.randint(-6, 7, ())), dims=2)


if __name__ == "__main__":
    model()
