"""The encodings of activations: ranges become scales that keep every constraint of the targets at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from haversack.base.constraints import Constraints, Ratio
from haversack.base.counted import counted
from haversack.base.encodings import Affine
from haversack.base.errors import ConversionError, Fault
from haversack.base.finding import Finding
from haversack.base.graph import Graph
from haversack.base.keys import split_node, split_tensor
from haversack.base.profile import TensorStatistics
from haversack.compress.quantize.contract import Quantizer
from haversack.compress.quantize.minmax import MinMax
from haversack.tools.graph.roles import Role, role
from haversack.tools.numerics.affine import MIDDLE, from_range, is_power, power_up
from haversack.tools.numerics.means import candidates, rounds_alike
from haversack.tools.numerics.reciprocals import with_exact_reciprocal
from haversack.tools.numerics.ties import is_tie_free, tie_free

CODES = 255
NAMED = 5
"""Tensors that a finding names."""
MIXING = 8.0
"""Tensors that share one scale are told about when one range is more than so many times the other."""
_EVERYTHING = (-math.inf, math.inf)


@dataclass
class _Group:
    """Tensors with one encoding: the union of their ranges, and the interval that their codes may not leave."""

    keys: frozenset[str]
    low: float
    high: float
    least: float = -math.inf
    most: float = math.inf
    fixed: tuple[float, int] | None = None
    symmetric: bool = False
    encoding: Affine | None = None
    settled: bool = False

    def allows(self, encoding: Affine) -> bool:
        """Say whether no code of the encoding leaves the interval; a symmetric grid leaves clamping to the runtime."""
        if self.symmetric:
            return True
        scale, zero = float(encoding.scale), int(encoding.zero_point)
        return self.least <= -zero * scale and (CODES - zero) * scale <= self.most


def encode(
    graph: Graph,
    keys: frozenset[str],
    ranges: Mapping[str, TensorStatistics],
    quantizer: Quantizer,
    constraints: Constraints,
) -> tuple[dict[str, Affine], list[Finding]]:
    """Return the uint8 encoding of every tensor in ``keys``, and what had to give way.

    Ties first (a group covers all its members; a tie that would break the bound of a clamp or a fixed scale is left
    out, and told), then bounds and fixed scales, then the ratios of adds and means from the outputs backwards, each
    adjusting its input's scale: upwards, or downwards where a clamp bounds it. A ratio between scales that are both
    settled already is told as ``rounding-ties``. What comes into the model as float has a scale that runtimes may
    divide by, or multiply by the reciprocal of. Where scales are to be powers of two they are rounded up to one, before
    the ratios; what a clamp or a ratio makes another number is told as ``not-a-shift``.

    Args:
        graph: the canonical graph.
        keys: tensor keys (``…:out``).
        ranges: statistics by tensor key; a tensor without its own, made by a node that only moves values, has its
            source's.
        quantizer: sets ranges from statistics, but for the model's outputs: those are never clipped, for it is their
            largest values that are read.
        constraints: of the targets; what they say of tensors outside ``keys`` does not count.

    Raises:
        ConversionError: a tensor has no statistics.
    """
    findings: list[Finding] = []
    covered = _ranges(graph, keys, ranges, quantizer)
    groups = {key: _alone(key, low, high, constraints) for key, (low, high) in covered.items()}
    for tie in constraints.ties:
        if tie <= keys:  # what is joined or moved in float ties nothing
            findings += _tie(groups, sorted(tie))
    findings += _mixing(graph, groups, covered)
    given = {f"{key}:out" for key in graph.inputs}
    for group in _distinct(groups):
        group.encoding = _divisible(group, _grid(group)) if group.keys & given else _grid(group)
        if quantizer.shifts:
            group.encoding = _shifted(group, group.encoding)
        group.settled = group.fixed is not None
    order = {node.out: index for index, node in enumerate(graph.nodes)}
    inside = [ratio for ratio in constraints.ratios if ratio.input in keys and ratio.output in keys]
    for ratio in sorted(inside, key=lambda ratio: -order[ratio.output]):
        findings += _keep_ratio(groups[ratio.input], groups[ratio.output], ratio, shifts=quantizer.shifts)
    made = {key: _made(groups[key]) for key in sorted(keys)}
    return made, findings + (_unshifted(made) if quantizer.shifts else [])


def _ranges(
    graph: Graph, keys: frozenset[str], ranges: Mapping[str, TensorStatistics], quantizer: Quantizer
) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    faults = []
    for key in sorted(keys):
        source = key
        while source not in ranges and role(node := graph.by_key[split_tensor(source)[0]]) is Role.SAME:
            source = f"{node.inputs[0]}:out"
        if source in ranges:
            part = MinMax() if split_tensor(key)[0] in graph.outputs else quantizer
            found[key] = part.activation_range(ranges[source])
        else:
            faults.append(Fault(key, "no range is known"))
    if faults:
        raise ConversionError(
            "activations without ranges cannot be encoded",
            faults=tuple(faults),
            next_step="take the ranges on the prepared model",
        )
    return found


def _alone(key: str, low: float, high: float, constraints: Constraints) -> _Group:
    least, most = constraints.bounds.get(key, _EVERYTHING)
    least, most = min(least, 0.0), max(most, 0.0)
    ends = max(low, least), min(high, most)
    return _Group(frozenset({key}), *ends, least, most, constraints.fixed.get(key), constraints.symmetric)


def _tie(groups: dict[str, _Group], keys: list[str]) -> list[Finding]:
    """Join the groups of tied tensors, one after the other."""
    findings = []
    for key in keys[1:]:
        first, second = groups[keys[0]], groups[key]
        if first is second:
            continue
        joined = _Group(
            first.keys | second.keys,
            min(first.low, second.low),
            max(first.high, second.high),
            max(first.least, second.least),
            min(first.most, second.most),
            first.fixed or second.fixed,
            first.symmetric,
        )
        apart = first.fixed is not None and second.fixed is not None and first.fixed != second.fixed
        if apart or joined.low < joined.least or joined.high > joined.most:
            text = f"{keys[0]} and {key} cannot share one scale (a clamp or a fixed scale forbids it): kept apart"
            findings.append(Finding("range-mixing", text, _place(key)))
            continue
        groups.update(dict.fromkeys(joined.keys, joined))
    return findings


def _mixing(graph: Graph, groups: Mapping[str, _Group], covered: Mapping[str, tuple[float, float]]) -> list[Finding]:
    """Tell of concatenations whose inputs share a scale and differ much in range: the narrow one has few codes."""
    findings = []
    for node in graph.nodes:
        inputs = [f"{key}:out" for key in node.inputs]
        shared = {id(groups[key]) if key in groups else None for key in inputs}
        if role(node) is not Role.CONCAT or len(shared) != 1 or None in shared:
            continue
        spans = {key: covered[key][1] - covered[key][0] for key in inputs}
        wide, narrow = max(spans, key=spans.__getitem__), min(spans, key=spans.__getitem__)
        if spans[wide] > MIXING * spans[narrow]:
            text = f"{narrow} spans {spans[narrow]:.3g} and shares one scale with {wide}, which spans {spans[wide]:.3g}"
            findings.append(Finding("range-mixing", text, _place(node.out)))
    return findings


def _distinct(groups: Mapping[str, _Group]) -> Iterable[_Group]:
    return {id(group): group for group in groups.values()}.values()


def _grid(group: _Group) -> Affine:
    """Return the encoding that covers a group's range within its interval."""
    if group.fixed is not None:
        return _affine(np.array(group.fixed[0], np.float32), group.fixed[1])
    if group.symmetric:
        return _affine(from_range(group.low, group.high, signed=True).scale, MIDDLE)
    encoding = from_range(group.low, group.high)
    if group.allows(encoding):
        return encoding
    exact = min(-group.low / float(encoding.scale), float(CODES))
    fitting = [_within(group, int(zero)) for zero in {math.floor(exact), min(math.ceil(exact), CODES)}]
    return min(fitting, key=lambda encoding: _lost(group, encoding))


def _within(group: _Group, zero: int) -> Affine:
    """Return the widest encoding with a zero-point that stays in the group's interval and needs not be wider."""
    limits = [float(from_range(group.low, group.high).scale)]
    limits += [-group.least / zero] if zero else []
    limits += [group.most / (CODES - zero)] if zero < CODES else []
    encoding = _affine(np.array(min(limits), np.float32), zero)
    while not group.allows(encoding):
        encoding = _affine(np.nextafter(encoding.scale, np.float32(0)), zero)
    return encoding


def _lost(group: _Group, encoding: Affine) -> float:
    """Return how much of the group's range no code reaches."""
    scale, zero = float(encoding.scale), int(encoding.zero_point)
    return max(-zero * scale - group.low, 0.0) + max(group.high - (CODES - zero) * scale, 0.0)


def _rescaled(group: _Group, scale: np.ndarray) -> Affine:
    zero = MIDDLE if group.symmetric else int(np.clip(np.rint(-group.low / float(scale)), 0, CODES))
    return _affine(scale, zero)


def _affine(scale: np.ndarray, zero: int) -> Affine:
    return Affine(8, signed=False, axis=None, scale=np.array(scale, np.float32), zero_point=np.array(zero, np.int32))


def _divisible(group: _Group, encoding: Affine) -> Affine:
    """Return a group's encoding with a scale that may as well be multiplied by, where the group allows it."""
    found = _rescaled(group, with_exact_reciprocal(encoding.scale))
    return encoding if group.fixed is not None or not group.allows(found) else found


def _shifted(group: _Group, encoding: Affine) -> Affine:
    """Return a group's encoding with the next power of two above as its scale, where the group allows it."""
    found = _rescaled(group, power_up(encoding.scale))
    return encoding if group.fixed is not None or not group.allows(found) else found


def _unshifted(made: Mapping[str, Affine]) -> list[Finding]:
    """Tell of scales that are to be powers of two and are none."""
    keys = [key for key, encoding in made.items() if not is_power(encoding.scale)]
    if not keys:
        return []
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    names = f"{', '.join(keys[:NAMED])}{more}"
    text = f"{len(keys)} of {counted(len(made), 'activation scale')} are no powers of two: a clamp, an add or a mean"
    return [Finding("not-a-shift", f"{text} demands another ({names})")]


def _keep_ratio(source: _Group, target: _Group, ratio: Ratio, *, shifts: bool) -> list[Finding]:
    mine, theirs = _made(source), _made(target)
    held = _alike(mine, theirs, ratio)
    if not held and not source.settled and source is not target:
        wishes = [wish for up in (True, False) for wish in _wishes(mine.scale, theirs.scale, ratio, up=up)]
        twice = mine.scale * np.float32(2.0)
        if shifts:  # a bit less, and a shift still
            wishes.insert(0, twice)
        made = (_rescaled(source, wish) for wish in wishes)
        found = next((one for one in made if source.allows(one) and _alike(one, theirs, ratio)), None)
        source.encoding, held = found or mine, found is not None
    source.settled = target.settled = True
    if held:
        return []
    wanted = f"{ratio.output} is a mean of {ratio.count} values, which a runtime may round otherwise"
    if not ratio.count:
        wanted = f"the scale of {ratio.input} over that of {ratio.output} is no multiple of 1/{ratio.denominator}"
    return [Finding("rounding-ties", f"{wanted}: no other scale fits what else is demanded", _place(ratio.output))]


def _alike(source: Affine, target: Affine, ratio: Ratio) -> bool:
    """Say whether every runtime rounds alike what is added or averaged between two encodings."""
    if not ratio.count:
        return is_tie_free(source.scale, target.scale, ratio.denominator, ratio.multiple)
    return rounds_alike(float(source.scale), float(target.scale), int(source.zero_point), ratio.count)


def _wishes(scale: np.ndarray, target: np.ndarray, ratio: Ratio, *, up: bool) -> list[np.ndarray]:
    """Return scales, float32 [], at which runtimes should round alike, the nearest first."""
    if ratio.count:
        return candidates(float(scale), float(target), ratio.multiple, up=up)
    return [tie_free(scale, target, ratio.denominator, ratio.multiple, up=up)]


def _made(group: _Group) -> Affine:
    assert group.encoding is not None, "every group gets its encoding before any ratio is kept"
    return group.encoding


def _place(key: str) -> str:
    """Return the module path of a tensor, or its node's key at the root."""
    node = split_tensor(key)[0]
    return split_node(node)[0] or node
