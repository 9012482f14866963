"""The second sentence of the law of encodings: which units run in integers, and so which tensors hold codes."""

from __future__ import annotations

from collections.abc import Collection

from haversack.base.encodings import Affine, Encodings
from haversack.base.graph import Graph
from haversack.tools.graph.roles import Role, Unit, role, units

INTEGER_ROLES = frozenset({Role.LAYER, Role.ADD, Role.MEAN, Role.SAME, Role.CONCAT})


def runs_in_integers(unit: Unit, encodings: Encodings, integer_ops: frozenset[str]) -> bool:
    """Say whether a unit runs in integers: the runtime has a kernel, and all it reads, gives and holds is Affine.

    What SAME and CONCAT read and give must moreover have one encoding: they move codes and compute nothing.
    """
    kind = role(unit.head)
    if kind not in INTEGER_ROLES or unit.head.op not in integer_ops:
        return False
    out = encodings.affine(unit.out)
    flowing = [encodings.affine(f"{key}:out") for key in unit.head.inputs]
    if out is None or not flowing or any(found is None for found in flowing):
        return False
    if kind is Role.LAYER:
        weight, dynamic = f"{unit.head.key}:weight", f"{unit.head.key}:in"
        return encodings.affine(weight) is not None and dynamic not in encodings.tensors
    if kind in (Role.SAME, Role.CONCAT):
        return all(found is not None and equal(found, out) for found in flowing)
    return True


def equal(one: Affine, other: Affine) -> bool:
    """Say whether two encodings give every code the same value."""
    return (
        (one.bits, one.signed, one.axis) == (other.bits, other.signed, other.axis)
        and one.scale.tobytes() == other.scale.tobytes()
        and one.zero_point.tobytes() == other.zero_point.tobytes()
    )


def integer_tensors(
    graph: Graph, layers: Collection[str], integer_ops: frozenset[str], floats: Collection[str] = ()
) -> frozenset[str]:
    """Return the keys of the activations that hold integers.

    They are: input and output of every layer that is to run in integers; then, in execution order, the output of every
    other unit whose op has an integer kernel and whose inputs all hold integers; and the input of a unit that only
    moves values, if it has an integer kernel, its output holds integers and nobody else reads that input (so that a
    graph input is quantized before its padding, not after).

    Args:
        graph: the canonical graph.
        layers: node keys of the layers that run in integers where no tensor of theirs must stay float.
        integer_ops: ops with an integer kernel.
        floats: tensor keys that stay float (``Constraints.floats``).
    """
    found: set[str] = set()
    parts = units(graph)
    for unit in parts:
        if unit.head.key in layers:
            ends = {f"{unit.head.inputs[0]}:out", unit.out}
            found |= set() if ends.intersection(floats) else ends
    for unit in reversed(parts):
        if role(unit.head) is Role.SAME and unit.head.op in integer_ops and unit.out in found:
            source = unit.head.inputs[0]
            alone = len(graph.consumers[source]) == 1 and source not in graph.outputs
            if alone and f"{source}:out" not in floats:
                found.add(f"{source}:out")
    for unit in parts:
        follows = role(unit.head) in INTEGER_ROLES - {Role.LAYER} and unit.out not in floats
        if follows and unit.head.op in integer_ops and all(f"{key}:out" in found for key in unit.head.inputs):
            found.add(unit.out)
    return frozenset(found)


def constants(graph: Graph) -> frozenset[str]:
    """Return the keys of nodes that depend on no input of the model and on no layer: positions, an initial state.

    What they give is known before any input is: no runtime has codes for it, and some compute it when they are written.
    """
    found: set[str] = set()
    for node in graph.nodes:
        weighted = role(node) in (Role.LAYER, Role.EMBEDDING)
        if node.op != "input" and not weighted and all(key in found for key in node.inputs):
            found.add(node.key)
    return frozenset(found)
