"""The uniform plans that are made real first: what a user of this field would try by hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from haversack.base.constraints import Constraints
from haversack.base.counted import counted
from haversack.base.graph import Graph, Node
from haversack.base.plan import STATIC, WIDTHS, Plan, Precision, Step
from haversack.choose.options import GROUPED, PALETTE_BITS, QUANTIZERS, grouped
from haversack.compress.plans import float_first, uniform
from haversack.flow.effort import BY_OUTPUTS, DEFAULT, EFFORTS, Effort
from haversack.tools.graph.roles import Role, role

DYNAMIC_SHARE = 0.5
"""Above this share of the multiply-accumulates in linear layers a model is proposed in dynamic int8 first."""
FOLD = (Step("fold_norm"),)
CORRECTED = (*FOLD, Step("bias_correct"))
EVEN = (*FOLD, Step("equalize", {"samples": 32}))
VARIANTS = (("mse", "mse"), ("mse", "minmax"), ("minmax", "mse"), ("minmax", "minmax"), ("percentile", "mse"))
"""Parts for the ranges of activations and the scales of weights in static plans; the first is preferred."""
EVENED = (("mse", "mse"), ("minmax", "mse"))
"""The same for static plans whose channels are evened out first: where the model joins tensors, whose ranges may differ
under one scale, and weights are rounded by outputs. Elsewhere it gains little for its time, and weights rounded to
nearest lose more by scales that grow uneven than activations gain."""
WEIGHTS = ("mse", "minmax")
"""Parts for the scales of weights where activations are quantized at run time."""
FEWER = (4, 3, 2, 1)
"""Bits of a weight in static plans that are tried where 8 are too many, the gentlest first."""


@dataclass(frozen=True)
class Proposals:
    """Uniform plans for one target.

    Attributes:
        variants: of the most promising plan, by the parts that set ranges and scales; one of them is made real.
        fallbacks: are made real, in order, only while they may help.
    """

    variants: tuple[Plan, ...]
    fallbacks: tuple[Plan, ...]


def proposals(
    graph: Graph,
    target: str,
    precisions: Iterable[Precision],
    constrained_by: tuple[str, ...],
    spend: Effort = EFFORTS[DEFAULT],
    *,
    static: bool = False,
) -> Proposals:
    """Return uniform plans for one target.

    Args:
        graph: the folded model's graph.
        target: the runtime.
        precisions: what the target can do.
        constrained_by: the targets whose constraints the encodings satisfy.
        spend: what rounding the weights of static plans may cost.
        static: whether activations have fixed scales in a mostly linear model, too.
    """
    stores = "int8_weights" in (able := set(precisions))

    def plan(
        precision: Precision, origin: str, prepare: tuple[Step, ...] = FOLD, weights: str = "mse", ranges: str = "mse"
    ) -> list[Plan]:
        layers = uniform(graph, precision, weights=Step(weights), stores_integers=stores) if precision in able else {}
        made = Plan(target, layers, prepare, Step(ranges), constrained_by, origin)
        return [made] if layers or precision == "float32" else []

    palettes = [
        replace(one, layers=uniform(graph, "palette", weights=Step("kmeans", {"bits": bits})))
        for bits in PALETTE_BITS
        for one in plan("palette", f"palettes of {1 << bits} values, float arithmetic", CORRECTED)
    ]
    floats = [
        *plan("int8_weights", "int8 weights, float arithmetic"),
        *palettes,
        *plan("float16", "float16 weights, float arithmetic"),
        *plan("float32", "float"),
    ]
    if mostly_linear(graph) and not static:
        variants = [
            made
            for weights in WEIGHTS
            for made in plan(
                "int8_dynamic", f"int8 weights ({weights}), activations quantized at run time", FOLD, weights
            )
        ]
        return Proposals(tuple(variants), tuple(floats))
    rounding = () if spend.rounding is None else (spend.rounding,)
    kinds: list[tuple[tuple[Step, ...], str, str, str]] = [(FOLD, "", *parts) for parts in VARIANTS]
    by_outputs = spend.rounding is not None and spend.rounding.part in BY_OUTPUTS
    if by_outputs and any(role(node) is Role.CONCAT for node in graph.nodes):
        kinds += [(EVEN, "channels evened out, ", *parts) for parts in EVENED]
    variants = [
        made
        for before, even, ranges, weights in kinds
        for words in (f"int8, {even}{ranges} ranges, {weights} weights, {spend.words}",)
        for made in plan("int8", words, (*before, *rounding), weights, ranges)
    ]
    return Proposals(tuple(variants), tuple(floats))


def careful(graph: Graph, plan: Plan) -> list[Plan]:
    """Return a static plan with its first layer in float; nothing where the plan has no static layer to leave out."""
    layers = float_first(graph, plan.layers)
    static = any(layer.precision in STATIC for layer in plan.layers.values())
    if not static or layers == dict(plan.layers):
        return []
    return [replace(plan, layers=layers, origin=f"{plan.origin}, the first layer in float")]


def narrowed(plan: Plan, widths: Mapping[str, Collection[int]], bits: int = 4) -> list[Plan]:
    """Return a static plan with weights of fewer bits where they cost no speed; nothing where no layer can have them.

    Args:
        plan: its int8 layers are narrowed.
        widths: ``Constraints.widths`` of all selected targets.
        bits: of a weight.
    """
    narrow = {
        key: replace(layer, precision=WIDTHS[bits], weights=QUANTIZERS[bits])
        for key, layer in plan.layers.items()
        if layer.precision == "int8" and bits in widths.get(key, ())
    }
    origin = f"{plan.origin}, {counted(len(narrow), 'layer')} with {bits}-bit weights"
    return [replace(plan, layers={**plan.layers, **narrow}, origin=origin)] if narrow else []


def regrouped(plan: Plan, groups: Mapping[str, Collection[int]]) -> list[Plan]:
    """Return a dynamic plan with 4-bit weights in groups, by ``GROUPED``; nothing where no layer can have them.

    Args:
        plan: its int8_dynamic layers are narrowed.
        groups: ``Constraints.groups`` of all selected targets.
    """
    found = []
    for group in GROUPED:
        narrow = {
            key: replace(layer, precision="w4_grouped", weights=grouped(group).weights)
            for key, layer in plan.layers.items()
            if layer.precision == "int8_dynamic" and group in groups.get(key, ())
        }
        origin = f"{plan.origin}, {counted(len(narrow), 'layer')} with 4-bit weights in groups of {group}"
        found += [replace(plan, layers={**plan.layers, **narrow}, origin=origin)] if narrow else []
    return found


def smaller(
    plan: Plan, precisions: Collection[Precision], constraints: Constraints, hopeless: Callable[[Plan], str]
) -> list[Plan]:
    """Return a plan with weights of 4 bits where the runtime has kernels for them.

    Where that is hopeless as well, and the runtime can, static weights have the most bits that are not, or one bit.

    Args:
        plan: of integers.
        precisions: what the target can do.
        constraints: of all selected targets.
        hopeless: says why a plan is too large, or returns an empty string.
    """
    able = [bits for bits in FEWER if WIDTHS[bits] in precisions]
    tried = [one for bits in able for one in narrowed(plan, constraints.widths, bits)]
    static = [one for one in tried if not hopeless(one)][:1] or tried[-1:]
    return static + (regrouped(plan, constraints.groups) if "w4_grouped" in precisions else [])


def mostly_linear(graph: Graph) -> bool:
    """Say whether most multiply-accumulates are in linear layers and attention, not in convolutions."""
    total = sum(node.macs for node in graph.nodes)
    convolutions = sum(node.macs for node in graph.nodes if node.op.startswith("conv"))  # transposed ones as well
    return total - convolutions > DYNAMIC_SHARE * total


def worth_knowing(
    graph: Graph, targets: Iterable[Collection[Precision]], narrow: Collection[str], *, static: bool = False
) -> Callable[[Node], tuple[Precision, ...]]:
    """Return node -> the precisions of integers whose loss is worth knowing: float16 loses next to none.

    Args:
        graph: the model's.
        targets: the precisions of each target.
        narrow: layers that can have 4-bit weights in some target.
        static: whether activations have fixed scales in a mostly linear model, too.
    """
    found: tuple[Precision, ...] = ("int8",)
    if mostly_linear(graph) and not static:
        found = ("int8_dynamic",)
    elif narrow and all("w4a8" in precisions for precisions in targets):
        found = ("int8", "w4a8")
    return lambda node: ("int8_weights",) if role(node) is Role.EMBEDDING else found
