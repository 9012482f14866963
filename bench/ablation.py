"""What each part of compression is worth: one network, one runtime, and one part more (or another) in each row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from accounting import Table, meanwhile
from artefacts import TARGET, Artefacts, Figures, opened

from haversack.base.plan import WIDTHS, LayerPlan, Plan, Precision, Step
from haversack.choose.knapsack import Limit, solve
from haversack.choose.options import CLIPPED, FULL, QUANTIZERS, Option, options
from haversack.compress.plans import uniform
from haversack.flow.effort import EFFORTS
from haversack.tools.graph.roles import Role, role

LITE0, MINILM = "examples/efficientnet_lite0.py", "examples/minilm.py"
PAIRS = "750"
"""Every other pair of STS-B dev: sentences take a transformer long."""
MINMAX, MSE = Step("minmax"), FULL
FAST, DEFAULT, HIGH = (EFFORTS[name].rounding for name in ("fast", "default", "high"))
SOFT, BLOCKS = Step("adaround"), Step("block_reconstruction", {"samples": 128})
TIGHT = Step("gptq", {"megabytes": 50.0})
EVENED = Step("equalize", {"samples": 32})
ROWS = 8
"""Rows of a weight that share a palette."""
Kind = tuple[str, Step, Step]
"""What a row says of few bits, what sets their scales, and what rounds them."""
FOUR: Sequence[Kind] = (
    ("minmax scales, `bias_correct`", MINMAX, FAST),
    ("clipped scales, `bias_correct`", CLIPPED, FAST),
    ("clipped scales, `gptq`", CLIPPED, DEFAULT),
    ("clipped scales, `gptq` on all samples", CLIPPED, HIGH),
    ("clipped scales, `adaround`", CLIPPED, SOFT),
    ("clipped scales, `block_reconstruction`", CLIPPED, BLOCKS),
)
OTHERS = (7, 6, 5, 3, 2, 1)
"""Bits of a weight that only some layers of some runtimes can have; of two bits three codes are used, of one two."""
POINTWISE, HELD, MOST = "1x1 convolutions and head of 4 bits", "`gptq` on all samples", 0.003
"""Such a network, the row of it that is held to something, and what of top-1 it may lose: 86 % are left of 86.3 %."""
OURS, MOST_SECONDS = "A, `gptq` (`--effort default`)", 60.0
"""The row of the default effort, and the CPU seconds that compressing may take."""
COARSER = {LITE0: 5.04, MINILM: 3.175}
"""Job -> a factor of all layers' steps, one of ``choose.options.FACTORS``; water fills as many bytes beside it."""
HEAD = ("recipe", "relative error", "agreement", "drop", "file, MB", "download, MB", "CPU s")
Recipes = Iterable[tuple[str, Plan]]
"""What a row says, and the plan that it measures."""


def tables() -> list[Table]:
    """Return the tables of EfficientNet-Lite0 and of MiniLM."""
    with opened(LITE0) as lite0:
        first = _table("EfficientNet-Lite0 in ONNX Runtime, part by part", lite0, static(lite0))
    with meanwhile("HAVERSACK_PAIRS", PAIRS), opened(MINILM) as minilm:
        second = _table("all-MiniLM-L6-v2 in ONNX Runtime, part by part", minilm, dynamic(minilm))
    return [first, second]


def static(made: Artefacts) -> Iterator[tuple[str, Plan]]:
    """Yield recipes of integers with fixed scales, and of palettes."""
    minmax, mse = (_layers(made, "int8", step) for step in (MINMAX, MSE))
    best = _plan(mse, ranges=MSE)
    ours = _after(best, DEFAULT)
    shifts = Step("power_of_two")
    yield "int8: `minmax` ranges of activations, `minmax` scales of weights", _plan(minmax)
    yield "`minmax` ranges, `mse` scales", _plan(mse)
    yield "`percentile` ranges, `mse` scales", _plan(mse, ranges=Step("percentile"))
    yield "`power_of_two` ranges and scales", _plan(_layers(made, "int8", shifts), ranges=shifts)
    yield "`mse` ranges, `mse` scales (A)", best
    yield "A, `equalize`", _after(best, Step("equalize"))
    yield "A, `bias_correct` (`--effort fast`)", _after(best, FAST)
    yield "A, `equalize`, `bias_correct`", _after(best, Step("equalize"), FAST)
    yield OURS, ours
    yield "A, `gptq` in 50 MB: rows join as early layers let go of them", _after(best, TIGHT)
    yield f"A, `gptq` on all {made.calibration} samples (`--effort high`)", _after(best, HIGH)
    yield "A, `equalize`, `gptq`", _after(best, EVENED, DEFAULT)
    yield "`power_of_two` ranges and scales, `gptq`", _after(_plan(_layers(made, "int8", shifts), shifts), DEFAULT)
    yield "A, `adaround`", _after(best, SOFT)
    yield "A, `block_reconstruction`", _after(best, BLOCKS)
    yield "`minmax` ranges, `minmax` scales, `gptq`", _after(_plan(minmax), DEFAULT)
    for words, plan in _coarser(made, ours, COARSER[LITE0]):
        yield f"A, `gptq`, {words}", plan
    yield from _palettes(made)
    for bits in OTHERS:
        able = frozenset(key for key, widths in made.demands.widths.items() if bits in widths)
        kind = ("`gptq`", QUANTIZERS[bits], DEFAULT)
        yield from _narrow(mse, able, f"{len(able & mse.keys())} of {len(mse)} layers of {bits} bits", (kind,), bits)
    every = frozenset(key for key, widths in made.demands.widths.items() if 4 in widths)
    yield from _narrow(mse, every, "all layers of 4 bits", FOUR)
    yield from _narrow(mse, _pointwise(made), POINTWISE, FOUR[2:])


def _palettes(made: Artefacts) -> Recipes:
    """Yield recipes of palettes, which compute in float: one for a weight, or one for each eight rows of a layer's."""
    able = {node.key: int(made.weights[node.weight].shape[0]) for node in made.graph.nodes if node.weight}
    tables = {node.key for node in made.graph.nodes if role(node) is Role.EMBEDDING}
    for part, bits, group in (("kmeans", 6, 0), ("kmeans", 6, ROWS), ("kmeans", 4, ROWS), ("log", 4, ROWS)):
        layers = {
            key: replace(one, weights=Step(part, {"bits": bits, **({"group": group} if group else {})}))
            if key not in tables and able[key] % ROWS == 0
            else one
            for key, one in _layers(made, "palette", Step(part, {"bits": bits})).items()
        }
        words = f", one for {group} rows" if group else ""
        yield f"palettes of {bits} bits, `{part}`{words}, `bias_correct`, float arithmetic", _after(_plan(layers), FAST)


def _narrow(
    base: Mapping[str, LayerPlan], narrow: frozenset[str], words: str, kinds: Sequence[Kind], bits: int = 4
) -> Recipes:
    """Yield recipes with weights of fewer bits in some layers; nothing where none could have them."""
    for text, step, rounding in kinds if narrow & base.keys() else ():
        layers = {key: LayerPlan(WIDTHS[bits], weights=step) if key in narrow else one for key, one in base.items()}
        yield f"A, {words}: {text}", _after(_plan(layers, ranges=MSE), rounding)


def _pointwise(made: Artefacts) -> frozenset[str]:
    """Return the linear layers and 1x1 convolutions that can have 4 bits, where others can as well."""
    able = {node.key: node for node in made.graph.nodes if 4 in made.demands.widths.get(node.key, ())}
    found = {
        key
        for key, node in able.items()
        if node.op == "linear"
        or (node.attributes.get("groups") == 1 and made.weights[str(node.weight)].shape[2:] == (1, 1))
    }
    return frozenset(found if len(found) < len(able) else ())


def dynamic(made: Artefacts) -> Iterator[tuple[str, Plan]]:
    """Yield recipes of a transformer: activations are quantized at run time, so that only weights have scales.

    Beside them stand those with fixed scales, whose weights are rounded by what layers give, and palettes.
    """
    ours = _layers(made, "int8_dynamic", MSE)
    stored = {key: one for key, one in ours.items() if one.precision == "int8_weights"}
    yield "int8: `minmax` scales", _plan(_layers(made, "int8_dynamic", MINMAX))
    yield "`mse` scales (the default)", _plan(ours)
    yield "`mse` scales, tables of embeddings alone", _plan(stored)
    yield "`mse` scales, linear layers alone", _plan({key: one for key, one in ours.items() if key not in stored})
    yield "`mse` scales, `bias_correct`", _after(_plan(ours), FAST)
    yield "`mse` scales, `gptq`", _after(_plan(ours), DEFAULT)
    for words, plan in _coarser(made, _plan(ours), COARSER[MINILM]):
        yield f"`mse` scales, {words}", plan
    for group in (32, 128):
        for words, step in (("minmax", MINMAX), ("clipped", CLIPPED)):
            grouped = Step(step.part, {**step.settings, "group": group})
            able = {key for key in ours if group in made.demands.groups.get(key, ())}
            layers = {key: LayerPlan("w4_grouped", weights=grouped) if key in able else ours[key] for key in ours}
            yield f"linear layers of 4 bits in groups of {group}, {words} scales", _plan(layers)
    yield from _palettes(made)
    fixed = _plan(_layers(made, "int8", MSE), ranges=MSE)
    yield "scales of activations fixed beforehand, `mse` (B)", fixed
    for step in (FAST, DEFAULT, SOFT, BLOCKS):
        yield f"B, `{step.part}`", _after(fixed, step)


def _layers(made: Artefacts, precision: Precision, weights: Step) -> dict[str, LayerPlan]:
    return uniform(made.graph, precision, weights=weights, integer_ops=made.demands.integer_ops)


def _plan(layers: Mapping[str, LayerPlan], ranges: Step = MINMAX) -> Plan:
    return Plan(TARGET, layers, (Step("fold_norm"),), ranges, (TARGET,))


def _after(plan: Plan, *steps: Step) -> Plan:
    return replace(plan, prepare=(*plan.prepare, *steps))


def _coarser(made: Artefacts, plan: Plan, factor: float) -> Recipes:
    """Return a plan with coarser steps: by one factor, and by factors that fill as many forecast bytes with least loss.

    The loss of each layer was measured; with no limit but these bytes the knapsack is reverse water-filling.
    """
    elements = {node.key: int(made.weights[node.weight].size) for node in made.graph.nodes if node.weight}
    items = {
        key: tuple(one for one in found if one.plan.precision == plan.layers[key].precision)
        for key, found in options(
            made.graph, made.profile, plan.layers, weight_elements=elements, speed={}, light=True
        ).items()
    }
    even = {key: next(one for one in found if _factor(one) == factor) for key, found in items.items()}
    filled = solve(items, [Limit("download", sum(one.download for one in even.values()))]).chosen
    yield f"steps of all layers x{factor:.3g}", replace(plan, layers={key: one.plan for key, one in even.items()})
    words = f"steps by water-filling, x1 to x{max(map(_factor, filled.values())):.3g}, as many bytes"
    yield words, replace(plan, layers={key: one.plan for key, one in filled.items()})


def _factor(option: Option) -> float:
    return float(option.plan.weights.settings.get("factor", 1.0))


def _table(title: str, made: Artefacts, recipes: Recipes) -> Table:
    found = {"float": made.of_float(), **{words: made.made(plan) for words, plan in recipes}}
    rows = [_row(words, figures) for words, figures in found.items()]
    lost = [one.drop for words, one in found.items() if POINTWISE in words and HELD in words and one.drop > MOST]
    missed = [f"{POINTWISE}: {100 * drop:.2f} pt are lost, not {100 * MOST:g}" for drop in lost]
    if OURS in found and found[OURS].cpu_seconds > MOST_SECONDS:
        missed.append(f"{OURS}: {found[OURS].cpu_seconds:.0f} CPU s, not {MOST_SECONDS:g}")
    shown = [column for column, name in enumerate(HEAD) if any(row[column] for row in rows) or name == HEAD[0]]
    words = (
        f"Every row is a file, run in ONNX Runtime on all {made.samples} samples that are scored. Drop is against the "
        "float file; CPU seconds are those of compressing alone, activation ranges taken before."
    )
    return Table(
        title, words, tuple(HEAD[column] for column in shown), tuple(_kept(row, shown) for row in rows), tuple(missed)
    )


def _kept(row: tuple[str, ...], columns: list[int]) -> tuple[str, ...]:
    return tuple(row[column] for column in columns)


def _row(words: str, found: Figures) -> tuple[str, ...]:
    return (
        words,
        f"{found.relative_error:.4f}",
        "" if math.isnan(found.agreement) else f"{found.agreement:.2%}",
        f"{100 * found.drop:+.2f} pt",
        f"{found.bytes / 1e6:.3f}",
        f"{found.download_bytes / 1e6:.3f}",
        f"{found.cpu_seconds:.0f}",
    )
