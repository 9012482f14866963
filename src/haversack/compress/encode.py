"""From a plan to encodings: which units run in integers, and with which scales."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, Encoding, Encodings
from haversack.base.finding import Finding
from haversack.base.model import Model
from haversack.base.plan import Plan
from haversack.base.profile import TensorStatistics
from haversack.compress import activations
from haversack.compress.apart import apart
from haversack.compress.quantize.contract import SHELF
from haversack.compress.selection import check, holdable, integer_tensors
from haversack.compress.weights import Call, store_once
from haversack.tools.graph import tied

NONE: Mapping[str, np.ndarray] = MappingProxyType({})


def encode(
    model: Model,
    plan: Plan,
    ranges: Mapping[str, TensorStatistics],
    constraints: Constraints,
    importance: Mapping[str, np.ndarray] = NONE,
) -> tuple[Encodings, tuple[Finding, ...]]:
    """Return the encodings of a plan, and findings of what had to give way.

    Which units run in integers: every layer with a static precision (but for those that read or give what must stay
    float, which is told), and every other unit whose op has an integer kernel (``constraints.integer_ops``) and whose
    inputs all hold integers (see ``tools.graph.law.integer_tensors``). All other units run in float on dequantized
    values.

    Args:
        model: the prepared model.
        plan: what each layer becomes.
        ranges: statistics of activations on this model; not read when no layer is int8.
        constraints: of the targets that the encodings must fit.
        importance: node key -> how much each weight counts in a palette, float32 in its shape
            (``compress.importance``); where nothing is known, all count alike.

    Raises:
        UsageError: the plan names a layer that the model does not have, or a precision that it cannot have.
        ConversionError: an int8 layer without an integer kernel, or an activation without statistics.
        JobError: weights or statistics hold NaN or an infinity.
    """
    check(model.graph, plan, constraints)
    plan, kept = holdable(model.graph, plan, constraints)
    keys = integer_tensors(model.graph, plan, constraints.integer_ops, constraints.floats)
    floats, joined = apart(model.graph, keys, ranges)
    if floats:
        keys = integer_tensors(model.graph, plan, constraints.integer_ops, constraints.floats | floats)
    quantizer = SHELF.build(plan.ranges.part, plan.ranges.settings)
    affine, findings = activations.encode(model.graph, keys, ranges, quantizer, constraints)
    tensors, integers, told = store_weights(model, plan, affine, half=constraints.half_scales, importance=importance)
    return Encodings({**affine, **tensors}, integers), (*kept, *joined, *findings, *told)


def store_weights(
    model: Model,
    plan: Plan,
    affine: Mapping[str, Affine],
    *,
    keep_scales: bool = False,
    half: bool = False,
    importance: Mapping[str, np.ndarray] = NONE,
) -> tuple[dict[str, Encoding], dict[str, np.ndarray], tuple[Finding, ...]]:
    """Return encodings and integers of every planned weight, by the order of their first calls, and findings.

    Args:
        model: has the weights.
        plan: what each layer becomes.
        affine: the encodings by tensor key: of activations, and of weights where their scales are kept.
        keep_scales: whether weights that have an encoding in ``affine`` keep its scales.
        half: whether scales of weights that are only stored are float16 numbers (``Constraints.half_scales``).
        importance: as in ``encode``, float32.
    """
    tensors: dict[str, Encoding] = {}
    integers: dict[str, np.ndarray] = {}
    findings: list[Finding] = []
    for nodes in tied.calls(model.graph).values():
        counts = next((importance[node.key] for node in nodes if node.key in importance), None)
        held = [affine[key] for node in nodes if (key := f"{node.key}:weight") in affine]
        kept = held[0] if keep_scales and held else None
        made = [
            Call(node, plan.layers[node.key], affine.get(f"{node.inputs[0]}:out") if node.inputs else None)
            for node in nodes
            if node.key in plan.layers
        ]
        stored = store_once(model, made, kept, half=half, importance=counts)
        tensors.update(stored.tensors)
        integers.update(stored.integers)
        findings += stored.findings
    return tensors, integers, tuple(findings)
