"""The preflight: what the exported model is, what each target cannot take, and a forecast of time and memory.

The forecast is a plain model, and says so: ``seconds = START + PLAN * plans + seconds_per_sample * (forwards +
SIMULATION * simulated)`` and ``peak = BASE + RUNTIME * further + COPIES * weights + WORKING * batch * activations +
data + rounding``, for so many runtimes beside the first.
``seconds_per_sample`` is timed once on the float model, or taken as ``macs / MACS_PER_SECOND`` when nobody times it.
The constants of time are round numbers for a two-core machine, no measurements: expect a factor of two or three. Those
of memory were fitted to peaks that were measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from haversack.base.counted import counted
from haversack.base.errors import EXIT_BUDGET_MISSED, EXIT_CONVERSION, EXIT_ENVIRONMENT, EXIT_MET, Fault, grouped
from haversack.base.graph import Graph
from haversack.base.model import Model

START_SECONDS = 8.0
PLAN_SECONDS = 10.0
SIMULATION = 2.0
"""Forward passes that one row with simulated encodings takes the time of."""
MACS_PER_SECOND = 1e10
BASE_BYTES, RUNTIME_BYTES = 600 * 10**6, 190 * 10**6
COPIES = 10
WORKING = 6
"""Bytes of a run with torch and one runtime, and of each further one; and how often it holds weights and a batch's
activations, this process and the one in which files run together, as they were measured (``docs/guide/01-load.md``)."""
PROGRAMS, WEIGHTS, ACTIVATIONS = (
    "torch, runtimes and haversack",
    "weights, in all their forms",
    "activations of a batch",
)
DATA, ROUNDING = "samples and outputs that are kept", "rounding by outputs"
OTHERS = "weights of the other architectures"
"""What takes the memory of a run."""
_BYTES = {"bool": 1, "uint8": 1, "int8": 1, "int16": 2, "float16": 2, "bfloat16": 2, "int64": 8, "float64": 8}
REASONS = 8
"""At most so many lines say what a target cannot take."""
_FACTORS = ((10**9, "G"), (10**6, "M"), (10**3, "k"))

LOOSEN = "next: loosen the limit that cannot be met, or pack another model: pack would end with 3 and the best effort"
"""After a look at a model for which nothing can meet a size."""


@dataclass(frozen=True)
class Work:
    """What a job will do: samples run through a model in all, plans made real, the batch they run in.

    ``simulated`` are rows run with simulated encodings: the race of variants, and the sensitivity of layers.
    ``data_bytes`` are kept of samples and outputs, and ``rounding_bytes`` are what rounding weights takes at the most.
    """

    forwards: int
    plans: int = 1
    batch: int = 1
    simulated: int = 0
    data_bytes: int = 0
    rounding_bytes: int = 0


@dataclass(frozen=True)
class Preflight:
    """What is known before anything slow.

    Attributes:
        model: its name.
        layers: op -> how many nodes, most frequent first, inputs left out.
        parameters: weight elements that are read.
        macs: multiply-accumulates for one sample.
        weight_bytes: of the weights as they are.
        activation_bytes: the most that live at one time for one sample, free lengths taken as ``length``.
        refusals: target -> what it cannot take and why, by module path.
        forecast_seconds, forecast_bytes: of the whole job; a forecast, not a measurement.
        timed: whether the forecast rests on a timing of this model.
        limits: what is known of the budget, one line each.
        beyond: targets whose size nothing can meet.
        lengths: target -> what becomes of free lengths in its files, in words.
        score: how the float model scores on a first batch, in words.
        left_out: target -> why it is not tried, where the user asked for any; what it cannot take is in ``refusals``.
        notes: what else the run itself needs, one line each.
        memory: what takes how many of the bytes that are forecast.
        available_bytes: of memory for the run, 0 where nobody knows; ``available_by`` says what sets the limit.
    """

    model: str
    layers: Mapping[str, int]
    parameters: int
    macs: int
    weight_bytes: int
    activation_bytes: int
    refusals: Mapping[str, tuple[Fault, ...]] = field(hash=False)
    forecast_seconds: float
    forecast_bytes: int
    timed: bool
    limits: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    lengths: Mapping[str, str] = field(default_factory=dict, hash=False)
    score: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()
    memory: Mapping[str, int] = field(default_factory=dict, hash=False)
    available_bytes: int = 0
    available_by: str = ""

    @property
    def short(self) -> bool:
        """Whether more memory is forecast than there is: ``pack`` ends there."""
        return 0 < self.available_bytes < self.forecast_bytes

    @property
    def refused(self) -> tuple[str, ...]:
        """The targets that are wanted and cannot take the model: ``pack`` ends there."""
        return tuple(name for name, faults in self.refusals.items() if faults and name not in self.left_out)

    @property
    def exit_code(self) -> int:
        """What ``pack`` would end with here and now, as far as that is known.

        4 when a target is refused, 6 without the memory, 3 when nothing can meet a size, else 0.
        """
        if self.refused or self.short:
            return EXIT_CONVERSION if self.refused else EXIT_ENVIRONMENT
        return EXIT_BUDGET_MISSED if self.beyond else EXIT_MET

    def lines(self) -> list[str]:
        """Return it as lines for a terminal."""
        shown = list(self.layers.items())
        more = f" and {counted(len(shown) - 8, 'other op')}" if len(shown) > 8 else ""
        ops = ", ".join(f"{count} {op}" for op, count in shown[:8])
        basis = "one timed batch" if self.timed else "multiply-accumulates, not timed"
        lines = [
            f"{self.model}: {sized(self.parameters)} parameters, {sized(self.macs)} MACs a sample",
            f"  {counted(sum(self.layers.values()), 'operation')}: {ops}{more}",
            f"  weights {sized(self.weight_bytes)}B, activations at most {sized(self.activation_bytes)}B a sample",
        ]
        for target, faults in self.refusals.items():
            out = " (left out)" if target in self.left_out else ""
            lines.append(f"  {target}: takes every layer" if not faults else f"  {target}{out} cannot take:")
            lines += [f"    - {line}" for line in grouped(faults, REASONS)]
            lines += [f"    {self.lengths[target]}"] if target in self.lengths and not faults else []
        others = {name: why for name, why in self.left_out.items() if not self.refusals.get(name)}
        lines += [f"  {target} is left out: {why}" for target, why in others.items()]
        lines += [f"  {self.score}"] if self.score else []
        seconds, peak = _seconds(self.forecast_seconds), sized(self.forecast_bytes)
        lines.append(f"  forecast: about {seconds} and {peak}B at the peak ({basis})")
        if self.short:
            lines.append(
                f"  memory: {sized(self.available_bytes)}B are left ({self.available_by}): pack refuses to begin"
            )
        lines += [f"  budget: {line}" for line in self.limits]
        lines += [f"  note: {line}" for line in self.notes]
        return [*lines, LOOSEN] if self.exit_code == EXIT_BUDGET_MISSED else lines


@dataclass(frozen=True)
class Preflights:
    """What is known of several architectures.

    Attributes:
        architectures: name -> what is known of it alone.
        lost: name -> why nothing can be made of it.
        notes: what else the run itself needs, one line each.
    """

    architectures: Mapping[str, Preflight] = field(hash=False)
    lost: Mapping[str, str] = field(default_factory=dict, hash=False)
    notes: tuple[str, ...] = ()

    @property
    def forecast_seconds(self) -> float:
        """Of all together: each is packed by itself."""
        return sum(one.forecast_seconds for one in self.architectures.values())

    @property
    def exit_code(self) -> int:
        """6 where one has not the memory, 3 where none can meet the size for a target, else 0.

        Where a target takes none of them, the looking ends with an error.
        """
        ones = self.architectures.values()
        if any(one.short for one in ones):
            return EXIT_ENVIRONMENT
        beyond = set.intersection(*(set(one.beyond) for one in ones)) if ones else set()
        return EXIT_BUDGET_MISSED if beyond else EXIT_MET

    def lines(self) -> list[str]:
        """Return it as lines for a terminal."""
        lines = [line for one in self.architectures.values() for line in one.lines() if line != LOOSEN]
        lines += [f"{name} is left out: {' '.join(why.split())}" for name, why in self.lost.items()]
        many = counted(len(self.architectures), "architecture")
        lines.append(f"forecast of {many}: about {_seconds(self.forecast_seconds)}, one after the other")
        lines += [f"note: {line}" for line in self.notes]
        return [*lines, LOOSEN] if self.exit_code == EXIT_BUDGET_MISSED else lines


def preflight(
    model: Model,
    refusals: Mapping[str, tuple[Fault, ...]],
    work: Work,
    *,
    seconds_per_sample: float | Callable[[], float] | None = None,
    length: int = 1,
) -> Preflight:
    """Return what is known of a model before anything slow.

    Args:
        model: the exported model.
        refusals: target -> what it cannot take (``Target.refusals(model)``).
        work: what the job will do.
        seconds_per_sample: of the float model, or a callable that times it once, or None.
        length: what free dimensions other than the batch count as.

    Raises:
        ValueError: ``seconds_per_sample`` is negative or NaN.
    """
    timed = seconds_per_sample is not None
    per_sample = seconds_per_sample() if callable(seconds_per_sample) else seconds_per_sample
    if per_sample is None:
        per_sample = model.macs / MACS_PER_SECOND
    if not per_sample >= 0:
        message = f"seconds per sample cannot be {per_sample}"
        raise ValueError(message)
    passes = work.forwards + SIMULATION * work.simulated
    weights = sum(array.nbytes for array in model.weights.values())
    activations = peak_bytes(model.graph, length)
    counts = Counter(node.op for node in model.graph.nodes if node.op != "input")
    memory = {
        PROGRAMS: BASE_BYTES + RUNTIME_BYTES * max(0, len(refusals) - 1),
        WEIGHTS: COPIES * weights,
        ACTIVATIONS: WORKING * work.batch * activations,
        DATA: work.data_bytes,
        ROUNDING: work.rounding_bytes,
    }
    return Preflight(
        model=model.name,
        layers=dict(counts.most_common()),
        parameters=model.parameter_count,
        macs=model.macs,
        weight_bytes=weights,
        activation_bytes=activations,
        refusals=dict(refusals),
        forecast_seconds=START_SECONDS + PLAN_SECONDS * work.plans + per_sample * passes,
        forecast_bytes=sum(memory.values()),
        timed=timed,
        memory=memory,
    )


def peak_bytes(graph: Graph, length: int = 1) -> int:
    """Return the most bytes of activations that live at one time for one sample, each freed after its last reader."""
    outputs = set(graph.outputs)
    last = {key: index for index, node in enumerate(graph.nodes) for key in node.inputs}
    sizes: dict[str, int] = {}
    peak = 0
    for index, node in enumerate(graph.nodes):
        free = [1 if size == "batch" else length for size in node.output.shape if isinstance(size, str)]
        elements = node.output.elements()
        for factor in free:
            elements *= factor
        sizes[node.key] = elements * _BYTES.get(node.output.dtype, 4)
        peak = max(peak, sum(sizes.values()))
        gone = [key for key in sizes if last.get(key, index) <= index and key not in outputs]
        for key in gone:
            del sizes[key]
    return peak


def sized(value: float) -> str:
    """Return a number as ``1.5 G``, ``2.0 M`` or ``12 ``: a unit follows."""
    for factor, letter in _FACTORS:
        if value >= factor:
            return f"{value / factor:.1f} {letter}"
    return f"{value:.0f} "


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"
