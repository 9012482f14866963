"""Which tensors hold integers under a plan: what integer layers read and write, and what follows from that."""

from __future__ import annotations

from haversack.base.constraints import Constraints
from haversack.base.errors import ConversionError, Fault, UsageError
from haversack.base.graph import Graph, Node
from haversack.base.keys import split_node
from haversack.base.plan import GROUPS, STATIC, WEIGHT_BITS, LayerPlan, Plan, Precision
from haversack.tools.graph.law import INTEGER_ROLES
from haversack.tools.graph.roles import Role, role, units

_PRECISIONS: dict[Role, frozenset[Precision]] = {
    Role.LAYER: frozenset(WEIGHT_BITS),
    Role.EMBEDDING: frozenset({"float32", "float16", "int8_weights", "palette"}),
}


def bears(node: Node, precision: Precision) -> bool:
    """Say whether a node can have a precision at all, whatever the runtime."""
    if precision == "w4_grouped" and node.op != "linear":
        return False
    return precision in _PRECISIONS.get(role(node), frozenset())


def group_of(layer: LayerPlan) -> int:
    """Return how many weights share a scale in a layer that is ``w4_grouped``.

    Raises:
        UsageError: the settings of its weights say another number than one of ``GROUPS``.
    """
    group = layer.weights.settings.get("group", GROUPS[0])
    if group not in GROUPS or isinstance(group, bool):
        raise UsageError(
            f"no kernel has groups of {group!r} weights",
            where=layer.precision,
            next_step=f"set group to one of {', '.join(map(str, GROUPS))}",
        )
    return int(group)


def check(graph: Graph, plan: Plan, constraints: Constraints) -> None:
    """Check that a plan can be made of this graph.

    Raises:
        UsageError: it names layers that the graph does not have, or a precision that a layer cannot have.
        ConversionError: a layer is to run in integers and the targets have no such kernel for it.
    """
    faults, lacking = [], []
    for key, layer in plan.layers.items():
        node = graph.by_key.get(key)
        if node is None:
            faults.append(Fault(key, "the prepared model has no such layer"))
        elif not bears(node, layer.precision):
            faults.append(Fault(key, f"{node.op} ({role(node).value}) cannot have the precision {layer.precision}"))
        elif layer.precision in STATIC and node.op not in constraints.integer_ops:
            lacking.append(Fault(split_node(key)[0] or key, f"{plan.target} has no integer kernel for {node.op}"))
        elif layer.precision == "w4a8" and key not in constraints.int4_layers:
            cause = f"{', '.join(plan.constrained_by) or plan.target} has no kernel for 4-bit weights of this {node.op}"
            lacking.append(Fault(split_node(key)[0] or key, cause))
        elif layer.precision == "w4_grouped" and group_of(layer) not in constraints.groups.get(key, ()):
            kernels = ", ".join(map(str, sorted(constraints.groups.get(key, ())))) or "none"
            cause = f"groups of {group_of(layer)} 4-bit weights have no kernel here; those that have: {kernels}"
            lacking.append(Fault(split_node(key)[0] or key, cause))
    if faults:
        raise UsageError(
            "the plan does not fit the model",
            where=plan.id,
            faults=tuple(faults),
            next_step="make the plan again for this model, or mend the layers named above",
        )
    if lacking:
        raise ConversionError(
            "layers cannot run in integers",
            where=plan.id,
            faults=tuple(lacking),
            next_step="give them the precision float32, float16 or int8_weights, or int8 where only 4 bits are lacking",
        )


def integer_tensors(graph: Graph, plan: Plan, integer_ops: frozenset[str]) -> frozenset[str]:
    """Return the keys of the activations that hold integers.

    They are: input and output of every static layer (int8, w4a8); then, in execution order, the output of every other
    unit whose op has an integer kernel and whose inputs all hold integers; and the input of a unit that only moves
    values, if it has an integer kernel, its output holds integers and nobody else reads that input (so that a graph
    input is quantized before its padding, not after).
    """
    found: set[str] = set()
    parts = units(graph)
    for unit in parts:
        layer = plan.layers.get(unit.head.key)
        if layer is not None and layer.precision in STATIC:
            found |= {f"{unit.head.inputs[0]}:out", unit.out}
    for unit in reversed(parts):
        if role(unit.head) is Role.SAME and unit.head.op in integer_ops and unit.out in found:
            source = unit.head.inputs[0]
            if len(graph.consumers[source]) == 1 and source not in graph.outputs:
                found.add(f"{source}:out")
    for unit in parts:
        follows = role(unit.head) in INTEGER_ROLES - {Role.LAYER}
        if follows and unit.head.op in integer_ops and all(f"{key}:out" in found for key in unit.head.inputs):
            found.add(unit.out)
    return frozenset(found)
