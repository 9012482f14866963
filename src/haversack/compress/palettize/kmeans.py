"""K-means: the values that lie nearest to the weights on the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haversack.base.encodings import Codebook
from haversack.compress.palettize.contract import Palettizer
from haversack.tools.numerics import palette


@dataclass(frozen=True)
class KMeans(Palettizer):
    """The values with the least squared error, each weight counting by what it does to the model's outputs.

    SqueezeLLM's weighted k-means (Kim et al. 2023, arXiv:2306.07629): a weight counts by the mean square of the
    outputs' derivatives by it on calibration samples (``compress.importance``). Tables of embeddings, and models
    without derivatives, are plain k-means.

    Attributes:
        weighted: whether weights count by that; otherwise all count alike (Han et al. 2016, arXiv:1510.00149).
    """

    weighted: bool = True

    def _palette(self, weight: np.ndarray, importance: np.ndarray | None) -> tuple[Codebook, np.ndarray]:
        return palette.kmeans(weight, self.bits, importance if self.weighted else None, self.group)
