"""Float, ONNX Runtime's own quantizer, plain int8 and the default recipe, over every example's network."""

from __future__ import annotations

from dataclasses import replace

from accounting import Table
from artefacts import TARGET, Artefacts, Figures, opened
from peers import dynamic, static

from haversack.base.plan import Plan, Precision, Step
from haversack.compress.plans import uniform
from haversack.flow.proposals import mostly_linear, proposals
from haversack.flow.race import race
from haversack.flow.running import feeds
from haversack.measure.device import Opening

NETWORKS = {
    "EfficientNet-Lite0": "efficientnet_lite0",
    "all-MiniLM-L6-v2": "minilm",
    "ResNet-20, CIFAR-10": "cifar10",
    "DS-CNN, spoken digits": "keywords",
    "detector of digits": "detector",
    "residual net, digits": "digits",
    "GRU, spoken digits": "streaming",
}
"""What it is -> the example's name."""
MOST = 0.01
"""Of its metric, the default recipe may lose."""
HEAD = (
    "network",
    "metric, samples",
    "float",
    "its own quantizer",
    "plain int8",
    "ours",
    "relative error: its own",
    "plain",
    "ours",
    "MB: float",
    "its own",
    "ours",
)
WORDS = """Every figure is of a file in ONNX Runtime, on all samples that are scored. *Its own quantizer* is the
runtime's `quantize_static` (QDQ, MinMax, a scale for each channel, uint8 activations) or, for networks of linear
layers, `quantize_dynamic`, on the same float file and calibration data. *Plain int8* is haversack without its parts:
minmax ranges, minmax scales for each channel, rounding to nearest. *Ours* is what `pack` proposes first at the default
effort. Nothing was chosen by the samples that are scored. Held to: ours loses at most 1 pt."""


def tables() -> list[Table]:
    """Return one table, with a row for each network."""
    rows, missed = [], []
    for name, example in NETWORKS.items():
        with opened(f"examples/{example}.py") as made:
            ours = made.made(default(made))
            rows.append(_row(name, made, made.made(plain(made)), ours))
            if not ours.drop <= MOST:
                missed.append(f"{name}: the default recipe loses {100 * ours.drop:.2f} pt")
    return [Table("Float, plain int8, ours: every network", WORDS, HEAD, tuple(rows), tuple(missed))]


def default(made: Artefacts) -> Plan:
    """Return the plan that ``pack`` makes real first, by its own race."""
    steps = made.steps
    precisions = steps.targets[TARGET].precisions
    return race(steps, proposals(made.graph, TARGET, precisions, (TARGET,), steps.spend).variants).order[0]


def plain(made: Artefacts) -> Plan:
    """Return all layers in integers with minmax ranges and scales, and nothing else."""
    minmax = Step("minmax")
    precision: Precision = "int8_dynamic" if mostly_linear(made.graph) else "int8"
    layers = uniform(made.graph, precision, weights=minmax, integer_ops=made.demands.integer_ops)
    return Plan(TARGET, layers, (Step("fold_norm"),), minmax, (TARGET,))


def peer(made: Artefacts) -> Figures:
    """Return the figures of what ONNX Runtime's own quantizer makes of the float file."""
    steps = made.steps
    floats = steps.floats[TARGET]
    path = steps.shop.inside / "peer.onnx"
    if mostly_linear(made.graph):
        dynamic(floats.opening.path, path)
    else:
        rows = (
            feeds(floats.artifact, tuple(array[row : row + 1] for array in sample))
            for sample in steps.data.calibration()
            for row in range(len(sample[0]))
        )
        static(floats.opening.path, path, rows, "MinMax")
    return replace(made.scored(Opening(path, TARGET, made.options), floats.artifact), bytes=path.stat().st_size)


def _row(name: str, made: Artefacts, simple: Figures, ours: Figures) -> tuple[str, ...]:
    exact, stock = made.of_float(), peer(made)
    return (
        name,
        f"{made.steps.metric.name}, {made.samples}",
        *(f"{one.value:.4f}" for one in (exact, stock, simple, ours)),
        *(f"{one.relative_error:.4f}" for one in (stock, simple, ours)),
        *(f"{one.bytes / 1e6:.3f}" for one in (exact, stock, ours)),
    )
