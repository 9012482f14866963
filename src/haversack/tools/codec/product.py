"""Floats that are other floats times one factor, as the scales of biases are those of weights times an input's.

They are a third of what does not repeat in a quantized file besides its weights, and need not be sent at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from haversack.base.stored import Stored
from haversack.tools.codec.plan import Product

_LEAST = 32
_NEIGHBOURS = 256
_TRIES = 8
_NEAR = 3
_ALIKE = 2.0**-21
_EXPONENT = np.uint32(0x7F80_0000)


def multiply(words: np.ndarray, factor: int) -> np.ndarray:
    """Return the bits of float32 words times a factor, rounded to the nearest, of two to the even one: uint32 [n].

    The product of two numbers of 24 bits is exact in float64, so that only its rounding to float32 rounds, which IEEE
    754 defines. Processors part only where numbers are not normal, and these are refused.

    Args:
        words: uint32 [n], bits of normal float32 numbers.
        factor: bits of such a number.

    Raises:
        ValueError: a number, a factor or a product is zero, too small for its exponent, infinite or none.
    """
    given = np.array([factor], np.uint32)
    if _normal(given).all() and _normal(words).all():
        wide = words.view(np.float32).astype(np.float64) * given.view(np.float32).astype(np.float64)
        if (np.abs(wide) < 2.0**127).all() and (np.abs(wide) >= 2.0**-126).all():
            return wide.astype(np.float32).view(np.uint32)
    message = f"{len(words)} floats and the factor 0x{factor:08x} have no normal product"
    raise ValueError(message)


def find(content: bytes, tensors: Sequence[Stored]) -> list[Product]:
    """Return which tensors of a file are products of others, in the order of the file; none of these others is one.

    Of two that are products of each other the one of fewer significant bits is kept: it takes fewer to send.

    Args:
        content: the file.
        tensors: of it, in order, apart from each other.
    """
    alike: dict[int, list[_Floats]] = {}
    for each in tensors:
        if each.dtype == "float32" and each.length >= _LEAST:
            words = np.frombuffer(content, "<u4", each.length // 4, each.start)
            if _normal(words).all():
                few = words[: _LEAST // 4].astype(np.uint32).view(np.float32).astype(np.float64)
                alike.setdefault(each.length, []).append(_Floats(each, words, few / few[0]))
    found: dict[int, Product] = {}
    sources: set[int] = set()
    for group in alike.values():
        group.sort(key=_bits)
        for one, other in _pairs(group):
            for made, of in ((one, other), (other, one)):
                if made.start in found or made.start in sources or of.start in found:
                    continue
                factor = _factor(made.words, of.words)
                if factor is not None:
                    found[made.start] = Product(made.start, made.stored.end, of.start, factor)
                    sources.add(of.start)
    return [found[start] for start in sorted(found)]


@dataclass(frozen=True, eq=False)
class _Floats:
    """A tensor, its words, uint32 [n], and its first numbers divided by the first of all, float64 [8]."""

    stored: Stored
    words: np.ndarray
    shape: np.ndarray

    @property
    def start(self) -> int:
        return self.stored.start


def _bits(floats: _Floats) -> int:
    """Return how many bits of the words may be other than 0, those at the lower end left out."""
    together = int(np.bitwise_or.reduce(floats.words))
    return 32 - ((together & -together).bit_length() - 1)


def _pairs(group: list[_Floats]) -> Iterator[tuple[_Floats, _Floats]]:
    """Yield each of a group with those before it that begin as its multiple does, the nearest of so many first."""
    shapes = np.stack([each.shape for each in group])
    for index, each in enumerate(group):
        first = max(index - _NEIGHBOURS, 0)
        apart = np.abs(shapes[first:index] / each.shape - 1).max(axis=1, initial=0)
        for other in np.flatnonzero(apart <= _ALIKE)[::-1].tolist()[:_TRIES]:
            yield each, group[first + other]


def _normal(words: np.ndarray) -> np.ndarray:
    exponent = words & _EXPONENT
    return np.asarray((exponent != 0) & (exponent != _EXPONENT))


def _factor(made: np.ndarray, source: np.ndarray) -> int | None:
    """Return the bits of what multiplies ``source`` to ``made``, words of a file; None where nothing does."""
    quotient = float(made[:1].view("<f4")[0]) / float(source[:1].view("<f4")[0])
    if not 2.0**-120 < abs(quotient) < 2.0**120:
        return None
    nearest = int(np.float32(quotient).view(np.uint32))
    for factor in range(nearest - _NEAR, nearest + _NEAR + 1):
        try:
            if np.array_equal(multiply(source.astype(np.uint32), factor), made):
                return factor
        except ValueError:
            continue
    return None
