"""Multiply-accumulates of one call, from its shapes at the example's lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx

_PRODUCTS = {"matmul": 0, "mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}


def macs_of(op: str, fx_node: fx.Node, arguments: Mapping[str, Any]) -> int:
    """Return multiply-accumulates for the whole example batch; 0 for ops that are no sums of products.

    Args:
        op: the op's name without namespace and overload.
        fx_node: the call.
        arguments: its arguments by the names of the op's schema.
    """
    value = fx_node.meta["val"]
    out = math.prod(_shape(value[0] if isinstance(value, tuple | list) else value))
    weight = arguments.get("weight")
    if op.startswith("conv_transpose") and weight is not None:  # weight [in, out / groups, kernel]
        return math.prod(_shape(arguments["input"])) * math.prod(_shape(weight)[1:])
    if (op.startswith("conv") or op == "linear") and weight is not None:
        return out * math.prod(_shape(weight)[1:])
    if op in _PRODUCTS:
        return out * _shape(fx_node.args[_PRODUCTS[op]])[-1]
    if op == "scaled_dot_product_attention":  # [.., length, width] by [.., keys, width], twice
        return 2 * math.prod(_shape(arguments["query"])) * _shape(arguments["key"])[-2]
    return _einsum(arguments) if op == "einsum" else 0


def hint(size: Any) -> int:  # noqa: ANN401 - int or SymInt
    """Return a length of the example, free or not."""
    return size if isinstance(size, int) else int(size.node.hint or 1)


def _shape(value: Any) -> list[int]:  # noqa: ANN401 - a node or its value
    meta = getattr(value, "meta", None)
    return [hint(size) for size in (meta["val"] if meta is not None else value).shape]


def _einsum(arguments: Mapping[str, Any]) -> int:
    """Return the product of all index lengths: exact for two tensors, what a naive loop does for more."""
    letters = str(arguments["equation"]).replace(" ", "").partition("->")[0].split(",")
    lengths: dict[str, int] = {}
    for word, tensor in zip(letters, arguments["tensors"], strict=True):
        if "." in word:
            return 0
        lengths.update(zip(word, _shape(tensor), strict=True))
    return math.prod(lengths.values()) if len(letters) > 1 else 0
