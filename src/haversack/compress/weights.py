"""The encodings of weights: scales by the layer's own quantizer, integers, and room for the bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from haversack.base.encodings import Affine, BlockAffine, Dynamic, Encoding, Float
from haversack.base.errors import JobError, UsageError
from haversack.base.finding import Finding
from haversack.base.graph import Node
from haversack.base.keys import split_node
from haversack.base.model import Model
from haversack.base.plan import STATIC, WEIGHT_BITS, LayerPlan, Step
from haversack.compress.palettize.contract import SHELF as PALETTES
from haversack.compress.quantize.contract import SHELF
from haversack.compress.selection import group_of
from haversack.tools.numerics import blocks
from haversack.tools.numerics.affine import half_up, quantize, raise_for_bias, symmetric
from haversack.tools.numerics.granularity import by_channel, channel_axis


@dataclass(frozen=True, eq=False)
class Stored:
    """What one layer's weight becomes: encodings by tensor key, the weight's integers, findings."""

    tensors: Mapping[str, Encoding]
    integers: Mapping[str, np.ndarray]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Call:
    """A layer that reads a weight: its plan, and the encoding of its input where it runs in integers."""

    node: Node
    layer: LayerPlan
    source: Affine | None = None


def store_once(
    model: Model,
    calls: Sequence[Call],
    kept: Affine | None = None,
    *,
    half: bool = False,
    importance: np.ndarray | None = None,
) -> Stored:
    """Return how one weight is stored for all that read it: with the same integers and scales.

    Each call has its own scale of inputs, and so its own room for a bias. The scales are those of the call that needs
    the largest ones.

    Args:
        model: has the weights, float32.
        calls: of one weight, in one form (``LayerPlan.form``).
        kept, half, importance: as ``store`` takes them.

    Raises:
        JobError, UsageError: as ``store``.
    """
    half = half and any(call.layer.precision == "int8_weights" for call in calls)
    found: list[Stored] = []
    for call in calls:
        found.append(store(model, call.node, call.layer, call.source, kept, half=half, importance=importance))
        encoding = found[-1].tensors.get(f"{call.node.key}:weight")
        kept = encoding if isinstance(encoding, Affine) else kept  # no scale of it is smaller than before
    tensors = {key: encoding for stored in found for key, encoding in stored.tensors.items()}
    integers = {key: codes for stored in found for key, codes in stored.integers.items()}
    if len(calls) > 1 and integers:
        last = f"{calls[-1].node.key}:weight"
        tensors |= {f"{call.node.key}:weight": tensors[last] for call in calls}
        integers = {f"{call.node.key}:weight": integers[last] for call in calls}
    return Stored(tensors, integers, tuple(told for stored in found for told in stored.findings))


def store(
    model: Model,
    node: Node,
    layer: LayerPlan,
    source: Affine | None,
    kept: Affine | None = None,
    *,
    half: bool = False,
    importance: np.ndarray | None = None,
) -> Stored:
    """Return how a layer's weight is stored.

    Args:
        model: has the weights, float32.
        node: a LAYER or EMBEDDING.
        layer: its precision, granularity and quantizer.
        source: the encoding of its input when it runs in integers, so that the bias fits: where |bias| is more than
            2^22 accumulator steps the channel's scale is raised (a dead channel) and told.
        kept: the encoding that it has already, whose scales stay (but for dead channels); None to set them.
        half: whether the scales are float16 numbers, rounded up.
        importance: how much each weight counts in a palette, in the weight's shape (see ``compress.importance``); None
            where all count alike.

    Raises:
        JobError: the weight holds NaN or an infinity.
        UsageError: a palette's part, settings or group do not fit it.
    """
    key = f"{node.key}:weight"
    if layer.precision == "float32":
        return Stored({}, {})
    if layer.precision == "float16":
        return Stored({key: Float("float16")}, {})
    assert node.weight is not None, "a layer has a weight"
    weight = np.asarray(model.weights[node.weight], np.float32)
    if layer.precision == "palette":
        return _palette(node, layer.weights, weight, importance)
    if layer.precision == "w4_grouped":
        return _grouped(node, layer, weight)
    axis = channel_axis(node.op) if layer.granularity == "channel" else None
    scales = kept.scale if kept is not None else _scales(node, layer, weight, axis)
    findings: tuple[Finding, ...] = ()
    if layer.precision in STATIC and source is not None and node.bias is not None:
        scales, raised = raise_for_bias(scales, np.asarray(model.weights[node.bias], np.float32), source.scale)
        findings = _dead(node, raised)
    if half:
        scales = half_up(scales)
    encoding = symmetric(scales, WEIGHT_BITS[layer.precision], axis)
    tensors: dict[str, Encoding] = {key: encoding}
    if layer.precision == "int8_dynamic":
        tensors[f"{node.key}:in"] = Dynamic()
    return Stored(tensors, {key: quantize(weight, encoding)}, findings)


def _palette(node: Node, step: Step, weight: np.ndarray, importance: np.ndarray | None) -> Stored:
    """Return a weight as a palette and indices into it; errors name the layer."""
    place = split_node(node.key)[0] or node.key
    try:
        book, indices = PALETTES.build(step.part, step.settings).palette(weight, importance)
    except JobError as error:
        raise JobError(error.cause, where=place, tried=f"reading {node.weight}") from error
    except UsageError as error:
        raise UsageError(error.cause, where=place, faults=error.faults, next_step=error.next_step) from error
    key = f"{node.key}:weight"
    return Stored({key: book}, {key: indices})


def _grouped(node: Node, layer: LayerPlan, weight: np.ndarray) -> Stored:
    """Return a weight in groups, each with the scale that the layer's quantizer sets for it as for a channel."""
    group, bits = group_of(layer), WEIGHT_BITS[layer.precision]
    settings = {name: value for name, value in layer.weights.settings.items() if name != "group"}
    parts = weight.reshape(-1, group)
    found = _set(node, Step(layer.weights.part, settings), parts, bits, 1)
    encoding = BlockAffine(group, bits, blocks.rounded(found).reshape(len(weight), -1))
    key = f"{node.key}:weight"
    return Stored({key: encoding, f"{node.key}:in": Dynamic()}, {key: blocks.quantize(weight, encoding)})


def _scales(node: Node, layer: LayerPlan, weight: np.ndarray, axis: int | None) -> np.ndarray:
    """Return the scales that a layer's quantizer sets, float32 [channels] or []."""
    taps = int(np.prod(weight.shape[2:])) if node.op.startswith("conv") else 1
    scales = _set(node, layer.weights, by_channel(weight, axis), WEIGHT_BITS[layer.precision], taps)
    return scales if axis is not None else scales.reshape(())


def _set(node: Node, step: Step, parts: np.ndarray, bits: int, taps: int) -> np.ndarray:
    """Return the scale that a quantizer sets for each row of ``parts``, float32 [rows]; errors name the layer."""
    quantizer = SHELF.build(step.part, step.settings)
    try:
        scales: np.ndarray = quantizer.weight_scales(parts, bits, taps)
    except JobError as error:
        place = split_node(node.key)[0] or node.key
        raise JobError(error.cause, where=place, tried=f"reading {node.weight}") from error
    return scales


def _dead(node: Node, raised: np.ndarray) -> tuple[Finding, ...]:
    if not raised.any():
        return ()
    module = split_node(node.key)[0] or node.key
    count = f"{int(raised.sum())} of {raised.size} weight scales were raised" if raised.ndim else "the scale was raised"
    return (Finding("dead-channel", f"{count}, so that the bias fits the sum's 32 bits", module),)
