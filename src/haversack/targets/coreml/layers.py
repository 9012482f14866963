"""Layers and products of matrices: weights as their encodings hold them."""

from __future__ import annotations

import math

import numpy as np

from haversack.base.encodings import Affine, Codebook
from haversack.targets.coreml.moves import spreading
from haversack.targets.coreml.sheet import Value
from haversack.targets.coreml.site import Site
from haversack.tools.graph.program import Constant
from haversack.tools.numerics.packing import pack


def stored_weight(site: Site) -> Value:
    """Return a layer's weight, [out, in, …] or [rows, width]: int8, a palette, float16 or float32."""
    found, key = site.arguments["weight"], f"{site.node.key}:weight"
    if not isinstance(found, Constant):
        raise site.refused("its weight is computed")
    encoding, codes = site.encodings.tensors.get(key), site.encodings.integers.get(key)
    shape, hint = found.array.shape, f"{site.node.key}_weight"
    if isinstance(encoding, Affine) and codes is not None:
        return site.sheet.compressed(
            "constexpr_affine_dequantize",
            hint,
            shape,
            "fp16",
            {
                "quantized_data": (codes, "int8"),
                "zero_point": (np.array(0), "int8"),
                "scale": (encoding.scale, "fp16"),
                "axis": (np.array(encoding.axis or 0), "int32"),
            },
        )
    if isinstance(encoding, Codebook) and codes is not None:
        parts = {
            "indices": (pack(codes, encoding.bits, signed=False), "uint8"),
            "lut": (encoding.entries, "fp16"),
            "shape": (np.array(shape), "uint32"),
        }
        return site.sheet.compressed("constexpr_lut_to_dense", hint, shape, "fp16", parts)
    return site.sheet.constant(hint, found.array, site.floats)


def write_convolution(site: Site) -> Value:
    """Write a convolution over one or two axes."""
    arguments = site.arguments
    weight = stored_weight(site)
    rank = len(weight.shape) - 2
    padding = arguments.get("padding", 0)
    dilation = spreading(arguments["dilation"], rank)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        sides = [side for total in totals for side in (total // 2, total - total // 2)]
    else:
        sides = [side for n in spreading(0 if padding == "valid" else padding, rank) for side in (n, n)]
    return site.emit(
        "conv",
        site.shape,
        x=site.value("input"),
        weight=weight,
        bias=_bias(site),
        strides=spreading(arguments["stride"], rank),
        pad_type="custom",
        pad=sides,
        dilations=dilation,
        groups=int(arguments["groups"]),
    )


def write_linear(site: Site) -> Value:
    """Write a linear layer over the last axis."""
    weight = stored_weight(site)
    return site.emit("linear", site.shape, x=site.value("input"), weight=weight, bias=_bias(site))


def _bias(site: Site) -> Value | None:
    found = site.arguments.get("bias")
    if found is None:
        return None
    if not isinstance(found, Constant):
        raise site.refused("its bias is computed")
    return site.sheet.constant(f"{site.node.key}_bias", found.array, site.floats)


def write_embedding(site: Site) -> Value:
    """Write a table whose rows are looked up."""
    table = stored_weight(site)
    indices = site.read(site.arguments["indices"], "int32")
    return site.emit("gather", site.shape, table.dtype, x=table, indices=indices, axis=0, batch_dims=0)


def write_layer_norm(site: Site) -> Value:
    """Write a norm over the last axes (Ba et al. 2016)."""
    x = site.value("input")
    rank = len(x.shape)
    axes = list(range(rank - len(site.arguments["normalized_shape"]), rank))
    parts = {}
    for name, given in (("gamma", site.arguments.get("weight")), ("beta", site.arguments.get("bias"))):
        if given is not None:
            if not isinstance(given, Constant):
                raise site.refused(f"its {name} is computed")
            parts[name] = site.read(given)
    return site.emit(
        "layer_norm", site.shape, x=x, axes=axes, epsilon=site.number(float(site.arguments["eps"])), **parts
    )


def write_softmax(site: Site) -> Value:
    """Write a softmax."""
    return site.emit("softmax", site.shape, x=site.value("self", "input"), axis=int(site.arguments["dim"]))


def write_log_softmax(site: Site) -> Value:
    """Write the logarithm of a softmax, steadily: x - m - log(sum(exp(x - m)))."""
    x = site.value("self")
    axis = [int(site.arguments["dim"]) % len(x.shape)]
    one = [1 if at in axis else size for at, size in enumerate(x.shape)]
    most = site.emit("reduce_max", one, x=x, axes=axis, keep_dims=True)
    less = site.emit("sub", x.shape, x=x, y=most)
    whole = site.emit("reduce_log_sum_exp", one, x=less, axes=axis, keep_dims=True)
    return site.emit("sub", x.shape, x=less, y=whole)


def write_matmul(site: Site) -> Value:
    """Write a product of matrices, batched."""
    one = site.value("self")
    other = site.value("mat2", "other")
    if len(one.shape) < 2 or len(other.shape) < 2:
        raise site.refused("a product with a vector")
    return product(site, one, other, site.shape)


def product(site: Site, one: Value, other: Value, shape: tuple[int, ...], *, turned: bool = False) -> Value:
    """Add a product; ``turned`` takes the second matrix transposed."""
    return site.emit("matmul", shape, x=one, y=other, transpose_x=False, transpose_y=turned)


def write_attention(site: Site) -> Value:
    """Write scaled dot-product attention (Vaswani et al. 2017): softmax(q k^T * scale + mask) v."""
    arguments = site.arguments
    if arguments.get("dropout_p") or arguments.get("is_causal") or arguments.get("enable_gqa"):
        raise site.refused("dropout, a causal flag or grouped queries")
    query, key, value = (site.value(name) for name in ("query", "key", "value"))
    scale = arguments.get("scale")
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    scaled = site.emit("mul", query.shape, x=query, y=site.number(factor))
    shape = (*query.shape[:-1], key.shape[-2])
    scores = product(site, scaled, key, shape, turned=True)
    mask = arguments.get("attn_mask")
    if mask is not None:
        scores = site.emit("add", shape, x=scores, y=_mask(site, site.read(mask)))
    weights = site.emit("softmax", shape, x=scores, axis=-1)
    return product(site, weights, value, site.shape)


def _mask(site: Site, mask: Value) -> Value:
    """Return what is added to scores: 0 where a mask of truths holds, the lowest number where it does not."""
    if mask.dtype != "bool":
        return mask
    missing = site.emit("sub", mask.shape, x=site.sheet.cast(mask, site.floats), y=site.number(1.0))
    lowest = np.finfo(np.float16 if site.floats == "fp16" else np.float32).max
    return site.emit("mul", mask.shape, x=missing, y=site.number(float(lowest)))


def write_vector_norm(site: Site) -> Value:
    """Write the Euclidean length along axes."""
    if site.arguments.get("ord", 2) != 2:
        raise site.refused("a norm that is not Euclidean")
    x, dims = site.value("self"), site.arguments.get("dim")
    axes = list(range(len(x.shape))) if dims is None else dims if isinstance(dims, list) else [dims]
    axes = [int(axis) % len(x.shape) for axis in axes]
    return site.emit("reduce_l2_norm", site.shape, x=x, axes=axes, keep_dims=bool(site.arguments.get("keepdim")))
