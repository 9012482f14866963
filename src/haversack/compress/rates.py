"""Rates: how many bits a weight takes as a download, for each way in which a layer may be stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Codebook, Encoding
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.base.plan import LayerPlan
from haversack.base.spread import Spread, here
from haversack.compress.encode import NONE
from haversack.compress.selection import bears
from haversack.compress.weights import store
from haversack.tools.graph import tied
from haversack.tools.numerics import blocks, planes
from haversack.tools.numerics.entropy import bits_per_code


def rates(
    model: Model,
    ways: Callable[[Node], Mapping[str, LayerPlan]],
    importance: Mapping[str, np.ndarray] = NONE,
    spread: Spread = here,
) -> dict[str, dict[str, float]]:
    """Return node key of each layer -> kind -> bits of a weight, its share of the scales too: ``Profile.rates``.

    Of a weight that several layers read, the first of them (``tools.graph.tied``) has them.

    Codes count by their entropy, or that of the bytes into which they are packed; scales and a palette's entries by
    that of each of their four bytes, the scales of groups by that of their two. Codes are rounded to nearest; rounding
    them by what a layer gives moves few of them, and the entropy hardly.

    Args:
        model: the prepared model.
        ways: node -> kind -> how its weights may be stored; what the node cannot have is left out.
        importance: node key -> float32 in the weight's shape, as ``encode`` takes it.
        spread: where weights are stored; each layer is a task.

    Raises:
        JobError: a weight holds NaN or an infinity.
    """
    tried = {
        node.key: {kind: layer for kind, layer in ways(node).items() if bears(node, layer.precision)}
        for node in map(model.graph.by_key.__getitem__, tied.calls(model.graph))
    }
    tried = {key: kinds for key, kinds in tried.items() if kinds}
    shared = (model, dict(importance))  # values alone travel
    bits = spread(bits_of, shared, [(key, tuple(kinds.values())) for key, kinds in tried.items()])
    return {key: dict(zip(kinds, found, strict=True)) for (key, kinds), found in zip(tried.items(), bits, strict=True)}


def bits_of(shared: tuple[Model, Mapping[str, np.ndarray]], task: tuple[str, tuple[LayerPlan, ...]]) -> list[float]:
    """Return the bits that a weight of one layer takes, its share of the scales too, for each plan.

    Args:
        shared: the prepared model, and how much each weight counts, as ``rates`` takes it.
        task: node key of the layer, and how its weights may be stored.

    Raises:
        JobError: a weight holds NaN or an infinity.
    """
    (model, importance), (key, layers) = shared, task
    found = []
    for layer in layers:
        stored = store(model, model.graph.by_key[key], layer, None, importance=importance.get(key))
        (codes,) = stored.integers.values()
        encoding = stored.tensors[f"{key}:weight"]
        found.append((_code_bits(encoding, codes) + _scale_bits(encoding)) / max(codes.size, 1))
    return found


def _code_bits(encoding: Encoding, codes: np.ndarray) -> float:
    """Return the bits that the codes of a weight take together; what is packed in planes is coded byte by byte."""
    packed = isinstance(encoding, Affine) and encoding.bits in planes.WIDTHS
    parts = planes.pack(codes, encoding.bits) if isinstance(encoding, Affine) and packed else [codes]
    return sum(bits_per_code(part) * part.size for part in parts)


def _scale_bits(encoding: Encoding) -> float:
    """Return the bits that the scales of a weight take together, or the entries of its palettes."""
    if isinstance(encoding, BlockAffine):  # files hold them in two bytes
        two = blocks.to_float16(encoding.scale).reshape(-1).view(np.uint8).reshape(-1, 2)
        return sum(bits_per_code(column) * len(column) for column in two.T)
    if not isinstance(encoding, Affine | Codebook):
        return 0.0
    numbers = encoding.scale if isinstance(encoding, Affine) else encoding.entries
    four = np.ascontiguousarray(numbers.reshape(-1)).view(np.uint8).reshape(-1, 4)
    return sum(bits_per_code(column) * len(column) for column in four.T)
