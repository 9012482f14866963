"""Layouts: arrays whose axes a file has in another order than the model."""

from __future__ import annotations

import numpy as np

ORDERS: dict[str, tuple[int, ...]] = {"NHWC": (0, 2, 3, 1), "NWC": (0, 2, 1)}
"""Layout -> which axis of the model each axis of the file is."""


def order_of(layout: str, rank: int) -> tuple[int, ...]:
    """Return which axis of the model each axis of the file is; the model's own order for an empty layout.

    Raises:
        ValueError: there is no such layout, or it is not of this rank.
    """
    order = ORDERS.get(layout, ()) if layout else tuple(range(rank))
    if len(order) != rank:
        message = f"{layout or 'no layout'} is no order of {rank} axes (known: {', '.join(ORDERS)})"
        raise ValueError(message)
    return order


def to_file(array: np.ndarray, layout: str) -> np.ndarray:
    """Return an array with its axes as the file has them, contiguous, same dtype; shape [n, c, …] -> [n, …, c].

    Raises:
        ValueError: as ``order_of``.
    """
    return np.ascontiguousarray(array.transpose(order_of(layout, array.ndim)))


def to_model(array: np.ndarray, layout: str) -> np.ndarray:
    """Return an array with its axes as the model has them, same dtype; shape [n, …, c] -> [n, c, …].

    Raises:
        ValueError: as ``order_of``.
    """
    order = order_of(layout, array.ndim)
    return array.transpose([order.index(axis) for axis in range(array.ndim)])
