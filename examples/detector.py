"""Digits found in a picture: a job file for ``haversack pack``, with a small detector that trains itself first.

One output holds boxes and scores side by side, as detectors give them: [n, 14, cells], of which four channels are the
box in pixels of a 640 wide frame and ten are scores between 0 and 1. One integer scale for both would leave the scores
two codes; haversack joins them in float, and says so (``joined-in-float``). A picture counts as right when the best
score names its digit and the box beside it covers it (intersection over union of at least one half).

    haversack pack examples/detector.py --budget size=100kB,drop=2pt --allow slower-than-float

Pictures are scikit-learn's digits, enlarged and put anywhere on 32 x 32 pixels of faint noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn
from training import fit

WEIGHTS = Path(__file__).resolve().parent.parent / "build" / "detector" / "weights.safetensors"
SIDE, FRAME, CELLS = 32, 640.0, 8
SIZES = (8, 16)
DIGITS = 10
EPOCHS = 20
TRAINED, CALIBRATING, EVALUATED = 6400, 128, 600
BATCH = 64

input_names = ("image",)
output_names = ("found",)


def metric(outputs: tuple[np.ndarray, ...], expected: np.ndarray) -> np.ndarray:
    """Return 1.0 for each picture whose digit is found, else 0.0.

    Args:
        outputs: found, float32 [n, 14, cells].
        expected: digit, middle and size of its box in pixels of the frame, float64 [n, 5].
    """
    boxes, scores = outputs[0][:, :4], outputs[0][:, 4:]
    cell = scores.max(axis=1).argmax(axis=1)
    rows = np.arange(len(cell))
    named = scores[rows, :, cell].argmax(axis=1) == expected[:, 0]
    return (named & (_overlap(boxes[rows, :, cell], expected[:, 1:]) >= 0.5)).astype(np.float64)


def _overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (x, y of the middle, width, height), each [n, 4]."""
    low = np.maximum(one[:, :2] - one[:, 2:] / 2, other[:, :2] - other[:, 2:] / 2)
    high = np.minimum(one[:, :2] + one[:, 2:] / 2, other[:, :2] + other[:, 2:] / 2)
    shared = np.maximum(high - low, 0.0).prod(axis=1)
    whole = np.maximum(one[:, 2:], 0.0).prod(axis=1) + other[:, 2:].prod(axis=1) - shared
    return np.asarray(shared / np.maximum(whole, 1e-9))


class Detector(nn.Module):
    """32 x 32 pixels in, 8 x 8 cells with a box and ten scores each out."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 64)
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in itertools.pairwise(widths)
            ),
            *(
                nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
                for _ in range(3)
            ),
        )
        self.box = nn.Conv2d(64, 4, 1)
        self.score = nn.Conv2d(64, DIGITS, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return boxes and scores, float32 [n, 14, 64], for pixels float32 [n, 1, 32, 32]."""
        x = self.body(image)
        scores = self.score(x)
        if not self.training:  # a clamp has no slope to learn by outside its limits
            scores = torch.clamp(scores, 0.0, 1.0)
        return torch.cat([FRAME * self.box(x), scores], dim=1).flatten(2)


def _pictures(count: int, seed: int, *, held: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return (pictures float32 [n, 1, 32, 32], digit and box float64 [n, 5]); every third digit is held back."""
    digits = load_digits()
    able = np.flatnonzero((np.arange(len(digits.target)) % 3 == 0) == held)
    rng = np.random.default_rng(seed)
    pictures = rng.normal(0.0, 0.05, (count, 1, SIDE, SIDE)).astype(np.float32)
    told = np.zeros((count, 5))
    for picture, row in zip(pictures, told, strict=True):
        index, size = rng.choice(able), int(rng.choice(SIZES))
        x, y = rng.integers(0, SIDE - size + 1, 2)
        picture[0, y : y + size, x : x + size] += np.kron(digits.images[index] / 16.0, np.ones((size // 8, size // 8)))
        row[:] = digits.target[index], *(np.array([x + size / 2, y + size / 2, size, size]) * (FRAME / SIDE))
    return pictures, told


def model() -> nn.Module:
    """Return the trained network in eval mode, trained first where it has not been (two or three minutes)."""
    if not WEIGHTS.exists():
        train()
    network = Detector()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def calibration() -> Iterator[tuple[np.ndarray]]:
    """Yield batches of pictures that training has seen the digits of."""
    pictures, _ = _pictures(CALIBRATING, 1, held=False)
    for start in range(0, CALIBRATING, BATCH):
        yield (pictures[start : start + BATCH],)


def evaluation() -> Iterator[tuple[tuple[np.ndarray], np.ndarray]]:
    """Yield (pictures, what is on them) of digits that training has not seen."""
    pictures, told = _pictures(EVALUATED, 2, held=True)
    for start in range(0, EVALUATED, BATCH):
        yield (pictures[start : start + BATCH],), told[start : start + BATCH]


def train() -> None:
    """Train from scratch and keep the weights."""
    pictures, told = _pictures(TRAINED, 0, held=False)
    torch.manual_seed(0)
    fit(
        Detector(),
        torch.from_numpy(pictures),
        torch.from_numpy(told.astype(np.float32)),
        WEIGHTS,
        epochs=EPOCHS,
        rate=5e-3,
        judge=_judge,
    )


def _judge(found: torch.Tensor, told: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss, and which pictures are named rightly: one cell of each should score, and give the box."""
    step = FRAME / CELLS
    cell = (told[:, 2] / step).long().clamp(max=CELLS - 1) * CELLS + (told[:, 1] / step).long().clamp(max=CELLS - 1)
    rows = torch.arange(len(told))
    wanted = torch.zeros_like(found[:, 4:])
    wanted[rows, told[:, 0].long(), cell] = 1.0
    scores = nn.functional.mse_loss(found[:, 4:], wanted, reduction="none").sum(dim=(1, 2)).mean()
    boxes = nn.functional.l1_loss(found[rows, :4, cell], told[:, 1:]) / FRAME
    return scores + 10.0 * boxes, found[rows, 4:, cell].argmax(1) == told[:, 0].long()
