"""Plans that are made just as they are, looked at before anything is made: of a recipe, or typed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from haversack.base.errors import ConversionError, Fault
from haversack.base.graph import Graph
from haversack.base.plan import STATIC, Plan, Step
from haversack.base.shelf import Shelf
from haversack.compress import selection
from haversack.compress.palettize.contract import SHELF as PALETTES
from haversack.compress.prepare.contract import SHELF as PREPARE
from haversack.compress.quantize.contract import SHELF as QUANTIZE
from haversack.flow.effort import DEFAULT
from haversack.flow.rules import module
from haversack.flow.squeeze import together
from haversack.targets.contract import Target
from haversack.tools.graph.roles import Role, role


def refuse_unmakeable(graph: Graph, plans: Mapping[str, Plan], targets: Mapping[str, Target]) -> None:
    """Refuse plans of which ``pack`` could make nothing.

    Args:
        graph: the folded model's.
        plans: target -> the only plan that is made for it.
        targets: all of the run, by name: those that share encodings must all have what a plan says.

    Raises:
        UsageError: a part or a layer that there is not, or settings that a part does not have.
        ConversionError: a precision that a target does not have, or not for such a layer.
    """
    shared = together({name: target.constraints(graph) for name, target in targets.items()})
    for name, plan in plans.items():
        if name not in targets:
            continue
        for shelf, step in _parts(plan):
            shelf.build(step.part, step.settings)
        selection.check(graph, plan, shared[name])
        able = {*targets[name].precisions, "float32"}
        faults = tuple(
            Fault(module(key), f"{name} has no {layer.precision}")
            for key, layer in plan.layers.items()
            if layer.precision not in able
            and not (
                layer.precision == "int8_weights" and role(graph.by_key[key]) is Role.EMBEDDING
            )  # has it everywhere
        )
        if faults:
            raise ConversionError(
                f"{name} cannot store what the plan says",
                where=plan.id,
                faults=faults,
                next_step=f"it has {', '.join(targets[name].precisions)}",
            )


def idle(effort: str, plans: Mapping[str, Plan], targets: Mapping[str, Target]) -> tuple[str, ...]:
    """Return what is to be said of an effort that changes nothing, since every plan is given."""
    if effort == DEFAULT or not {*targets} <= {*plans}:
        return ()
    return (f"--effort {effort} changes nothing: the plan is given, and says how weights are rounded",)


def _parts(plan: Plan) -> Iterator[tuple[Shelf, Step]]:
    for step in plan.prepare:
        yield PREPARE, step
    if any(layer.precision in STATIC for layer in plan.layers.values()):
        yield QUANTIZE, plan.ranges
    for layer in plan.layers.values():
        if layer.precision not in ("float32", "float16"):
            yield (PALETTES if layer.precision == "palette" else QUANTIZE), layer.weights
