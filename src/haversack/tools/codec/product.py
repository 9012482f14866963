"""Floats that are other floats times one factor, as the scales of biases are those of weights times an input's.

They are a third of what does not repeat in a quantized file besides its weights, and need not be sent at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from haversack.base.stored import Stored
from haversack.tools.codec.plan import Product

_LEAST = 32
_NEIGHBOURS = 8
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

    Args:
        content: the file.
        tensors: of it, in order, apart from each other.
    """
    found: dict[int, Product] = {}
    sources: set[int] = set()
    before: dict[int, list[tuple[Stored, np.ndarray]]] = {}
    for each in tensors:
        if each.dtype != "float32" or each.length < _LEAST:
            continue
        words = np.frombuffer(content, "<u4", each.length // 4, each.start)
        alike = before.setdefault(each.length, [])
        for other, held in alike[-_NEIGHBOURS:]:
            for made, bits, source, of in ((each, words, other, held), (other, held, each, words)):
                if made.start in found or made.start in sources or source.start in found:
                    continue
                factor = _factor(bits, of)
                if factor is not None:
                    found[made.start] = Product(made.start, made.end, source.start, factor)
                    sources.add(source.start)
        if _normal(words).all():
            alike.append((each, words))
    return [found[start] for start in sorted(found)]


def _normal(words: np.ndarray) -> np.ndarray:
    exponent = words & _EXPONENT
    return np.asarray((exponent != 0) & (exponent != _EXPONENT))


def _factor(made: np.ndarray, source: np.ndarray) -> int | None:
    """Return the bits of what multiplies ``source`` to ``made``, words of a file; None where nothing does."""
    few, of = (words[: _LEAST // 4].astype(np.uint32) for words in (made, source))
    if not (_normal(few).all() and _normal(of).all()):
        return None
    quotients = few.view(np.float32).astype(np.float64) / of.view(np.float32)
    if not 2.0**-120 < abs(quotients[0]) < 2.0**120 or np.abs(quotients / quotients[0] - 1).max() > _ALIKE:
        return None
    nearest = int(np.float32(quotients[0]).view(np.uint32))
    for factor in range(nearest - _NEAR, nearest + _NEAR + 1):
        try:
            if np.array_equal(multiply(source.astype(np.uint32), factor), made):
                return factor
        except ValueError:
            continue
    return None
