"""Where a file keeps a tensor: what the indexers of tools/formats return, and the codecs of tools/codec take."""

from __future__ import annotations

from dataclasses import dataclass

WIDTHS = {"int4": 1, "int8": 1, "uint8": 1, "int16": 2, "float16": 2, "bfloat16": 2, "int32": 4, "float32": 4}
WIDTHS |= {"int64": 8, "float64": 8, "blocks": 1}
"""What is stored -> bytes of a word: ``int4`` is two to a byte, ``blocks`` are a format's own records of quantized
weights."""


@dataclass(frozen=True)
class Stored:
    """The bytes of one tensor in a file, contiguous, words in little-endian order.

    Attributes:
        name: as the file names it; of several tensors of one name the first keeps it and others get ``#1`` and so on.
        start: of its first byte in the file.
        length: bytes, a whole number of words.
        dtype: one of ``WIDTHS``.
        shape: as the file states it; empty for a scalar, and where it states none.
    """

    name: str
    start: int
    length: int
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Bytes of a word."""
        return WIDTHS[self.dtype]

    @property
    def end(self) -> int:
        """Of the first byte behind it."""
        return self.start + self.length
