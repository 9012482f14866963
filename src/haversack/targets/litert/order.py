"""Orders: which axis of the model's tensor each axis of the file's tensor is.

An order is a tuple: axis i of the file holds axis ``order[i]`` of the model. LiteRT's convolutions want channels last,
a model of PyTorch has them second: a tensor is carried in the order in which it was made, and is only moved where a
reader needs another.
"""

from __future__ import annotations

from collections.abc import Sequence

from haversack.tools.data.layouts import ORDERS

Order = tuple[int, ...]

NHWC: Order = ORDERS["NHWC"]
NWC: Order = ORDERS["NWC"]
LAYOUTS: dict[Order, str] = {order: name for name, order in ORDERS.items()}
"""Orders that have a name -> it; the model's own order has none."""


def plain(rank: int) -> Order:
    """Return the model's own order."""
    return tuple(range(rank))


def filed(shape: Sequence[int], order: Order) -> tuple[int, ...]:
    """Return the shape in the file of a tensor with this shape in the model."""
    return tuple(shape[axis] for axis in order)


def steps(old: Order, new: Order) -> Order:
    """Return the permutation of the file's axes that turns one order into another."""
    return tuple(old.index(axis) for axis in new)


def same_data(shape: Sequence[int], one: Order, other: Order) -> bool:
    """Say whether two orders lay the same numbers out alike: axes of length 1 do not count."""
    return [a for a in one if shape[a] != 1] == [a for a in other if shape[a] != 1]


def permuted(order: Order, dims: Sequence[int]) -> Order:
    """Return the order of the same data seen as ``tensor.permute(dims)``."""
    return tuple(list(dims).index(axis) for axis in order)
