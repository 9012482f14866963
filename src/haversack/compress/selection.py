"""Which tensors hold integers under a plan: what integer layers read and write, and what follows from that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from haversack.base.constraints import Constraints
from haversack.base.counted import counted
from haversack.base.errors import ConversionError, Fault, UsageError
from haversack.base.finding import Finding
from haversack.base.graph import Graph, Node
from haversack.base.keys import split_node
from haversack.base.plan import GROUPS, NARROW, STATIC, WEIGHT_BITS, LayerPlan, Plan, Precision
from haversack.base.scope import precision
from haversack.tools.graph import law, tied
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


def lacks(key: str, precision: Precision, widths: Mapping[str, Collection[int]]) -> bool:
    """Say whether a precision needs weights of a width that a layer cannot have.

    Args:
        key: node key of the layer.
        precision: any.
        widths: ``Constraints.widths``.
    """
    bits = WEIGHT_BITS[precision]
    return precision in STATIC and bits in NARROW and bits not in widths.get(key, ())


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
        UsageError: it names layers that the graph does not have, or a precision that a layer cannot have, or gives
            layers that read one weight different forms of it.
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
        elif lacks(key, layer.precision, constraints.widths):
            able = ", ".join(map(str, sorted({*constraints.widths.get(key, ()), 8})))
            who = ", ".join(plan.constrained_by) or plan.target
            cause = f"{who} cannot have weights of {counted(WEIGHT_BITS[layer.precision], 'bit')} in this {node.op}"
            lacking.append(Fault(split_node(key)[0] or key, f"{cause}; it can have {able}"))
        elif layer.precision == "w4_grouped" and group_of(layer) not in constraints.groups.get(key, ()):
            kernels = ", ".join(map(str, sorted(constraints.groups.get(key, ())))) or "none"
            cause = f"groups of {group_of(layer)} 4-bit weights have no kernel here; those that have: {kernels}"
            lacking.append(Fault(split_node(key)[0] or key, cause))
    for one, other in tied.quarrels(graph, plan.layers):
        forms = (precision(plan.layers.get(node.key)) for node in (one, other))
        cause = f"it reads {one.weight} as {one.key} does, and they are {' and '.join(forms)}: a file stores it once"
        faults.append(Fault(other.key, cause))
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
            next_step="give them the precision float32, float16 or int8_weights, or another width where one is told",
        )


def integer_tensors(
    graph: Graph, plan: Plan, integer_ops: frozenset[str], floats: Collection[str] = ()
) -> frozenset[str]:
    """Return the keys of the activations that hold integers under a plan (see ``tools.graph.law``)."""
    return law.integer_tensors(graph, _static(plan), integer_ops, floats)


def holdable(graph: Graph, plan: Plan, constraints: Constraints) -> tuple[Plan, tuple[Finding, ...]]:
    """Return a plan without the static layers that read or give what must stay float, and a finding for each of them.

    A file has no place for the codes of some tensors (``Constraints.floats``). Their layers stay float32, for all the
    targets alike, so that one set of integers serves them; that is told, never done in silence.
    """
    found = []
    for unit in units(graph):
        if unit.head.key in _static(plan):
            ends = (f"{unit.head.inputs[0]}:out", unit.out)
            lacking = [key for key in ends if key in constraints.floats]
            if lacking:
                place = split_node(unit.head.key)[0] or unit.head.key
                text = f"{unit.head.key} stays float32: there is no place for codes of {', '.join(lacking)}"
                found.append((unit.head.key, Finding("kept-in-float", text, place)))
    gone = {key for key, _ in found}
    kept = {key: layer for key, layer in plan.layers.items() if key not in gone}
    return (replace(plan, layers=kept) if gone else plan), tuple(finding for _, finding in found)


def _static(plan: Plan) -> frozenset[str]:
    return frozenset(key for key, layer in plan.layers.items() if layer.precision in STATIC)
