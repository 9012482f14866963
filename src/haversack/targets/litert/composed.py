"""Ops that LiteRT has no operator for, written as several: softmax, attention, products of matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from haversack.targets.litert import order as orders
from haversack.targets.litert.arithmetic import combine, scaled, unary
from haversack.targets.litert.pools import reduced
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site
from haversack.tools.graph.program import Constant


def write_softmax(site: Site) -> Value:
    """Write a softmax, which LiteRT takes over the last axis of the file."""
    x = next(site.value(name) for name in ("self", "input") if name in site.arguments)
    return softmax(site, x, int(site.arguments["dim"]) % len(x.shape))


def softmax(site: Site, x: Value, axis: int, op: str = "SOFTMAX") -> Value:
    """Add a softmax over an axis of the model."""
    if x.order[-1] != axis:
        x = site.ordered(x, (*(at for at in range(len(x.shape)) if at != axis), axis))
    if op == "SOFTMAX":
        return site.emit(op, [x.tensor], x.shape, x.order, "SoftmaxOptions", beta=1.0)
    return site.emit(op, [x.tensor], x.shape, x.order, "LogSoftmaxOptions")


def write_log_softmax(site: Site) -> Value:
    """Write the logarithm of a softmax."""
    x = site.value("self")
    return softmax(site, x, int(site.arguments["dim"]) % len(x.shape), "LOG_SOFTMAX")


def write_matmul(site: Site) -> Value:
    """Write a product of matrices, batched."""
    names = ("self", "mat2" if "mat2" in site.arguments else "other")
    one, other = (site.value(name) for name in names)
    if len(one.shape) < 2 or len(other.shape) < 2:
        raise site.refused("a product with a vector")
    return product(site, one, other, site.shape)


def product(site: Site, one: Value, other: Value, shape: Sequence[int]) -> Value:
    """Add a product; a transposed second matrix is read as it lies."""
    one = site.ordered(one)
    rank = len(other.shape)
    turned = (*range(rank - 2), rank - 1, rank - 2)
    across = other.order == turned or (other.order != orders.plain(rank) and other.order[-1] == rank - 2)
    other = site.ordered(other, turned if across else None)
    return site.emit(
        "BATCH_MATMUL", [one.tensor, other.tensor], shape, None, "BatchMatMulOptions", adjX=False, adjY=across
    )


def write_attention(site: Site) -> Value:
    """Write scaled dot-product attention (Vaswani et al. 2017): softmax(q k^T * scale + mask) v, in float."""
    arguments = site.arguments
    if arguments.get("dropout_p") or arguments.get("enable_gqa"):
        raise site.refused("dropout or grouped queries")
    query, key, value = (site.value(name) for name in ("query", "key", "value"))
    rank = len(key.shape)
    dims = [*range(rank - 2), rank - 1, rank - 2]
    turned = Value(
        key.tensor, tuple(key.shape[axis] for axis in dims), orders.permuted(key.order, dims), key.dtype, key.grid
    )
    scale = arguments.get("scale")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    shape = (*query.shape[:-1], key.shape[-2])
    scores = product(site, scaled(site, "MUL", query, factor), turned, shape)
    mask = arguments.get("attn_mask")
    if arguments.get("is_causal"):  # PyTorch takes no mask beside it; lengths are numbers here
        mask = Constant(np.tri(*shape[-2:], dtype=bool))
    if mask is not None:
        scores = _masked(site, scores, mask)
    return product(site, softmax(site, scores, rank - 1), value, site.shape)


def _masked(site: Site, scores: Value, mask: object) -> Value:
    found = site.read(mask)
    found = site.ordered(found)
    if found.dtype == "bool":
        zero, never = (site.constant("number", np.array([n], np.float32)) for n in (0.0, np.finfo(np.float32).min))
        made = site.emit(
            "SELECT_V2", [found.tensor, zero, never], found.shape, None, "SelectV2Options", dtype="float32"
        )
        found = made
    return combine(site, "ADD", scores, found, shape=scores.shape)


def write_vector_norm(site: Site) -> Value:
    """Write the Euclidean length along axes."""
    if site.arguments.get("ord", 2) != 2:
        raise site.refused("a norm that is not Euclidean")
    x = site.value("self")
    dims = site.arguments.get("dim")
    axes = range(len(x.shape)) if dims is None else dims if isinstance(dims, list) else [dims]
    total = reduced(site, "SUM", unary(site, "SQUARE", x), axes, keep=bool(site.arguments.get("keepdim")))
    return unary(site, "SQRT", total)
