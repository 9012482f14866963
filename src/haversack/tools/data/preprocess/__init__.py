"""Preprocessing as data: NumPy operations applied alike in calibration, in evaluation and on the device."""

from __future__ import annotations

from haversack.tools.data.preprocess.pipeline import SHELF, Pipeline

__all__ = ["SHELF", "Pipeline"]
