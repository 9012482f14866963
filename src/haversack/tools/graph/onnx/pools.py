"""Pools in the forms whose integer kernels compute what PyTorch does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.graph import Graph, Node

if TYPE_CHECKING:
    import onnx_ir as ir


def reaching_over(graph: ir.Graph, node: Node, made: ir.Node, shape: tuple[int | str, ...]) -> list[ir.Node]:
    """Let an average pool whose windows reach over the end (``ceil_mode``) count no place behind it.

    PyTorch divides by the places of a window inside the image and its pads. ONNX Runtime's float kernel does so too;
    its integer kernel (1.32, ``QLinearAveragePool``) divides by the whole window. It counts as PyTorch does where pads
    are not to be counted; so the pads that are to be counted become zeros of the image.

    Args:
        graph: changed in place.
        node: the pool in the canonical graph; its output tells how many windows there are.
        made: the AveragePool that it was exported to.
        shape: of what the pool reads.

    Returns:
        The nodes that were added before it; nothing where the pool stays as it is.
    """
    import onnx_ir as ir

    told = {name: attribute.value for name, attribute in made.attributes.items()}
    if not told.get("ceil_mode") or not told.get("count_include_pad"):
        return []
    rank = len(told["kernel_shape"])
    pads = list(told.get("pads") or [0] * (2 * rank))
    table = _counted(told, pads, shape[-rank:], node.output.shape[-rank:]) if any(pads) else []
    if table is None:  # lengths are free: how far the last window reaches is not known
        return []
    made.attributes.add(ir.AttrInt64("count_include_pad", 0))
    if not any(pads):
        return []
    made.attributes.add(ir.AttrInt64s("pads", [0] * (2 * rank)))
    lead = [0] * (len(shape) - rank)
    sides = ir.val(f"{node.key}/pads", const_value=ir.tensor(np.array([*lead, *table[:rank], *lead, *table[rank:]])))
    graph.register_initializer(sides)
    padded = ir.node("Pad", [made.inputs[0], sides])
    padded.outputs[0].type = made.outputs[0].type
    graph.insert_before(made, padded)
    made.replace_input_with(0, padded.outputs[0])
    return [padded]


def is_open(graph: Graph, node: Node) -> bool:
    """Say whether an average pool counts pads and reaches over the end, by how much no fixed length tells.

    Such a pool is right in float only (see ``reaching_over``), so that it gives no codes.
    """
    told = node.attributes
    if not node.op.startswith("avg_pool") or not told.get("ceil_mode") or told.get("count_include_pad") is False:
        return False
    padding = told.get("padding") or [0]
    sizes = (*graph.by_key[node.inputs[0]].output.shape[2:], *node.output.shape[2:])
    padded = any(padding if isinstance(padding, list) else [padding])
    return padded and any(isinstance(size, str) for size in sizes)


def _counted(
    told: dict[str, Any], pads: list[int], sizes: tuple[int | str, ...], windows: tuple[int | str, ...]
) -> list[int] | None:
    """Return the pads that some window reaches, [before …, after …]; None where a length is free.

    A pad that no window reaches would make room for one more window.
    """
    rank = len(sizes)
    steps = told.get("strides") or [1] * rank
    after = []
    for axis, (size, count) in enumerate(zip(sizes, windows, strict=True)):
        if not isinstance(size, int) or not isinstance(count, int):
            return None
        reach = (count - 1) * steps[axis] + told["kernel_shape"][axis] - pads[axis] - size
        after.append(max(0, min(pads[rank + axis], reach)))
    return [*pads[:rank], *after]
