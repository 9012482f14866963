"""A machine over SSH: a real server on loopback, with a home of its own and no path to our source."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.measure import devices
from haversack.measure.device import Opening

ONE = {"x": np.ones((1, 16), np.float32)}


def test_a_file_runs_there(board, onnx_file):
    path, oracle = onnx_file()
    with devices.opened(board.device) as device:
        assert device.name == board.device
        handle = device.load(Opening(path, "onnxruntime"))
        found = device.run(handle, ONE)["r1"]
        device.unload(handle)
    np.testing.assert_allclose(found, oracle(ONE["x"]), rtol=1e-5)
