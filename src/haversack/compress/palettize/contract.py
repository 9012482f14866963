"""What makes palettes: which values a layer may have, and which of them each weight takes.

The public method checks what comes in and goes out; an author writes ``_palette``.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.encodings import Codebook
from haversack.base.errors import JobError, UsageError
from haversack.base.shelf import Shelf
from haversack.tools.numerics import palette

SHELF = Shelf("haversack.compress.palettize", "palette")
NEAR = 1e-3
"""How much further than its nearest entry an index may lead, relative to the weight: entries are rounded to float16."""


@dataclass(frozen=True)
class Palettizer(abc.ABC):
    """Chooses a few values for a weight; its fields are its settings.

    Class attributes:
        least: the fewest bits of an index that make sense.

    Attributes:
        bits: of an index, so that there are 2^bits values; runtimes say which they can hold.
        group: how many rows (output channels) share a palette; 0 for one palette in all.

    Raises:
        ValueError: a setting is outside its range.
    """

    least: ClassVar[int] = 1
    bits: int = 4
    group: int = 0

    def __post_init__(self) -> None:
        if not self.least <= self.bits <= 8:
            raise ValueError(f"bits must be in [{self.least}, 8], not {self.bits}")
        if self.group < 0:
            raise ValueError(f"group must be positive, or 0 for one palette in all, not {self.group}")

    def palette(self, weight: np.ndarray, importance: np.ndarray | None = None) -> tuple[Codebook, np.ndarray]:
        """Return a palette, its entries float16 numbers that ascend, and int32 indices of the weight's shape.

        Args:
            weight: float32, rows first.
            importance: how much each weight's squared error counts, not negative, the weight's shape; None where all
                count alike.

        Raises:
            JobError: the weight holds NaN or an infinity.
            UsageError: the group does not divide the rows.
        """
        if not np.isfinite(weight).all():
            raise JobError("weights hold NaN or an infinity: no palette fits them")
        if self.group and len(weight) % self.group:
            raise UsageError(
                f"groups of {self.group} rows do not divide the {len(weight)} rows of this weight",
                next_step="set group to a divisor, or to 0 for one palette in all",
            )
        book, indices = self._palette(np.asarray(weight, np.float32), importance)
        assert (book.bits, book.group) == (self.bits, self.group), f"{type(self).__name__} makes another palette"
        assert np.array_equal(book.entries, book.entries.astype(np.float16)), "entries are float16 numbers"
        assert (np.diff(book.entries, axis=-1) >= 0).all(), f"entries of {type(self).__name__} do not ascend"
        self._near(np.asarray(weight, np.float64), book, indices)
        return book, indices

    @abc.abstractmethod
    def _palette(self, weight: np.ndarray, importance: np.ndarray | None) -> tuple[Codebook, np.ndarray]:
        """Return palette and indices of a weight that is finite and whose rows the group divides."""

    def _near(self, weight: np.ndarray, book: Codebook, indices: np.ndarray) -> None:
        """See that no entry is nearer to a weight than the one that it takes, and its neighbours in the palette."""
        taken = np.abs(palette.values(indices, book) - weight)
        slack = NEAR * np.abs(weight)
        for step in (-1, 1):
            beside = palette.values(np.clip(indices + step, 0, (1 << book.bits) - 1), book)
            nearer = np.abs(beside - weight) + slack < taken
            assert not nearer.any(), f"{type(self).__name__} gives {int(nearer.sum())} weights what is not nearest"
