"""Importance: how much each weight of a layer counts, by what a change of it does to the model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import numpy as np

from haversack.base.model import Model, Sample
from haversack.tools.data.stock import Stock
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.gradients import squared_gradients
from haversack.tools.graph.roles import Role, role

ROWS = 32
"""Rows of samples that are run at most, forwards and backwards, one at a time."""


def importance(model: Model, keys: Collection[str], samples: Callable[[], Iterable[Sample]]) -> dict[str, np.ndarray]:
    """Return node key of a layer -> how much each of its weights counts, float32 in the weight's shape, not negative.

    It is the mean square of the outputs' derivatives by a weight: the diagonal of the Gauss-Newton matrix, which is
    the Fisher information by which SqueezeLLM weights its k-means (Kim et al. 2023, arXiv:2306.07629, section 4.1), for
    the squared error of the outputs. A layer's own inputs, E[x^2], do not tell how much what it gives counts behind it.

    Args:
        model: the prepared model.
        keys: node keys. Embeddings are left out, as rows that no sample reads would not count; so is every layer where
            no derivative is known.
        samples: returns calibration batches, afresh at each call; 32 rows are used, evenly spread.
    """
    layers = {key: node for key in keys if role(node := model.graph.by_key[key]) is Role.LAYER}
    names = {str(node.weight) for node in layers.values()}
    if not names:
        return {}
    rows = rebatch(model, Stock.of(model.inputs, samples).take(ROWS, 1), 1)
    found = squared_gradients(model, sorted(names), rows)
    return {key: found[str(node.weight)] for key, node in layers.items() if str(node.weight) in found}
