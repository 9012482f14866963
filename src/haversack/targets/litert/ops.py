"""Which op is written by which function: all that a LiteRT file can hold. What is not here is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from haversack.targets.litert import (
    activations,
    arithmetic,
    composed,
    layers,
    moves,
    norms,
    picks,
    pools,
    resizes,
    transposed,
    writes,
)
from haversack.targets.litert.sheet import Value
from haversack.targets.litert.site import Site

Writer = Callable[[Site], Value]


def _all(names: str, writer: Writer) -> dict[str, Writer]:
    return dict.fromkeys(names.split(), writer)


WRITERS: Mapping[str, Writer] = {
    **_all(" ".join(arithmetic.BINARY), arithmetic.write_binary),
    **_all(" ".join(arithmetic.UNARY), arithmetic.write_unary),
    **_all("clamp clamp_min clamp_max hardtanh", arithmetic.write_clamp),
    **_all("to _to_copy type_as float", arithmetic.write_cast),
    **_all("dropout clone contiguous alias detach lift_fresh_copy", moves.write_same),
    **_all("view reshape flatten unflatten _unsafe_view squeeze unsqueeze", moves.write_reshape),
    **_all("permute transpose t swapaxes", moves.write_permute),
    **_all("pad constant_pad_nd", picks.write_pad),
    **_all("split split_with_sizes chunk unbind", moves.write_pieces),
    **_all("mean sum amax amin", pools.write_reduction),
    **_all("std var", pools.write_variance),
    **_all("adaptive_avg_pool2d adaptive_avg_pool1d", pools.write_adaptive),
    **_all("max_pool2d max_pool1d avg_pool2d avg_pool1d", pools.write_pool),
    **_all("matmul bmm mm", composed.write_matmul),
    "reciprocal": arithmetic.write_reciprocal,
    "rsub": arithmetic.write_reversed,
    "silu": activations.write_silu,
    "hardsigmoid": activations.write_hardsigmoid,
    "gelu": activations.write_gelu,
    "leaky_relu": activations.write_leaky_relu,
    "prelu": activations.write_prelu,
    "elu": activations.write_elu,
    "selu": activations.write_selu,
    "celu": activations.write_celu,
    "softplus": activations.write_softplus,
    "log_sigmoid": activations.write_log_sigmoid,
    "mish": activations.write_mish,
    "glu": activations.write_glu,
    "pow": arithmetic.write_pow,
    "log1p": arithmetic.write_log1p,
    "threshold": arithmetic.write_threshold,
    "where": arithmetic.write_where,
    "masked_fill": arithmetic.write_masked_fill,
    "conv1d": layers.write_conv1d,
    "conv2d": layers.write_conv2d,
    "conv_transpose1d": transposed.write_transposed1d,
    "conv_transpose2d": transposed.write_transposed2d,
    "linear": layers.write_linear,
    "embedding": layers.write_embedding,
    "repeat": moves.write_repeat,
    "expand": moves.write_expand,
    "expand_as": moves.write_expand,
    "slice": moves.write_slice,
    "select": moves.write_select,
    "cat": moves.write_concat,
    "stack": moves.write_stack,
    "getitem": moves.write_item,
    "index": picks.write_index,
    "repeat_interleave": picks.write_repeat_each,
    "roll": picks.write_roll,
    "channel_shuffle": picks.write_channel_shuffle,
    "pixel_shuffle": picks.write_pixel_shuffle,
    "pixel_unshuffle": picks.write_pixel_unshuffle,
    "flip": moves.write_flip,
    "fill": writes.write_fill,
    "copy": writes.write_copy,
    "slice_scatter": writes.write_slice_scatter,
    "select_scatter": writes.write_select_scatter,
    "argmax": pools.write_largest_place,
    "cumsum": pools.write_cumulative,
    "softmax": composed.write_softmax,
    "log_softmax": composed.write_log_softmax,
    "layer_norm": norms.write_layer_norm,
    "batch_norm": norms.write_batch_norm,
    "group_norm": norms.write_group_norm,
    "instance_norm": norms.write_instance_norm,
    "rms_norm": norms.write_rms_norm,
    "scaled_dot_product_attention": composed.write_attention,
    "upsample_nearest1d": resizes.write_nearest_line,
    "upsample_nearest2d": resizes.write_nearest,
    "upsample_bilinear2d": resizes.write_bilinear,
    "linalg_vector_norm": composed.write_vector_norm,
}
