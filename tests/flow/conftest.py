"""A copy of the packed tiny job that a test may spoil."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def run(packed, tmp_path):
    """The folder of a finished run, to be spoiled."""
    shutil.copytree(packed.out, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def best(run):
    return run / "best" / "onnxruntime"
