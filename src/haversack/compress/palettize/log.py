"""Logarithmic palettes: signed powers of two times one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haversack.base.encodings import Codebook
from haversack.compress.palettize.contract import Palettizer
from haversack.tools.numerics import palette


@dataclass(frozen=True)
class Logarithmic(Palettizer):
    """0 and one scale times 1, 1/2, 1/4 … of both signs: only the scale is searched, by squared error.

    Weights in the logarithmic domain (Miyashita et al. 2016, arXiv:1603.01025): on hardware that shifts in place of
    multiplying, a product is a shift and one product with the scale remains for each output. Runtimes that we write for
    compute with the values in float, as they do with any palette. 2 bits are ternary weights. Few values lie near the
    largest weights, so that much is lost there: at equal bits ``kmeans`` never loses more on the whole.

    Attributes:
        weighted: whether weights count by what they do to the outputs, as in ``kmeans``.
    """

    least: ClassVar[int] = 2
    weighted: bool = True

    def _palette(self, weight: np.ndarray, importance: np.ndarray | None) -> tuple[Codebook, np.ndarray]:
        return palette.logarithmic(weight, self.bits, importance if self.weighted else None, self.group)
