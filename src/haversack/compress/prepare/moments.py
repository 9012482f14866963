"""Second moments of what a layer multiplies: of its inputs as they arrive, and of exact ones with those."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.graph import Node

if TYPE_CHECKING:
    import torch

PLACES, LEAST, PER_UNKNOWN = 1 << 15, 1 << 12, 64
"""Moments are taken over so many rows (places of a convolution, rows of a linear layer) for each weight that makes an
output, within these ends; they are drawn anew from each batch, the same in every run."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Centred second moments of a layer's inputs.

    Attributes:
        hessian: float64 [groups, n, n], n the weights that make one output: of the inputs as they arrive.
        cross: float64 [groups, n, n]: of exact inputs (axis 1) with those that arrive (axis 2).
        rows: over how many rows.
    """

    hessian: np.ndarray
    cross: np.ndarray
    rows: int


def moments(
    node: Node, shape: tuple[int, ...], inputs: Iterable[torch.Tensor], exact: Iterable[torch.Tensor]
) -> tuple[Moments, tuple[Moments, ...]]:
    """Return the moments of a layer over all batches, and over every other one: two halves to hold against each other.

    Args:
        node: a linear layer or a convolution.
        shape: of its weight, [out, in / groups, ...].
        inputs: float32 batches, as they arrive.
        exact: the same batches as they are in float.
    """
    counted = _places(node)
    n = math.prod(shape[1:])
    wanted = min(max(LEAST, PER_UNKNOWN * n), PLACES)
    every = max(1, sum(counted(batch) for batch in inputs) // wanted)
    halves = [_Sums.none(int(node.attributes.get("groups", 1)), n) for _ in range(2)]
    shifts: list[torch.Tensor] = []
    for index, pair in enumerate(zip(inputs, exact, strict=True)):
        rows = [_rows(node, shape, value, every, index) for value in pair]
        shifts = shifts or [each.mean(dim=1, keepdim=True) for each in rows]
        halves[index % 2].add(*(each - shift for each, shift in zip(rows, shifts, strict=True)))
    return halves[0].joined(halves[1]).moments(), tuple(half.moments() for half in halves if half.rows)


@dataclass
class _Sums:
    """Sums over rows, float64: of inputs as they arrive and of exact ones, of products of the former with either.

    Each is taken less its mean in the first batch: in float32, products of what hardly varies would be all rounding.
    """

    arriving: torch.Tensor
    exact: torch.Tensor
    hessian: torch.Tensor
    cross: torch.Tensor
    rows: int = 0

    @classmethod
    def none(cls, groups: int, n: int) -> _Sums:
        import torch

        rows, square = (groups, n), (groups, n, n)
        made = [torch.zeros(shape, dtype=torch.float64) for shape in (rows, rows, square, square)]
        return cls(made[0], made[1], made[2], made[3])

    def add(self, arriving: torch.Tensor, exact: torch.Tensor) -> None:
        """Take in rows, float32 [groups, rows, n]."""
        self.rows += arriving.shape[1]
        self.arriving += arriving.sum(dim=1)
        self.exact += exact.sum(dim=1)
        self.hessian += arriving.transpose(1, 2) @ arriving
        self.cross += exact.transpose(1, 2) @ arriving

    def joined(self, other: _Sums) -> _Sums:
        return _Sums(
            self.arriving + other.arriving,
            self.exact + other.exact,
            self.hessian + other.hessian,
            self.cross + other.cross,
            self.rows + other.rows,
        )

    def moments(self) -> Moments:
        count = max(self.rows, 1)
        means = [(total / count).numpy() for total in (self.arriving, self.exact)]
        hessian = self.hessian.numpy() / count - means[0][:, :, None] * means[0][:, None, :]
        cross = self.cross.numpy() / count - means[1][:, :, None] * means[0][:, None, :]
        return Moments(hessian, cross, self.rows)


def _places(node: Node) -> Callable[[torch.Tensor], int]:
    """Return what counts the rows of a batch: places of a convolution's output about, rows of a linear layer."""
    if node.op == "linear":
        return lambda value: value.numel() // value.shape[-1]
    stride = math.prod(node.attributes["stride"])
    return lambda value: max(1, value[:, 0].numel() // stride)


def _rows(node: Node, shape: tuple[int, ...], value: torch.Tensor, every: int, seed: int) -> torch.Tensor:
    """Return what outputs are made of, float32 [groups, rows, n], at one of so many places, which the seed draws."""
    if node.op == "linear":
        rows = value.reshape(1, -1, shape[1])
        return rows[:, _drawn(rows.shape[1], every, seed)]
    groups = int(node.attributes.get("groups", 1))
    taps = _taps(node, shape[2:], value, every, seed)
    count, channels, n, places = len(value), value.shape[1], len(taps), taps[0].shape[-1]
    stacked = taps[0].new_empty(groups, count, places, channels // groups, n)
    for index, tap in enumerate(taps):
        stacked[..., index] = tap.reshape(count, groups, channels // groups, places).permute(1, 0, 3, 2)
    return stacked.reshape(groups, count * places, channels // groups * n)


def _taps(node: Node, kernel: tuple[int, ...], value: torch.Tensor, every: int, seed: int) -> list[torch.Tensor]:
    """Return what each tap of a kernel reads at the chosen places, float32 [batch, channels, places] each."""
    import torch

    rank = len(kernel)
    stride, dilation = (_each(node.attributes[name], rank) for name in ("stride", "dilation"))
    spans = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in range(rank)]
    padded = torch.nn.functional.pad(value, _sides(node.attributes["padding"], spans))
    sizes = [(padded.shape[2 + axis] - spans[axis]) // stride[axis] + 1 for axis in range(rank)]
    chosen = np.unravel_index(_drawn(math.prod(sizes), every, seed), sizes)
    corners = [torch.from_numpy(np.ascontiguousarray(place)) * stride[axis] for axis, place in enumerate(chosen)]
    found = []
    for tap in np.ndindex(*kernel):
        at = [corner + step * dilation[axis] for axis, (corner, step) in enumerate(zip(corners, tap, strict=True))]
        found.append(padded[(slice(None), slice(None), *at)])
    return found


def _drawn(total: int, every: int, seed: int) -> np.ndarray:
    """Return one in so many of the numbers below a total, int64, drawn without return and sorted.

    Steps of one length would meet the same column of every picture whose width divides them.
    """
    if every <= 1:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, max(1, total // every), replace=False))


def _each(setting: int | Sequence[int], rank: int) -> list[int]:
    """Return a setting as one number for each axis."""
    found = [setting] if isinstance(setting, int) else list(setting)
    return found * rank if len(found) == 1 else found


def _sides(padding: str | int | Sequence[int], spans: Sequence[int]) -> list[int]:
    """Return what is added before and after each axis, the last axis first, as ``torch.nn.functional.pad`` takes it."""
    if padding == "same":
        return [side for span in reversed(spans) for side in ((span - 1) // 2, span // 2)]
    each = [0] * len(spans) if isinstance(padding, str) else _each(padding, len(spans))
    return [side for size in reversed(each) for side in (size, size)]
