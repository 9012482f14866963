"""The second sentence of the law of encodings: which units run in integers."""

from __future__ import annotations

from haversack.base.encodings import Affine, Encodings
from haversack.tools.graph.roles import Role, Unit, role

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
