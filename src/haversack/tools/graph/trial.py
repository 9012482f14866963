"""Encodings for trying a writer: as many codes as a graph can hold, all of one scale, before anything is measured.

What a file has no place for is told by whoever writes it, and by nobody else. So the writer is asked beforehand, with
numbers that mean nothing, and what it refuses becomes a constraint of all the targets: see ``Target.demands``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Encoding, Encodings
from haversack.base.errors import Fault
from haversack.base.graph import Graph
from haversack.base.model import Model
from haversack.tools.graph.law import integer_tensors
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.numerics.affine import MIDDLE

_ROUNDS = 8
"""So often a writer is asked; each time it has refused some tensor, which is then left out."""
_PORTS = (":out", ":in", ":weight")


def encodings(model: Model, constraints: Constraints) -> Encodings:
    """Return encodings with every layer in integers that can be: scale 1, all weights 0.

    The integers take no memory of their own: one zero stands for all.

    Args:
        model: the canonical model.
        constraints: ops with integer kernels, and the tensors that stay float.
    """
    ops = constraints.integer_ops
    layers = {node.key for node in model.graph.nodes if role(node) is Role.LAYER and node.op in ops}
    keys = integer_tensors(model.graph, layers, ops, constraints.floats)
    one, none = np.ones((), np.float32), np.zeros((), np.int32)
    zero = np.array(MIDDLE if constraints.symmetric else 0, np.int32)
    grid = Affine(8, signed=False, axis=None, scale=one, zero_point=zero)
    weight = Affine(8, signed=True, axis=None, scale=one, zero_point=none)
    tensors: dict[str, Encoding] = dict.fromkeys(sorted(keys), grid)
    integers = {}
    for unit in units(model.graph):
        node = unit.head
        if node.key in layers and keys.issuperset({f"{node.inputs[0]}:out", unit.out}):
            key = f"{node.key}:weight"
            tensors[key] = weight
            integers[key] = np.broadcast_to(none, model.weights[str(node.weight)].shape)
    return Encodings(tensors, integers)


def placeless(
    model: Model, constraints: Constraints, refused: Callable[[Encodings], Iterable[Fault]]
) -> frozenset[str]:
    """Return the tensors that stay float, since a writer refuses their codes; those of the constraints among them.

    Args:
        model: the canonical model.
        constraints: see ``encodings``.
        refused: writes a file with encodings, and returns what it has no place for, by tensor or node key.
    """
    floats = constraints.floats
    for _ in range(_ROUNDS):
        trial = encodings(model, replace(constraints, floats=floats))
        told = _tensors(model.graph, refused(trial)) & trial.tensors.keys()
        if not told:
            break
        floats |= told
    return floats


def _tensors(graph: Graph, faults: Iterable[Fault]) -> frozenset[str]:
    """Return the activations that faults speak of: of a layer, what leaves it."""
    outs = {unit.head.key: unit.out for unit in units(graph)}
    found = set()
    for fault in faults:
        if fault.where.endswith(":out"):
            found.add(fault.where)
        key = next((fault.where.removesuffix(port) for port in _PORTS if fault.where.endswith(port)), fault.where)
        if key in outs and not fault.where.endswith(":out"):
            found.add(outs[key])
    return frozenset(found)
