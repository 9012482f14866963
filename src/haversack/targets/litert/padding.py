"""Padding: what a convolution does by itself, and which pads of the graph it thereby makes unnecessary.

PyTorch pads both sides alike or by a node of its own; LiteRT knows SAME (as little as gives ceil(size / stride)
outputs, the odd one behind) and VALID (nothing).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from haversack.base.encodings import Encodings
from haversack.base.graph import Graph, Node
from haversack.tools.graph.law import equal
from haversack.tools.graph.program import Program
from haversack.tools.graph.roles import Role, role

Sides = tuple[tuple[int, int], ...]
"""(before, after) of each spatial axis."""


def own(arguments: Mapping[str, Any], kernel: Sequence[int]) -> Sides:
    """Return how a convolution pads its input in PyTorch.

    Args:
        arguments: of the call.
        kernel: spatial lengths of the weight.
    """
    padding = arguments.get("padding", 0)
    rank = len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(spread(arguments["dilation"], rank), kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((side, side) for side in spread(0 if padding == "valid" else padding, rank))


def spread(value: Any, rank: int) -> list[int]:  # noqa: ANN401 - a number or a list
    """Return one number for each spatial axis."""
    several = list(value) if isinstance(value, list | tuple) else [value]
    return [int(n) for n in (several * rank if len(several) == 1 else several)]


def scheme(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], sides: Sides
) -> str:
    """Return ``SAME`` or ``VALID``, whichever does these sides, or an empty string.

    Args:
        sizes: spatial lengths of the input, not padded.
        kernel, stride, dilation: of the convolution.
        sides: what PyTorch pads.
    """
    if not any(side for pair in sides for side in pair):
        return "VALID"
    wanted = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        wanted.append((total // 2, total - total // 2))
    return "SAME" if tuple(wanted) == tuple(sides) else ""


def sides_of(node: Node, rank: int) -> Sides | None:
    """Return what a zero pad of the graph adds to the spatial axes, or None where it pads others or cuts."""
    pads = list(node.attributes.get("pad", ()))
    if not all(isinstance(n, int) and n >= 0 for n in pads) or len(pads) > 2 * rank:
        return None
    pads += [0] * (2 * rank - len(pads))
    return tuple((pads[2 * axis], pads[2 * axis + 1]) for axis in reversed(range(rank)))


def joined(one: Sides, other: Sides) -> Sides:
    """Return both paddings together."""
    return tuple((a + c, b + d) for (a, b), (c, d) in zip(one, other, strict=True))


def absorbed(graph: Graph, program: Program, encodings: Encodings) -> dict[str, str]:
    """Return key of a pad -> key of what it pads, for pads that every reader does by itself."""
    found = {}
    for node in graph.nodes:
        if node.op not in ("pad", "constant_pad_nd") or role(node) is not Role.SAME or node.key in graph.outputs:
            continue
        readers = graph.consumers[node.key]
        if not _one_encoding(node, encodings) or not readers:
            continue
        if all(reader.op == "conv2d" and _absorbs(reader, node, graph, program) for reader in readers):
            found[node.key] = node.inputs[0]
    return found


def _one_encoding(node: Node, encodings: Encodings) -> bool:
    mine, theirs = encodings.affine(node.out), encodings.affine(f"{node.inputs[0]}:out")
    return mine is None or (theirs is not None and equal(mine, theirs))


def _absorbs(reader: Node, pad: Node, graph: Graph, program: Program) -> bool:
    if role(reader) is not Role.LAYER or reader.inputs != (pad.key,):
        return False
    arguments = program.arguments(reader)
    kernel = program.model.weights[str(reader.weight)].shape[2:]
    sides = sides_of(pad, len(kernel))
    if sides is None:
        return False
    sizes = program.shape(graph.by_key[pad.inputs[0]])[2:]
    stride, dilation = (spread(arguments[name], len(kernel)) for name in ("stride", "dilation"))
    return scheme(sizes, kernel, stride, dilation, joined(sides, own(arguments, kernel))) != ""
