"""Rules obeyed: what each layer can be in each runtime's files, and plans as the user's say makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from haversack.base.constraints import Constraints
from haversack.base.errors import Fault, UsageError
from haversack.base.graph import Graph
from haversack.base.keys import split_node
from haversack.base.plan import GROUPS, WEIGHT_BITS, LayerPlan, Plan, Precision, Step
from haversack.base.scope import Scope, precision
from haversack.choose.forecast import COMPUTING
from haversack.choose.options import quantizer
from haversack.compress.plans import uniform
from haversack.targets.contract import Target
from haversack.tools.graph import tied
from haversack.tools.graph.roles import Role, role

LAYER, WITHOUT = "--layer", "--without"
PALETTE = Step("kmeans", {"bits": 6})
PLAINER = "minmax"
"""Sets the scales of weights where the usual part is forbidden."""
LAYERS = (Role.LAYER, Role.EMBEDDING)
"""What can be compressed; all else that has weights is float32 in every plan."""
Forms = Mapping[str, Mapping[Precision, LayerPlan]]
"""Node key -> precision -> how the layer is then stored."""


@dataclass(frozen=True)
class Rules:
    """The user's say for one model and its runtimes.

    Attributes:
        scope: as it travels on.
        able: target -> what each layer can be in its files, beside those of the targets that share its encodings.
        alone: target -> what each layer can be in its files where no other shares them.
        graph: of the folded model: it tells which layers read one weight.
    """

    scope: Scope = field(default_factory=Scope)
    able: Mapping[str, Forms] = field(default_factory=dict, hash=False)
    alone: Mapping[str, Forms] = field(default_factory=dict, hash=False)
    graph: Graph = field(default_factory=lambda: Graph((), (), ()))

    def kept(self, plans: Sequence[Plan]) -> list[Plan]:
        """Return the plans as the user's rules make them, each once; without those of which nothing would be left."""
        found: dict[str, Plan] = {}
        for plan in plans:
            made = self.obeyed(plan)
            if made is not None:
                found.setdefault(made.digest, made)
        return list(found.values())

    def obeyed(self, plan: Plan) -> Plan | None:
        """Return a plan in which every layer is as it may be, or None where it then is no plan of its kind.

        Fixed layers are as the user says. One whose precision is forbidden is stored in the nearest that it may have,
        gentler ones first, and in float arithmetic where that can be.
        """
        scope = self.scope
        if not (scope.fixed or scope.without):
            return plan
        layers = dict(plan.layers)
        able = self.able[plan.target]
        for key, forms in able.items():
            layer = self._as_allowed(key, plan.layers.get(key), forms)
            layers.pop(key, None)
            if layer is not None:
                layers[key] = layer
        layers = tied.agreed(self.graph, layers)
        if any(not scope.allows(key, layers.get(key)) and self._allowed(key, forms) for key, forms in able.items()):
            return None  # what reads one weight has no form in common that is allowed
        made = plan if layers == dict(plan.layers) else replace(plan, layers=layers)
        free = {precision(layer) for key, layer in plan.layers.items() if key not in scope.fixed}
        free |= set() if plan.layers else {"float32"}
        gone = not _computes(made) if _computes(plan) else bool(free) and free <= {*scope.without}
        emptied = bool(plan.layers) and not layers
        return None if gone or emptied or scope.forbids(made) else made

    def faults(self, plan: Plan) -> tuple[Fault, ...]:
        """Return in which layers and parts a plan that somebody else made breaks the rules."""
        found = []
        for key, forms in self.able[plan.target].items():
            layer = plan.layers.get(key)
            if self.scope.allows(key, layer) or (layer is None and not self._allowed(key, forms)):
                continue
            fixed = self.scope.fixed.get(key)
            words = f"{LAYER} wants {fixed.precision}" if fixed is not None else f"{WITHOUT} forbids that"
            found.append(Fault(module(key), f"the plan has it in {precision(layer)}, and {words}"))
        told = [name for name in self.scope.forbids(plan) if name not in WEIGHT_BITS]
        return (*found, *(Fault(name, f"the plan uses it, and {WITHOUT} forbids that") for name in told))

    def _as_allowed(self, key: str, layer: LayerPlan | None, forms: Mapping[Precision, LayerPlan]) -> LayerPlan | None:
        """Return how a layer may be that a plan has so; None for float32."""
        if self.scope.allows(key, layer):
            return layer
        if key in self.scope.fixed:
            return _stored(self.scope.fixed[key])
        allowed = self._allowed(key, forms)
        held = precision(layer)
        if held in allowed:  # set by a part that is forbidden
            return _stored(allowed[held])
        return _stored(allowed[min(allowed, key=lambda other: _distance(held, other))]) if allowed else None

    def _allowed(self, key: str, forms: Mapping[Precision, LayerPlan]) -> dict[Precision, LayerPlan]:
        return {kind: form for kind, form in forms.items() if self.scope.allows(key, form)}


def lacking(rules: Rules) -> dict[str, tuple[Fault, ...]]:
    """Return target -> the layers that cannot be as the user says, each with what it can be; nothing where all can.

    Where another target is in the way, with which encodings are shared, that other one is told and not this one.
    """
    found = _lacking(rules, rules.alone)
    return found if any(found.values()) else _lacking(rules, rules.able)


def _lacking(rules: Rules, forms: Mapping[str, Forms]) -> dict[str, tuple[Fault, ...]]:
    found = {}
    for target, able in forms.items():
        faults = []
        for key, held in able.items():
            wanted = rules.scope.fixed.get(key)
            can = ", ".join(held)
            if wanted is not None and wanted.precision not in held:
                faults.append(Fault(module(key), f"{target} cannot have it in {wanted.precision}; it can be {can}"))
            elif wanted is not None and not rules.scope.allows(key, wanted):
                faults.append(Fault(module(key), f"{WITHOUT} forbids all that could set its scales"))
            elif wanted is None and len(held) > 1 and not any(rules.scope.allows(key, one) for one in held.values()):
                faults.append(Fault(module(key), f"{WITHOUT} forbids all that it can be in {target}: {can}"))
        found[target] = tuple(faults)
    return found


def refuse(found: Mapping[str, Sequence[Fault]], rules: Rules, plans: Mapping[str, Plan]) -> None:
    """Refuse layers that cannot be as the user says, and plans that somebody else made and that break the rules.

    Args:
        found: target -> what it lacks.
        rules: the user's say.
        plans: target -> the only plan that is made for it.

    Raises:
        UsageError: with all of them, of all targets.
    """
    faults = tuple(fault for several in found.values() for fault in several)
    broken = tuple(fault for name, plan in plans.items() if name in rules.able for fault in rules.faults(plan))
    if broken:
        raise UsageError(
            "a recipe or a plan is made just as it is, and what is said beside it is something else",
            where=f"{LAYER}, {WITHOUT}",
            faults=(*faults, *broken),
            next_step="pack the job anew with these rules, or leave them out",
        )
    if faults:
        raise UsageError(
            "layers cannot be as asked",
            where=f"{LAYER}, {WITHOUT}",
            faults=faults,
            tried="asking each runtime what it can make of every layer",
            next_step="choose of what each layer can be, or another --target",
        )


def forms(graph: Graph, target: Target, shared: Constraints, without: Sequence[str] = ()) -> Forms:
    """Return what every layer can be in a target's files: float32 always, then as ``Target.precisions`` has them.

    Args:
        graph: the folded model's.
        target: says which precisions there are.
        shared: its constraints, with those of the targets that share its encodings.
        without: parts that should set no scales, where another can.
    """
    found: dict[str, dict[Precision, LayerPlan]] = {
        node.key: {"float32": LayerPlan("float32")} for node in graph.nodes if role(node) in LAYERS
    }
    for kind in target.precisions:
        for step in _steps(kind, without):
            made = uniform(
                graph,
                kind,
                weights=step,
                integer_ops=shared.integer_ops,
                widths=shared.widths,
                groups=shared.groups,
                stores_integers="int8_weights" in target.precisions,
            )
            for key, layer in made.items():
                if layer.precision == kind or layer.precision not in found[key]:
                    found[key].setdefault(layer.precision, layer)
    return found


def _steps(kind: Precision, without: Sequence[str]) -> list[Step]:
    """Return what sets the scales of a precision's weights, the first that fits a layer."""
    if kind == "palette":
        return [PALETTE]
    usual = quantizer(kind)
    step = Step(PLAINER) if usual.part in without else usual
    if kind != "w4_grouped":
        return [step]
    return [Step(step.part, {**step.settings, "group": group}) for group in GROUPS]


def module(key: str) -> str:
    """Return the module path of a node, or its key where it is the model's own."""
    return split_node(key)[0] or key


def _stored(layer: LayerPlan) -> LayerPlan | None:
    return None if layer.precision == "float32" else layer


def _computes(plan: Plan) -> bool:
    return any(layer.precision in COMPUTING for layer in plan.layers.values())


def _distance(held: Precision, other: Precision) -> tuple[bool, bool, int]:
    """Order precisions by what replaces one: those that compute in float, the gentler ones of them, the nearest."""
    bits = WEIGHT_BITS[other] - WEIGHT_BITS[held]
    return other in COMPUTING, bits < 0, abs(bits)
