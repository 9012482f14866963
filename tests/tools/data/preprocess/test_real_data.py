"""On real photographs and recordings: the picture that Pillow makes, and one length for every recording."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from haversack.tools.data.preprocess import Pipeline

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def data():
    """Return a function from a data set's name to its folder; missing data fail under CI and are skipped elsewhere."""
    folder = Path(os.environ.get("HAVERSACK_DATA", ROOT / ".." / "shared" / "data"))

    def find(name):
        if not (folder / name).is_dir():
            message = f"{name} is not in {folder}: set HAVERSACK_DATA"
            if os.environ.get("CI", "").lower() in {"1", "true"}:
                pytest.fail(message)
            pytest.skip(message)
        return folder / name

    return find


def test_photographs_become_what_pillow_and_numpy_make_of_them(data):
    paths = sorted((data("imagenet-sample") / "images").iterdir())[:6]
    pipeline = Pipeline.parse(
        [{"op": "resize"}, {"op": "center_crop"}, {"op": "scale"}, {"op": "normalize"}, {"op": "to_chw"}]
    )
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for path in paths:
        image = Image.open(path).convert("RGB")
        (got,) = pipeline((np.asarray(image)[None],))
        width, height = image.size
        short = min(width, height)
        shrunk = image.resize((width * 256 // short, height * 256 // short), Image.Resampling.BILINEAR)
        left, top = (shrunk.width - 224) // 2, (shrunk.height - 224) // 2
        cropped = np.asarray(shrunk.crop((left, top, left + 224, top + 224)))
        truth = ((cropped / 255 - mean) / std).transpose(2, 0, 1)
        assert got.shape == (1, 3, 224, 224)
        assert np.abs(got[0] - truth).max() <= 1.01 / 255 / std.min()
        assert np.mean(np.abs(got[0] - truth) > 1e-5) < 0.05


def test_recordings_become_log_mels_of_one_length(data):
    pack = np.load(data("fsdd") / "train.npz")
    starts, rate = pack["offsets"], int(pack["rate"])
    pipeline = Pipeline.parse(
        [
            {"op": "scale", "factor": 1 / 32768},
            {"op": "pad", "length": rate, "place": "center", "cut": True},
            {"op": "log_mel", "rate": rate, "window": 200, "hop": 80, "fft": 256, "floor": 1e-6},
        ]
    )
    raw = pack["bytes"].tobytes()
    ends = [*starts[1:], len(raw)]
    assert len(pack["labels"]) in {len(starts), len(starts) - 1}
    features = []
    for index in range(5):
        samples = np.frombuffer(raw[int(starts[index]) : int(ends[index])], "<i2")
        (feature,) = pipeline((samples[None],))
        assert feature.shape == (1, 40, 1 + (rate - 200) // 80)
        assert feature.max() > feature.min() + 5
        features.append(feature)
    assert len({feature.tobytes() for feature in features}) == 5
