"""Pads that a convolution does itself: ncnn's convolutions take other zeros on each side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from haversack.base.encodings import Encodings
from haversack.base.graph import Graph, Node
from haversack.targets.ncnn.site import Pads
from haversack.tools.graph.law import equal
from haversack.tools.graph.roles import Role, role


@dataclass(frozen=True)
class Absorbed:
    """A pad that its only reader does: key of what it reads, zeros on each side."""

    source: str
    pads: Pads


def absorbed(graph: Graph, encodings: Encodings) -> Mapping[str, Absorbed]:
    """Return node key -> what becomes of it, for pads of zeros that only one convolution reads.

    The pad must have its input's encoding, or none of both has one.
    """
    found = {}
    for node in graph.nodes:
        readers = graph.consumers[node.key]
        if node.key in graph.outputs or len(readers) != 1 or not _convolves(readers[0]):
            continue
        pads = _zeros(node)
        if pads is not None and _alike(node, encodings):
            found[node.key] = Absorbed(node.inputs[0], pads)
    return found


def _convolves(node: Node) -> bool:
    return role(node) is Role.LAYER and node.op == "conv2d" and not isinstance(node.attributes.get("padding"), str)


def _zeros(node: Node) -> Pads | None:
    """Return what a pad of zeros adds on each side of an image, None for everything else."""
    if node.op not in ("pad", "constant_pad_nd") or role(node) is not Role.SAME or len(node.output.shape) != 4:
        return None
    pads = [int(size) for size in node.attributes["pad"]]
    pads += [0] * (4 - len(pads))
    if (len(pads) > 4 and any(pads[4:])) or min(pads) < 0:
        return None
    return pads[0], pads[1], pads[2], pads[3]


def _alike(node: Node, encodings: Encodings) -> bool:
    mine, theirs = encodings.affine(node.out), encodings.affine(f"{node.inputs[0]}:out")
    if mine is None or theirs is None:
        return mine is theirs
    return equal(mine, theirs)
