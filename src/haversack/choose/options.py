"""What each layer could be, and what that would cost: the items of the knapsack."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from haversack.base.graph import Graph, Node
from haversack.base.plan import GROUPS, PRECISIONS, STATIC, WEIGHT_BITS, WIDTHS, LayerPlan, Precision, Step
from haversack.base.profile import Profile
from haversack.base.scope import Scope
from haversack.tools.graph import tied
from haversack.tools.graph.onnx import unpack
from haversack.tools.graph.roles import Role, role
from haversack.tools.graph.tied import Stores
from haversack.tools.numerics import planes

BYTES_PER_WEIGHT: Mapping[str, float] = {
    precision: (planes.stored_bits(bits) if precision in STATIC else bits) / 8
    for precision, bits in WEIGHT_BITS.items()
}
SECONDS_PER_BORDER_ELEMENT = 0.6e-9
"""A forecast of what quantizing or dequantizing one value costs where a float layer meets an integer one."""
INTEGER_KERNELS = STATIC
FULL = Step("mse")
"""Sets the scales of 8-bit weights where a layer is given them in place of fewer, and of those of one or two bits."""
CLIPPED = Step("mse", {"weight_least": 0.6})
"""Sets the scales of 4-bit weights: with 15 codes, letting the outermost weights saturate rounds the others finer."""
QUANTIZERS: Mapping[int, Step] = {
    8: FULL,
    **dict.fromkeys((7, 6, 5, 4), CLIPPED),
    3: Step("mse", {"weight_least": 0.3}),
    **dict.fromkeys((2, 1), FULL),
}
"""Bits of a static weight -> what sets its scales: the fewer codes there are, the more it pays to let some saturate."""
LEAST_PACKED = 1 << 14
"""Weights of a layer from which on planes are an option: what unpacks them takes one to four kB, for all of a width."""
MEASURED = (4, 8)
"""Bits of static weights whose loss is measured. Squared errors of rounding grow with 4^-bits: others are forecast."""
FACTORS = tuple(round(2.0 ** (step / 3), 3) for step in range(1, 16))
"""By how much the steps of 8-bit weights may be coarser, so that they weigh less as a download."""
PROBE = FACTORS[8]
"""The factor whose loss is measured: 8. Rounding errors grow with the step, squared losses with its square."""
PALETTE_BITS = (6, 4)
"""Bits of an index into a palette, the gentler first."""
COARSENED: tuple[Precision, ...] = ("int8", "int8_dynamic", "int8_weights")
GROUPED = (32, 128)
"""How many 4-bit weights share a scale, the gentler first: XNNPACK is slower than with int8 at 32, and not at 128."""
GROUP_SCALE_BITS = 16
"""Bits of such a scale in a file."""
AT_RUN_TIME: tuple[Precision, ...] = ("int8_dynamic", "w4_grouped")
"""Precisions whose activations are quantized at run time."""


@dataclass(frozen=True)
class Once:
    """What a file holds once for all layers whose options need it: its name, its bytes, and these as a download."""

    name: str
    bytes: float
    download: float


@dataclass(frozen=True)
class Option:
    """One way to store a weight and to run what reads it: one layer, or several (``tools.graph.tied``).

    Attributes:
        layer: node key; of several layers that of the first.
        plan: what is done to it.
        bytes: of its weights in the file, with what unpacks them in these layers alone.
        download: of the same as a download, entropy coded.
        seconds: target -> of its kernels, batch 1, forecast from the float file's profile.
        loss: forecast squared relative error that it adds to the model's output, of all layers together.
        needs: what the file brings for it and for all others that need the same; None for nothing.
        others: node key of each further layer that reads the weight -> what is done to it.
        times: target -> how often its files hold the weight, where that is not once.
    """

    layer: str
    plan: LayerPlan
    bytes: float
    download: float
    seconds: Mapping[str, float] = field(hash=False)
    loss: float
    needs: Once | None = None
    others: Mapping[str, LayerPlan] = field(default_factory=dict, hash=False)
    times: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def layers(self) -> Mapping[str, LayerPlan]:
        """Node key -> what is done to the layer, of all that read the weight."""
        return {self.layer: self.plan, **self.others}


@dataclass(frozen=True)
class Border:
    """Two neighbouring layers: ``seconds`` is lost when one runs in integers and the other in float."""

    first: str
    second: str
    seconds: float


def options(
    graph: Graph,
    profile: Profile,
    base: Mapping[str, LayerPlan],
    *,
    weight_elements: Mapping[str, int],
    speed: Mapping[str, Mapping[str, float]],
    precisions: Collection[Precision] = PRECISIONS,
    packing: float = 1.0,
    light: bool = False,
    scope: Scope | None = None,
    stores: Mapping[str, Stores] = MappingProxyType({}),
) -> dict[str, tuple[Option, ...]]:
    """Return the options of every weight of ``base``: as planned there, in floats, other widths and palettes.

    They go by the first layer that reads the weight; the others are as it is.

    Static weights of all widths that the targets have are options of each other where the loss of 4 bits was measured:
    which layers that are, the targets say (``Constraints.widths``). They are no faster, so that only a limit on bytes
    asks for them. So it is with palettes, which compute in float and take float's time, where their loss was measured;
    and with 4-bit weights in groups, where activations are quantized at run time.

    Args:
        graph: the prepared model's graph.
        profile: seconds of the float files, sensitivities, bits of a weight as a download.
        base: node key -> plan of a uniform candidate that was measured.
        weight_elements: node key -> number of weight elements.
        speed: target -> precision or kind -> measured ratio of a uniform artefact's latency to float's.
        precisions: what all targets can do.
        packing: download bytes of a byte of weights whose entropy nobody knows; planes count in full.
        light: whether 8-bit weights with coarser steps are options: they lose more, and gain nothing but the download.
        scope: what the user allows; a layer is always as it is in ``base``.
        stores: target -> how often its files hold a weight that several layers read; once where nothing is said.
    """
    found: dict[str, tuple[Option, ...]] = {}
    for key, calls in tied.calls(graph, base).items():
        if not any(call.key in base for call in calls):
            continue
        node, first = graph.by_key[key], {call.key: base.get(call.key, LayerPlan("float32")) for call in calls}
        grouped = _groups(profile, node, first[key], precisions)
        whole = next((one for one in grouped if one.precision == "int8_dynamic"), first[key])
        coarser = _coarser(profile, node, whole) if light else ()
        halves = (LayerPlan("float16"),) if "float16" in precisions else ()
        narrow = _widths(profile, node, first[key], precisions, weight_elements[key])
        books = _palettes(profile, node) if "palette" in precisions else ()
        others = (*coarser, *grouped, *narrow, *books, *halves, LayerPlan("float32"))
        able = [layers for plan in dict.fromkeys(others) if (layers := tied.together(calls, plan)) is not None]
        allowed = [one for one in able if scope is None or all(scope.allows(*each) for each in one.items())]
        found[key] = tuple(
            _option(profile, calls, layers, weight_elements[key], speed, packing, stores)
            for layers in (first, *(one for one in allowed if one != first))
        )
    return found


def _option(
    profile: Profile,
    calls: Sequence[Node],
    layers: Mapping[str, LayerPlan],
    elements: int,
    speed: Mapping[str, Mapping[str, float]],
    packing: float,
    stores: Mapping[str, Stores],
) -> Option:
    node, plan = calls[0], layers[calls[0].key]
    size = elements * stored_bits(plan, node) / 8
    seconds = {
        target: sum(
            profile.seconds.get(target, {}).get(key, 0.0) * ratios.get(one.kind, ratios.get(one.precision, 1.0))
            for key, one in layers.items()
        )
        for target, ratios in speed.items()
    }
    rate = profile.rates.get(node.key, {}).get(plan.kind)
    needs, (use, small) = unpacking(plan, node, elements)
    download = size * (packing if needs is None else 1.0) if rate is None else elements * rate / 8
    others = {key: one for key, one in layers.items() if key != node.key}
    loss = _loss(profile, node, plan)
    times = {target: stored_times(calls, layers, stores.get(target, "weight")) for target in speed}
    return Option(node.key, plan, size + use, download + small, seconds, loss, needs, others, times)


def stored_times(calls: Sequence[Node], layers: Mapping[str, LayerPlan], stores: Stores) -> float:
    """Return how often files hold a weight that several layers read, against what the first of them takes.

    Args:
        calls: what reads the weight.
        layers: node key -> plan of each of them.
        stores: how often the runtime's files hold a weight.
    """
    bits = [
        bit
        for nodes in tied.arrays(tuple(calls), stores)
        for bit in {layers[node.key].form: stored_bits(layers[node.key], node) for node in nodes}.values()
    ]
    return sum(bits) / stored_bits(layers[calls[0].key], calls[0])


def unpacking(plan: LayerPlan, node: Node, elements: int) -> tuple[Once | None, tuple[int, int]]:
    """Return what unpacks a weight: for all of a kind, and in this layer its bytes and these as a download."""
    bits = WEIGHT_BITS[plan.precision]
    if plan.precision == "w4a8":
        return None, (unpack.cast_bytes(f"{node.key}:weight"), unpack.NAMES_DOWNLOADED)
    if plan.precision not in STATIC or bits not in planes.WIDTHS:
        return None, (0, 0)
    name = unpack.name_of(elements, bits)
    return Once(name, *unpack.function_bytes(name)), unpack.use_bytes(f"{node.key}:weight", bits)


def stored_bits(plan: LayerPlan, node: Node) -> float:
    """Return the bits that a weight takes at most: some files hold indices in 4 or 8 bits, of tables in 8.

    A weight in a group takes its share of the group's scale as well.
    """
    if plan.precision == "w4_grouped":
        return WEIGHT_BITS[plan.precision] + GROUP_SCALE_BITS / int(plan.weights.settings.get("group", GROUPS[0]))
    if plan.precision != "palette":
        return 8 * BYTES_PER_WEIGHT[plan.precision]
    return 4 if plan.bits <= 4 and role(node) is not Role.EMBEDDING else 8


def _palettes(profile: Profile, node: Node) -> tuple[LayerPlan, ...]:
    """Return a layer with a palette, of as many bits as its loss is known for."""
    known = profile.sensitivity.get(node.key, {})
    return tuple(plan for plan in map(_book, PALETTE_BITS) if plan.kind in known)


def _book(bits: int) -> LayerPlan:
    return LayerPlan("palette", "tensor", Step("kmeans", {"bits": bits}))


def grouped(group: int) -> LayerPlan:
    """Return a layer with 4-bit weights of which so many neighbours share a scale."""
    return LayerPlan("w4_grouped", weights=Step(CLIPPED.part, {**CLIPPED.settings, "group": group}))


def _groups(profile: Profile, node: Node, plan: LayerPlan, precisions: Collection[Precision]) -> tuple[LayerPlan, ...]:
    """Return what else a layer can be whose activations are quantized at run time, as far as losses are known."""
    known = profile.sensitivity.get(node.key, {})
    if plan.precision not in AT_RUN_TIME or plan.kind not in known:
        return ()
    found = (LayerPlan("int8_dynamic", plan.granularity, FULL), *map(grouped, GROUPED))
    able = tuple(one for one in found if one.precision in precisions and one.kind in known)
    return tuple(one for one in able if one.kind != plan.kind)


def _widths(
    profile: Profile, node: Node, plan: LayerPlan, precisions: Collection[Precision], elements: int
) -> tuple[LayerPlan, ...]:
    """Return a static layer with weights of the other widths, of those only that make its file smaller."""
    if plan.precision not in STATIC or "w4a8" not in profile.sensitivity.get(node.key, {}):
        return ()
    return tuple(
        LayerPlan(precision, plan.granularity, QUANTIZERS[bits])
        for bits, precision in WIDTHS.items()
        if precision in precisions
        and precision != plan.precision
        and (elements >= LEAST_PACKED or bits not in planes.WIDTHS)
    )


def borders(graph: Graph, layers: Sequence[str]) -> tuple[Border, ...]:
    """Return the pairs of layers between which values flow without passing another layer.

    Layers that read one weight run alike: what flows to and from any of them counts for the first.
    """
    chosen, first = set(layers), tied.leads(graph, layers)
    sources: dict[str, set[tuple[str, int]]] = {}
    found: dict[tuple[str, str], float] = {}
    for node in graph.nodes:
        arriving = set().union(*(sources.get(key, set()) for key in node.inputs)) if node.inputs else set()
        if first.get(node.key) in chosen:
            for source, elements in arriving:
                pair = first[source], first[node.key]
                found[pair] = found.get(pair, 0.0) + elements * SECONDS_PER_BORDER_ELEMENT
            arriving = {(node.key, node.output.elements())}
        sources[node.key] = arriving
    found = {pair: cost for pair, cost in found.items() if pair[0] != pair[1]}
    return tuple(Border(first, second, cost) for (first, second), cost in found.items())


def ways(
    precisions: Collection[Precision], *, light: bool = True, palettes: bool = False, groups: Collection[int] = ()
) -> dict[str, LayerPlan]:
    """Return kind -> a plan of a layer whose loss decides between its options: what is measured of each precision.

    Args:
        precisions: of integers.
        light: whether coarser steps may be options, so that their loss is measured at one factor.
        palettes: whether palettes may be options.
        groups: how many 4-bit weights may share a scale, where these may be options.
    """
    found = [LayerPlan(one, weights=quantizer(one)) for one in precisions]
    found += [_coarse(one, PROBE) for one in found if light and one.precision in COARSENED]
    found += [_book(bits) for bits in PALETTE_BITS if palettes]
    found += [grouped(group) for group in GROUPED if group in groups]
    return {one.kind: one for one in found}


def stores(
    precisions: Collection[Precision],
    able: Collection[Precision] = (),
    *,
    palettes: bool = False,
    groups: Collection[int] = (),
) -> dict[str, LayerPlan]:
    """Return kind -> a plan of a layer whose rate decides between its options.

    Args:
        precisions: of integers, whose loss is measured.
        able: what all targets can do: the widths among them whose loss is forecast count as well.
        palettes: whether palettes may be options.
        groups: how many 4-bit weights may share a scale, where these may be options.
    """
    found = list(ways(precisions, palettes=palettes, groups=groups).values())
    if "w4a8" in precisions:
        found += [LayerPlan(one, weights=quantizer(one)) for one in STATIC.intersection(able).difference(precisions)]
    found += [_coarse(one, factor) for one in found if one.kind in COARSENED for factor in FACTORS]
    return {one.kind: one for one in found}


def quantizer(precision: Precision) -> Step:
    """Return what sets the scales of weights."""
    return QUANTIZERS.get(WEIGHT_BITS[precision], FULL)


def _coarse(plan: LayerPlan, factor: float) -> LayerPlan:
    settings = {"factor": factor} if plan.weights.part == FULL.part else {"factor": factor, "of": plan.weights.part}
    return LayerPlan(plan.precision, plan.granularity, Step("coarse", settings))


def _coarser(profile: Profile, node: Node, plan: LayerPlan) -> tuple[LayerPlan, ...]:
    """Return a layer of 8 bits with coarser steps, where it is known what these lose and weigh."""
    probe = _coarse(plan, PROBE).kind
    known = probe in profile.sensitivity.get(node.key, {}) and probe in profile.rates.get(node.key, {})
    if plan.precision not in COARSENED or plan.weights.part == "coarse" or not known:
        return ()
    return tuple(_coarse(plan, factor) for factor in FACTORS)


def _loss(profile: Profile, node: Node, plan: LayerPlan) -> float:
    """Return the forecast squared loss; between and beyond what was measured it grows with the square of the step."""
    known = profile.sensitivity.get(node.key, {})
    if plan.kind not in known and plan.precision in STATIC and plan.weights.part != "coarse":
        return _between(known, WEIGHT_BITS[plan.precision])
    if plan.kind in known or plan.weights.part != "coarse":
        return float(known.get(plan.kind, 0.0)) ** 2
    fine, probe = (known.get(one, 0.0) ** 2 for one in (plan.precision, _coarse(plan, PROBE).kind))
    factor = float(plan.weights.settings["factor"])
    return float(fine + max(0.0, probe - fine) * (factor**2 - 1.0) / (PROBE**2 - 1.0))


def _between(known: Mapping[str, float], bits: int) -> float:
    """Return the squared loss of static weights of a width whose loss was not measured; 0 where none was."""
    few, many = MEASURED
    if WIDTHS[few] not in known:
        return 0.0
    most, least = (known.get(WIDTHS[one], 0.0) ** 2 for one in MEASURED)
    share = (4.0**-bits - 4.0**-many) / (4.0**-few - 4.0**-many)
    return float(least + max(0.0, most - least) * share)
