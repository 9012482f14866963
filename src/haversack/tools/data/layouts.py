"""Layouts: arrays as the model has them, and as a runtime's file wants them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from haversack.base.errors import UsageError

_TO_FILE: Mapping[str, tuple[int, ...]] = {"NHWC": (0, 2, 3, 1), "NWC": (0, 2, 1)}
"""Layout of a file -> axes of the model's array (NCHW, NCW), in the file's order."""


def to_file(arrays: Mapping[str, np.ndarray], layouts: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return arrays by port name as the file has them, contiguous where they are moved.

    Args:
        arrays: in the model's layout, any dtype.
        layouts: port name -> layout of the file; a port that is absent keeps the model's.

    Raises:
        UsageError: an unknown layout.
    """
    return {
        name: np.ascontiguousarray(array.transpose(_axes(layouts[name]))) if name in layouts else array
        for name, array in arrays.items()
    }


def from_file(arrays: Mapping[str, np.ndarray], layouts: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return arrays by port name, of any dtype and four or three axes, as the model has them: undoes ``to_file``.

    Raises:
        UsageError: an unknown layout.
    """
    return {
        name: np.ascontiguousarray(array.transpose(np.argsort(_axes(layouts[name])))) if name in layouts else array
        for name, array in arrays.items()
    }


def _axes(layout: str) -> tuple[int, ...]:
    if layout not in _TO_FILE:
        raise UsageError(f"there is no layout {layout!r}", next_step=f"one of {', '.join(_TO_FILE)}")
    return _TO_FILE[layout]
