"""Channels: which axis of a weight counts them, and how one value for each channel meets a tensor."""

from __future__ import annotations

import numpy as np

_TRANSPOSED = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
_WEIGHTED = frozenset({"conv1d", "conv2d", "conv3d", "linear", "embedding"})


def channel_axis(op: str) -> int:
    """Return the axis of an op's weight that counts output channels (rows of the table, for an embedding).

    Raises:
        ValueError: the op has no weight with channels.
    """
    if op in _TRANSPOSED:
        return 1
    if op in _WEIGHTED:
        return 0
    message = f"no channels are known for the weight of {op!r}"
    raise ValueError(message)


def output_axis(op: str) -> int:
    """Return the axis of an op's output that counts the same channels: 1 after a convolution, the last elsewhere."""
    return 1 if op.startswith("conv") else -1


def by_channel(array: np.ndarray, axis: int | None) -> np.ndarray:
    """Return the array as [channels, values of the channel]; [1, all values] when ``axis`` is None."""
    if axis is None:
        return array.reshape(1, -1)
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def along(values: np.ndarray, axis: int | None, dimensions: int) -> np.ndarray:
    """Return one value for each channel, shape [channels] or [], in a shape that broadcasts over ``dimensions`` axes.

    Raises:
        ValueError: values with channels and no axis, or an axis outside the tensor.
    """
    if values.ndim == 0:
        return values
    if axis is None or values.ndim != 1 or not -dimensions <= axis < dimensions:
        message = f"values of shape {values.shape} do not lie along axis {axis} of {dimensions} dimensions"
        raise ValueError(message)
    shape = [1] * dimensions
    shape[axis] = values.size
    return values.reshape(shape)
