"""Which op is written by which function: all that a Core ML program can hold here. What is not here is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from haversack.targets.coreml import arithmetic, layers, moves
from haversack.targets.coreml.sheet import Value
from haversack.targets.coreml.site import Site

Writer = Callable[[Site], Value]


def _all(names: str | Iterable[str], writer: Writer) -> dict[str, Writer]:
    return dict.fromkeys(names.split() if isinstance(names, str) else names, writer)


WRITERS: Mapping[str, Writer] = {
    **_all(arithmetic.BINARY, arithmetic.write_binary),
    **_all(arithmetic.COMPARE, arithmetic.write_compare),
    **_all(arithmetic.LOGICAL, arithmetic.write_logical),
    **_all(arithmetic.UNARY, arithmetic.write_unary),
    **_all("log rsqrt reciprocal", arithmetic.write_epsilon),
    **_all("clamp clamp_min clamp_max hardtanh", arithmetic.write_clamp),
    **_all("to _to_copy type_as float", arithmetic.write_cast),
    **_all("dropout clone contiguous alias detach lift_fresh_copy", moves.write_same),
    **_all("view reshape flatten unflatten _unsafe_view squeeze unsqueeze", moves.write_reshape),
    **_all("permute transpose t", moves.write_permute),
    **_all("expand expand_as", moves.write_expand),
    **_all("pad constant_pad_nd", moves.write_pad),
    **_all("split split_with_sizes chunk unbind", moves.write_pieces),
    **_all(moves.REDUCED, moves.write_reduction),
    **_all("adaptive_avg_pool2d adaptive_avg_pool1d", moves.write_adaptive),
    **_all("max_pool2d max_pool1d avg_pool2d avg_pool1d", moves.write_pool),
    **_all("matmul bmm mm", layers.write_matmul),
    **_all("conv1d conv2d", layers.write_convolution),
    "rsub": arithmetic.write_reversed,
    "neg": arithmetic.write_negative,
    "logical_not": arithmetic.write_not,
    "hardsigmoid": arithmetic.write_hardsigmoid,
    "hardswish": arithmetic.write_hardswish,
    "gelu": arithmetic.write_gelu,
    "leaky_relu": arithmetic.write_leaky_relu,
    "elu": arithmetic.write_elu,
    "pow": arithmetic.write_pow,
    "where": arithmetic.write_where,
    "masked_fill": arithmetic.write_masked_fill,
    "batch_norm": arithmetic.write_batch_norm,
    "linear": layers.write_linear,
    "embedding": layers.write_embedding,
    "layer_norm": layers.write_layer_norm,
    "softmax": layers.write_softmax,
    "log_softmax": layers.write_log_softmax,
    "scaled_dot_product_attention": layers.write_attention,
    "linalg_vector_norm": layers.write_vector_norm,
    "slice": moves.write_slice,
    "select": moves.write_select,
    "cat": moves.write_concat,
    "stack": moves.write_stack,
    "getitem": moves.write_item,
    "index": moves.write_index,
}
