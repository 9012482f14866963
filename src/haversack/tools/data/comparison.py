"""Golden outputs and those of a device compared: docs/spec/bundle.md states the rule for other languages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from haversack.base.errors import Fault

Near = Callable[[np.ndarray, np.ndarray], bool]
"""(wanted, found): arrays of one shape and dtype; says whether they are near enough where bits differ."""


def differing(
    number: int, wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], near: Near | None
) -> Iterator[Fault]:
    """Yield what is wrong with the outputs for one golden vector.

    Args:
        number: of the vector, for the faults.
        wanted, found: outputs by name, any shape and dtype.
        near: None where every bit counts.
    """
    for name in sorted({*wanted, *found}):
        where = f"golden vector {number}, output {name}"
        if name not in wanted or name not in found:
            yield Fault(where, "the file does not give it" if name in wanted else "nothing is expected of it")
            continue
        mine, theirs = wanted[name], found[name]
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            yield Fault(where, f"{theirs.dtype} {list(theirs.shape)} instead of {mine.dtype} {list(mine.shape)}")
        elif mine.tobytes() != theirs.tobytes() and (near is None or not near(mine, theirs)):
            different = int(np.count_nonzero(~np.equal(mine, theirs)))
            yield Fault(where, f"{different} of {mine.size} values differ")


def within(tolerance: float) -> Near:
    """Return the rule for outputs that need not be the same bits.

    Floats: |found - wanted| <= tolerance * |wanted|, Euclidean over the finite values of the array in float64, and what
    is NaN or infinite must be the same in both. Integers and booleans: at most this fraction of them may differ.
    """

    def near(wanted: np.ndarray, found: np.ndarray) -> bool:
        if wanted.dtype.kind != "f":
            return bool(np.count_nonzero(wanted != found) <= tolerance * wanted.size)
        mine, theirs = wanted.astype(np.float64), found.astype(np.float64)
        finite = np.isfinite(mine)
        if not np.array_equal(finite, np.isfinite(theirs)) or not np.array_equal(
            mine[~finite], theirs[~finite], equal_nan=True
        ):
            return False
        return bool(np.linalg.norm(theirs[finite] - mine[finite]) <= tolerance * np.linalg.norm(mine[finite]))

    return near
