"""Applying a plan: prepared model, encodings, findings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from haversack.base.constraints import Constraints
from haversack.base.counted import counted
from haversack.base.encodings import Affine, Encodings
from haversack.base.finding import Finding
from haversack.base.model import Model, Sample
from haversack.base.plan import STATIC, Plan
from haversack.base.profile import TensorStatistics
from haversack.base.progress import Event, Sink, silent
from haversack.compress.encode import encode, store_weights
from haversack.compress.importance import importance
from haversack.compress.prepare.contract import SHELF, PrepareContext, PrepareStep
from haversack.compress.prepare.means import FEW, Wanted, tell_few
from haversack.compress.selection import holdable
from haversack.tools.numerics.affine import quantize


@dataclass(frozen=True)
class Compressed:
    """A plan made real, before it is lowered: the prepared model, how its tensors are stored, what gave way.

    Attributes:
        model: the prepared one.
        encodings: of its tensors.
        findings: what gave way.
        exact: the float model as far as preparation left its outputs: its tensors, which may be scaled by channel, are
            what the prepared model's stand for. None where that is not known any more.
    """

    model: Model
    encodings: Encodings
    findings: tuple[Finding, ...] = ()
    exact: Model | None = None


def apply(
    model: Model,
    plan: Plan,
    *,
    ranges: Callable[[Model], Mapping[str, TensorStatistics]],
    constraints: Constraints,
    samples: Callable[[], Iterable[Sample]],
    sink: Sink = silent,
) -> Compressed:
    """Return the model with a plan applied.

    In order: the preparation steps that need no encodings; the ranges of the prepared model's activations; how much
    the weights of palettes count; the encodings; the steps that need them. These may change biases and
    weights, which are then stored anew with the scales that they have, or that a step gives them (raised where a bias
    has outgrown its room).

    Args:
        model: the float model.
        plan: its layers name nodes of the prepared graph.
        ranges: takes the prepared model's activation ranges; called only if a layer runs in integers.
        constraints: of the targets that the encodings must fit.
        samples: returns calibration batches, afresh at each call.
        sink: told of each step.

    Raises:
        UsageError: an unknown part or setting, or a plan that does not fit the model.
        ConversionError: an int8 layer without an integer kernel.
        JobError: NaN or an infinity in weights or activations.
        VerificationError: a preparation step broke what it promises.
    """
    parts = [SHELF.build(step.part, step.settings) for step in plan.prepare]
    learnt: list[Finding] = []
    context = PrepareContext(samples, None, sink, learnt.append)
    exact = model
    for part in parts:
        if "encodings" not in part.needs:
            before, model = model, _run(part, model, context)
            exact = model if exact is before and "outputs" in part.leaves else exact
    static = any(layer.precision in STATIC for layer in plan.layers.values())
    books = [key for key, layer in plan.layers.items() if layer.precision == "palette" and key in model.graph.by_key]
    counts = importance(model, books, samples) if books else {}
    spans = ranges(model) if static else {}
    encodings, findings = encode(model, plan, spans, constraints, counts)
    late = [part for part in parts if "encodings" in part.needs]
    for part in late:
        scales: dict[str, np.ndarray] = {}
        before, model = model, _run(part, model, replace(context, encodings=encodings, rescale=scales.__setitem__))
        encodings = _restored(encodings, before, model, scales)
    if late:
        affine = {key: value for key, value in encodings.tensors.items() if isinstance(value, Affine)}
        made, _ = holdable(model.graph, plan, constraints)
        tensors, integers, told = store_weights(model, made, affine, keep_scales=True, importance=counts)
        encodings = Encodings({**encodings.tensors, **tensors}, integers)
        findings = tuple(dict.fromkeys((*findings, *told)))
    rows = min((one.samples for one in spans.values()), default=FEW)
    if not any(one.kind == "few-samples" for one in learnt):
        tell_few(rows, Wanted(FEW, rows, math.inf, "to set ranges by"), learnt.append)
    sink(Event("compress", "done", f"{counted(len(plan.layers), 'layer')} encoded"))
    return Compressed(model, encodings, tuple(dict.fromkeys((*findings, *learnt))), exact)


def _restored(encodings: Encodings, before: Model, after: Model, scales: Mapping[str, np.ndarray]) -> Encodings:
    """Return encodings with the scales and integers of the weights that a step has changed, for the step after it."""
    made, codes = dict(encodings.tensors), dict(encodings.integers)
    for node in after.graph.nodes:
        encoding = encodings.affine(f"{node.key}:weight")
        if encoding is None or after.weights[str(node.weight)] is before.weights[str(node.weight)]:
            continue
        key = f"{node.key}:weight"
        made[key] = encoding = replace(encoding, scale=np.asarray(scales.get(key, encoding.scale), np.float32))
        codes[key] = quantize(after.weights[str(node.weight)], encoding)
    return Encodings(made, codes)


def _run(part: PrepareStep, model: Model, context: PrepareContext) -> Model:
    context.sink(Event("compress", "start", part.name))
    return part.apply(model, context)
