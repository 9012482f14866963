"""What can be known to be wrong early: a metric without a value, limits in the wrong unit, sizes beyond reach."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from haversack.base.budget import Budget
from haversack.base.counted import counted
from haversack.base.errors import JobError, VerificationError
from haversack.base.model import Model, Sample
from haversack.base.plan import STATIC, LayerPlan, Plan, Step
from haversack.base.quality import Quality
from haversack.base.scope import Scope
from haversack.choose.forecast import least_bytes
from haversack.choose.options import BYTES_PER_WEIGHT, PALETTE_BITS
from haversack.choose.verdict import JUDGED_UNRUN, amount
from haversack.flow.barred import else_free, lifts, words
from haversack.flow.data import Data
from haversack.flow.effort import Effort
from haversack.flow.making import CHOOSE, REPORT
from haversack.flow.replay import Predict
from haversack.flow.rules import forms
from haversack.flow.squeeze import together
from haversack.load.forecast import Work
from haversack.measure import quality
from haversack.metrics.contract import Metric
from haversack.report import wording
from haversack.targets.contract import Target
from haversack.tools.graph import tied
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.roles import Role, role
from haversack.tools.numerics import planes

RACED_ROWS = 5 * 16
"""Rows that a race of variants simulates: so many variants, so many rows each."""
FILE_BYTES, OPERATION_BYTES = 4_000, 100
"""Bytes of a file beside its weights, forecast: once, and for each operation. Small files of three runtimes had 4.5 to
6 kB for 8 operations, an ONNX file of a recurrent layer 24 kB for 252, and another's 67 kB for 652."""
UNPACKING = 4_000
"""Bytes that unpacking weights of an odd width takes in a file, at the most (``choose.options.LEAST_PACKED``)."""
Least = Callable[[Scope], Mapping[str, Plan]]
"""What the user allows -> target -> the plan whose weights take the fewest bytes."""
BEYOND = "cannot be met"
"""What is said of a size that the weights alone are above."""
BELIEVABLE_ERRORS = 2.0
"""A stated baseline is missed when the float model falls short of it by more than so many standard errors."""
PYTORCH_ERROR = 1e-3
"""The float artefact may leave PyTorch by this relative error."""


def refuse_undefined(metric: Metric, rows: np.ndarray) -> None:
    """Refuse a half of the evaluation set on which the metric has no value for the float model.

    Args:
        metric: the job's.
        rows: of the float model, [samples, columns].

    Raises:
        JobError: the value of a half is NaN or infinite, or the user's callable raised on it.
    """
    for half, what in ((CHOOSE, "chooses"), (REPORT, "is reported")):
        value = float(metric.values(rows[half][None])[0])
        if not np.isfinite(value):
            raise JobError(
                f"{metric.called} is {value} on the half of the evaluation set that {what}",
                where="evaluation()",
                tried=f"scoring the float model on {counted(len(rows[half]), 'sample')}: every second one chooses, "
                "the others are reported",
                next_step="give more samples, of every class, so ordered that each half holds what the metric needs",
            )
        refuse_no_fraction(metric, value)


def refuse_no_fraction(metric: Metric, value: float) -> None:
    """Refuse a metric that is said to be a fraction and gives another number: its drops would be told in points.

    Args:
        metric: the job's.
        value: of the float model.

    Raises:
        JobError: with how a metric says what its unit is.
    """
    if metric.unit == "fraction" and abs(value) > 1:
        raise JobError(
            f"{metric.called} gives {value:g}, and is taken for a fraction, as every callable that says nothing else",
            where="metric",
            tried="scoring the float model",
            next_step="return a score from 0 to 1 a sample, or say what it is: from haversack.metrics import "
            'from_callable; metric = from_callable(function, unit="dB", direction="higher")',
        )


def refuse_short(stated: float | None, whole: Quality) -> None:
    """Refuse a float model that is not as good as its job states.

    Args:
        stated: the quality that the job states, in the metric's unit; None where it states none.
        whole: of the float artefact, on all samples.

    Raises:
        JobError: it falls short by more than two standard errors.
    """
    if stated is None:
        return
    short = stated - whole.value if whole.direction == "higher" else whole.value - stated
    error = 0.0 if np.isnan(whole.standard_error) else whole.standard_error
    if short > BELIEVABLE_ERRORS * error:
        text = f"{whole.value:.4f} (± {error:.4f}, {counted(whole.samples, 'sample')})"
        raise JobError(
            f"the float model scores {text} where the job states {stated:.4f}",
            where="baseline",
            tried=f"scoring the float artefact with {whole.metric}",
            next_step=baseline_step(stated, whole.value, whole.unit),
        )


def baseline_step(stated: float, found: float, unit: str) -> str:
    """Return what to do when the float model scores less than its job states."""
    if unit == "fraction" and stated > 1 >= found:
        return f"baseline = {stated / 100:g}, if percent were meant: the metric is a fraction"
    return "look at preprocess, labels and weights before compressing anything, or mend baseline"


def score_one(model: Model, data: Data, metric: Metric) -> str:
    """Score the first evaluation batch with the float model in PyTorch: what is wrong with labels or metric shows.

    Returns:
        The score in words; empty for a metric that has no value on so few samples.

    Raises:
        JobError: inputs, expected values or the metric are at fault, or it is no fraction as it says.
        NotFinite: an output of the model is not finite.
    """
    predict = Executor(model).run
    names = [port.name for port in model.outputs]
    first = [pair for pair, _ in zip(data.evaluation(), range(1), strict=False)]
    state = quality.score(predict, first, metric, float_predict=predict, names=names)
    try:
        found = state.quality()
    except JobError:  # of one batch: the whole set is judged by baseline_step and split
        return ""
    refuse_no_fraction(metric, found.value)
    value = wording.quality(found.value, found.unit)
    return f"{found.metric} {value} on the first {counted(found.samples, 'sample')}, float, in PyTorch"


def check_float(model: Model, predict: Predict, sample: Sample, target: str) -> None:
    """Compare the float artefact of a target with the exported model in PyTorch; arrays batch first.

    Raises:
        VerificationError: it computes something else.
    """
    exact, got = Executor(model).run(sample), predict(sample)
    for port, mine, theirs in zip(model.outputs, got, exact, strict=True):
        error = float(np.linalg.norm(mine.astype(np.float64) - theirs) / (np.linalg.norm(theirs) or 1.0))
        if not error <= PYTORCH_ERROR:
            raise VerificationError(
                f"the float file's relative error against PyTorch is {error:.2g}, allowed is {PYTORCH_ERROR}",
                where=f"{target}, {port.name}",
                tried=f"running both on {counted(len(sample[0]), 'calibration sample')}",
                next_step="choose another --target; the exporter or the runtime is at fault",
            )


def work(
    model: Model,
    counts: tuple[int, int],
    plans: int,
    batch: int,
    spend: Effort,
    degraded: int = 0,
    memory: tuple[int, int] = (0, 0),
) -> Work:
    """Return what a run will do, for the forecast.

    Args:
        model: the float model.
        counts: rows that calibrate, samples that are scored.
        plans: how many are made real.
        batch: rows of one batch.
        spend: what learning about layers and rounding the weights of one plan may cost; one plan serves all targets.
        degraded: how often half of the scored samples is scored once more, made worse.
        memory: bytes that are kept of samples and outputs, and that rounding takes.
    """
    layers = sum(role(node) in (Role.LAYER, Role.EMBEDDING) for node in model.graph.nodes)
    return Work(
        sum(counts) * (plans + 1) + degraded * (counts[1] // 2),
        plans,
        batch,
        simulated=RACED_ROWS + layers * spend.rows + spend.forwards,
        data_bytes=memory[0],
        rounding_bytes=memory[1],
    )


def narrowest(model: Model, targets: Mapping[str, Target], scope: Scope | None = None) -> dict[str, Plan]:
    """Return target -> the plan whose weights take the fewest bytes: every layer in what it can have at the least.

    Which layers can have how few bits, and in groups of how many, the targets say of this model, as they do when plans
    are made real: those that share encodings have what all of them can.

    Args:
        model: the float model.
        targets: by name.
        scope: what the user allows; None for everything.

    Raises:
        ConversionError: as ``Target.constraints``.
    """
    graph = model.graph
    shared = together({name: target.constraints(graph) for name, target in targets.items()})
    plans = {}
    for name, target in targets.items():
        layers: dict[str, LayerPlan] = {}
        for key, held in forms(graph, target, shared[name], scope.without if scope else ()).items():
            allowed = [one for one in held.values() if scope is None or scope.allows(key, one)]
            least = min(allowed, key=lambda one: BYTES_PER_WEIGHT[one.precision], default=LayerPlan("float32"))
            if least.precision == "palette":
                least = replace(least, weights=Step(least.weights.part, {"bits": min(PALETTE_BITS)}))
            layers |= {key: least} if least.precision != "float32" else {}
        plans[name] = Plan(name, tied.agreed(graph, layers))
    return plans


def limits(
    model: Model,
    budget: Budget,
    least: Least,
    unit: str,
    *,
    runs: bool = True,
    scope: Scope | None = None,
) -> tuple[str, ...]:
    """Say of each limit whether it can be met, as far as that is known before anything is made.

    Args:
        model: the float model.
        budget: the limits.
        least: returns target -> the plan whose weights take the fewest bytes (``narrowest``), for what the user allows;
            of a size each target is told, unless they are alike.
        unit: of the metric.
        runs: whether the files of some target run here; if none do, only sizes are judged.
        scope: what the user allows; None for everything.
    """
    scope = scope or Scope()
    plans, lines = least(scope), []
    for name, value in budget.limits().items():
        wanted = f"{name.partition('_')[0]} at most {amount(name, value, unit)}"
        if name == "size":
            said = {target: _smallest(model, plan, value) for target, plan in plans.items()}
            said = {target: words + _barred(model, least, target, value, scope) for target, words in said.items()}
            alike = len(set(said.values())) == 1
            told = {f"{wanted}{'' if alike else f' ({target})'}": words for target, words in said.items()}
            lines += [f"{what}: {words}" for what, words in told.items()]
        else:
            judged = runs or name in JUDGED_UNRUN
            lines.append(f"{wanted}: {'known when it is measured' if judged else 'not judged: no file is run here'}")
    return tuple(lines)


def beyond(model: Model, budget: Budget, plans: Mapping[str, Plan], *, one: bool) -> tuple[str, ...]:
    """Return the targets for which no plan meets the size, whatever is done: the weights alone are above it.

    Args:
        model: the float model.
        budget: the limits.
        plans: target -> the plan whose weights take the fewest bytes.
        one: whether only one of the targets ships: then none is told unless all are above it.
    """
    size = math.inf if budget.size is None else budget.size
    found = tuple(target for target, plan in plans.items() if _bytes(model, plan) > size)
    return () if one and len(found) < len(plans) else found


def _smallest(model: Model, plan: Plan, allowed: float) -> str:
    """Say what the weights take at least, in which precisions, and whether that is within the allowed bytes."""
    least = least_bytes(model.graph, model.weights, plan)
    weighted = [node.key for node in model.graph.nodes if node.weight]
    held = Counter(plan.layers[key].precision if key in plan.layers else "float32" for key in weighted)
    kinds = sorted(held, key=BYTES_PER_WEIGHT.__getitem__)
    words = kinds if len(kinds) == 1 else [f"{kind} ({counted(held[kind], 'layer')})" for kind in kinds]
    said = f"weights alone take at least {amount('size', least)} in {', '.join(words)}"
    return f"{BEYOND}: {said}" if least > allowed else f"{said}, {_structure(model)}"


def _barred(model: Model, every: Least, target: str, allowed: float, scope: Scope) -> str:
    """Say what would bring the weights below a limit that they are above, if the user allowed it: the gentlest.

    That is the first that leaves room for a structure as it is forecast, or else the first that may do at all.
    """

    def least(one: Scope) -> Plan:
        return every(one)[target]

    if _bytes(model, least(scope)) <= allowed:
        return ""
    ways = [(plan, barred) for plan in map(least, lifts(scope)) if (barred := words(plan, scope))]
    for beside in (_structure_bytes(model), None):
        for plan, barred in ways:
            more = 0 if beside is None else beside + (UNPACKING if _packed(plan) else 0)
            if _bytes(model, plan) + more <= allowed:
                others = (_bytes(model, least(one)) for one in else_free(scope, plan))
                only = "" if any(other <= allowed for other in others) else "only "
                said = f"; {only}{barred} would bring them down to {amount('size', _bytes(model, plan))}"
                return said if beside is not None else f"{said}, and with {_structure(model)} that may be too much"
    return ""


def _bytes(model: Model, plan: Plan) -> float:
    return least_bytes(model.graph, model.weights, plan)


def _packed(plan: Plan) -> bool:
    """Say whether weights are packed in planes, that the file unpacks."""
    return any(one.precision in STATIC and one.bits in planes.WIDTHS for one in plan.layers.values())


def _structure(model: Model) -> str:
    about = amount("size", _structure_bytes(model))
    return f"its structure of {counted(_operations(model), 'operation')} about {about} more (a forecast)"


def _structure_bytes(model: Model) -> float:
    return FILE_BYTES + _operations(model) * OPERATION_BYTES


def _operations(model: Model) -> int:
    return sum(node.op != "input" for node in model.graph.nodes)
