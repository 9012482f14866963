"""Calibration samples on another scale than what is scored: the commonest mistake, and every integer plan loses."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.flow.pack import pack, preflight
from haversack.flow.request import Request
from haversack.flow.unlike import KIND, ROWS, unlike

JOB = """
import numpy as np
import torch
metric = "top1"
input_names = ("image",)
random = np.random.default_rng(0)
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 64), torch.nn.Linear(64, 8)).eval()
def pictures(count):
    return random.normal(0.2, 0.3, (count, 1, 8, 8)).astype(np.float32)
def calibration():
    for _ in range(4):
        yield (CALIBRATION,)
def evaluation():
    yield (pictures(32),), np.zeros(32, np.int64)
"""


CASES = {
    "alike": ("pictures(32)", False),
    "a few of them": ("pictures(2)", False),
    "somewhat brighter": ("pictures(32) * 1.5 + 0.1", False),
    "bytes for fractions": ("pictures(32) * 255", True),
    "fractions for bytes": ("pictures(32) / 255", True),
    "a mean that was not taken off": ("pictures(32) + 1", True),
    "all black": ("pictures(32) * 0", True),
}


@pytest.mark.parametrize("name", CASES)
def test_only_another_scale_is_told(tmp_path, name):
    calibration, told = CASES[name]
    path = tmp_path / "job.py"
    path.write_text(JOB.replace("CALIBRATION", calibration))
    notes = [note for note in preflight(Request(str(path), out=tmp_path / "out")).notes if "calibration()" in note]
    assert len(notes) == told


def test_both_scales_are_named_where_it_ships_and_before(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(JOB.replace("CALIBRATION", "pictures(32) * 255"))
    events = []
    packed = pack(Request(str(path), "size=1MB", out=tmp_path / "out", allow=("slower-than-float",)), events.append)
    (finding,) = [one for one in packed.record.best_of("onnxruntime").findings if one.kind == KIND]
    assert finding.severity == "warning"
    assert "image is " in finding.text
    assert "in calibration() and " in finding.text
    place = [event.text for event in events].index(finding.text)
    assert not any(event.stage == "choose" for event in events[:place]), "it is told before anything is made"


def test_token_numbers_are_not_held_against_each_other():
    class Words:
        def whole(self):
            raise AssertionError

        evaluation = whole

    assert unlike(Words(), [Port("ids", TensorSpec(("batch", 8), "int64"))]) is None


def test_only_so_many_rows_are_read():
    class Endless:
        read = 0

        def whole(self):
            while True:
                self.read += 1
                yield (np.ones((64, 3), np.float32) * self.read,)

        def evaluation(self):
            return ((sample, None) for sample in self.whole())

    data = Endless()
    unlike(data, [Port("x", TensorSpec(("batch", 3), "float32"))])
    assert data.read == 2 * ROWS // 64
