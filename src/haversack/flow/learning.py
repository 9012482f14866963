"""Which layers of a release learn, and how: chosen by what they bring for their bytes, trained, held to the limit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from haversack.base.counted import counted
from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import Fault, JobError, UsageError
from haversack.base.graph import Graph, Node
from haversack.base.keys import split_node
from haversack.base.plan import STATIC, Plan
from haversack.base.progress import Event
from haversack.compress.finetune.course import Course
from haversack.compress.finetune.pay import Offer, afforded, scaled
from haversack.compress.finetune.tuned import WAYS, Way
from haversack.flow.scoping import matches
from haversack.flow.tuning import Made, Tuning
from haversack.report.update import PointRecord
from haversack.report.wording import size
from haversack.tools.graph.roles import Role, role
from haversack.tools.numerics.affine import is_power

AUTO = "auto"
PROBE = 1
"""Epochs after which it is asked what each layer brings."""
ROUNDS = 4
"""So often layers are chosen and trained at most: after each, the real delta says what a forecast is worth."""
ROOM, MARGIN = 0.8, 0.95
"""A delta that takes less of its limit leaves room for more layers, if there are any that pay; and how much of the
limit forecasts may take."""
Ways = Mapping[str, tuple[Way, ...]]


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        best: what ships.
        points: the release, and what was made, in order.
        offers: what layers bring, best paid first.
    """

    best: Made
    points: tuple[PointRecord, ...]
    offers: tuple[Offer, ...] = field(default=())


def ways(graph: Graph, encodings: Encodings, plans: Mapping[str, Plan], freeze: Sequence[str]) -> Ways:
    """Return key of a layer -> how it may change, for those that may.

    Layers whose weights are integers may change in both ways, or by their integers alone where scales are bound to
    powers of two or to float16; those in float32 by their weights. Palettes, weights in groups and weights that
    several layers share stay as they are.

    Args:
        graph: of the model.
        encodings: of the release.
        plans: target -> its plan.
        freeze: ``auto`` and globs over module paths.

    Raises:
        UsageError: a glob names no layer, or nothing is left that may change; all faults at once.
    """
    layers = [node for node in graph.nodes if role(node) in (Role.LAYER, Role.EMBEDDING)]
    globs = [glob for glob in freeze if glob != AUTO]
    faults = tuple(Fault(glob, _nearest(glob, layers)) for glob in globs if not any(matches(glob, n) for n in layers))
    if faults:
        raise UsageError("layers cannot be frozen as asked", where="--freeze", faults=faults)
    readers: dict[str, int] = {}
    for node in graph.nodes:
        for name in node.parameters:
            readers[name] = readers.get(name, 0) + 1
    able = {node.key: _able(node, encodings, plans) for node in layers if readers[str(node.weight)] == 1}
    frozen = {node.key for node in layers if any(matches(glob, node) for glob in globs)}
    found = {key: those for key, those in able.items() if those and key not in frozen}
    if not found:
        cause = "they freeze every layer that could change" if globs else "no layer of the release can change"
        raise UsageError(cause, where="--freeze", next_step="freeze fewer layers, or pack the new model as a release")
    return found


def _able(node: Node, encodings: Encodings, plans: Mapping[str, Plan]) -> tuple[Way, ...]:
    encoding = encodings.tensors.get(f"{node.key}:weight")
    if encoding is None:
        return ("weights",)
    if not isinstance(encoding, Affine) or encoding.binary:
        return ()
    planned = [plan.layers[node.key].precision for plan in plans.values() if node.key in plan.layers]
    free = all(one in STATIC for one in planned) and not bool(is_power(encoding.scale).all())
    return WAYS if free else ("weights",)


def _nearest(glob: str, layers: Sequence[Node]) -> str:
    known = list(dict.fromkeys(split_node(node.key)[0] for node in layers))
    near = difflib.get_close_matches(glob, known, n=3, cutoff=0.4)
    return f"it names no layer; {'the nearest are' if near else 'layers are'} {', '.join(near or known[:8])}"


def update(tuning: Tuning, ways: Ways, limit: int, course: Course) -> Found:
    """Return the best update within a limit: layers chosen, trained, packed, and held against it by the real delta.

    The whole release is trained for a short time, once in each way; what every layer brings there, and what a real
    delta takes of what was forecast, decides what is trained. Where the delta of that is too large, or leaves room, its
    bytes correct the forecasts and layers are chosen again.

    Args:
        tuning: the release.
        ways: how layers may change.
        limit: bytes.
        course: of the training.

    Raises:
        UsageError: no update is that small.
        JobError: no layer brings anything.
    """
    offers, smallest = _offers(tuning, ways, course)
    tell = tuning.steps.shop.tell
    first = tuning.first(smallest.before)
    points, kept = [first], offers
    best: Made | None = None
    chosen = afforded(kept, MARGIN * limit)
    if not chosen and smallest.made.point.bytes > limit:
        raise UsageError(
            f"the smallest update that was found takes {size(smallest.made.point.bytes)}; {size(limit)} are allowed",
            where="--max-delta",
            tried=f"training each of {counted(len(ways), 'layer')} by itself, and making the real delta",
            next_step=f"--max-delta {-(-smallest.made.point.bytes // 1000)}KB",
        )
    for turn in range(1, ROUNDS + 1):
        if not chosen:
            break
        name = f"{counted(len(chosen), 'layer')}, round {turn}"
        tuned, learnt = tuning.learnt(name, {one.layer: one.way for one in chosen}, course)
        made = tuning.made(f"round-{turn}", tuned, learnt.after)
        points.append(replace(made.point, name=name))
        fits = made.point.bytes <= limit
        more = "" if fits or turn == ROUNDS else f"; layers are chosen again, round {turn + 1} of {ROUNDS} at the most"
        tell(Event("compress", "note", f"{name}: a delta of {size(made.point.bytes)}, {size(limit)} allowed{more}"))
        if fits and (best is None or made.point.loss < best.point.loss):
            best = replace(made, point=points[-1])
        kept = scaled(kept, made.point.bytes / max(1.0, sum(one.bytes for one in chosen)))
        before, chosen = chosen, _again(kept, chosen, limit, fits=fits)
        if fits and (made.point.bytes >= ROOM * limit or _gain(chosen) <= _gain(before)):
            break
    if best is None and smallest.made.point.bytes <= limit:
        best = smallest.made
        points.append(best.point)
    if best is None:
        raise UsageError(
            f"no update that was tried is as small as {size(limit)}: they take "
            + ", ".join(size(one.bytes) for one in points[1:]),
            where="--max-delta",
            next_step=f"--max-delta {-(-min(one.bytes for one in points[1:]) // 1000)}KB",
        )
    told = tuple(replace(one, ships=one is best.point) for one in points)
    layers = best.point.layers
    return Found(best, told, tuple(replace(one, chosen=layers.get(one.layer) == one.way) for one in offers))


def _again(kept: Sequence[Offer], chosen: Sequence[Offer], limit: int, *, fits: bool) -> tuple[Offer, ...]:
    """Return what is chosen by corrected forecasts: fewer layers than before where these did not fit."""
    found = afforded(kept, MARGIN * limit)
    if not fits and {(one.layer, one.way) for one in found} == {(one.layer, one.way) for one in chosen}:
        least = min(found, key=lambda one: one.pay)
        return tuple(one for one in found if one is not least)
    return found


def _gain(offers: Sequence[Offer]) -> float:
    return sum(one.gain for one in offers)


@dataclass(frozen=True)
class _Smallest:
    made: Made
    before: float


def _offers(tuning: Tuning, ways: Ways, course: Course) -> tuple[tuple[Offer, ...], _Smallest]:
    """Return what layers bring, their bytes held against real deltas, and the smallest update among them.

    Raises:
        JobError: no layer brings anything.
    """
    found: list[Offer] = []
    values: dict[Way, Mapping[str, np.ndarray]] = {}
    before = 0.0
    for way in WAYS:
        mine = {key: way for key, those in ways.items() if way in those}
        if not mine:
            continue
        tuned, learnt, told = tuning.offers(f"all of {way}", mine, replace(course, epochs=PROBE))
        values[way], before = learnt.values, learnt.before
        real = tuning.made(f"probe-{way}", tuned, learnt.after, scored=False).point.bytes
        found += scaled(told, real / max(1.0, sum(one.bytes for one in told)))
    paying = [one for one in found if one.gain > 0]
    if not paying:
        raise JobError(
            "no layer's change brings less loss on the samples held back",
            where="training()",
            tried=f"training all of {counted(len(ways), 'layer')} for {counted(PROBE, 'epoch')}",
            next_step="give more samples, or look at their labels: the release may know them already",
        )
    least = min(paying, key=lambda one: one.bytes)
    tuned = tuning.tuned({least.layer: least.way})
    tuned.load(values[least.way])
    made = tuning.made("smallest", tuned, before - least.gain)
    made = replace(made, point=replace(made.point, name=f"{split_node(least.layer)[0]} alone"))
    return tuple(sorted(found, key=lambda one: -one.pay)), _Smallest(made, before)


def beside_all(tuning: Tuning, ways: Ways, course: Course, found: Found) -> Found:
    """Return what was found with one point more: all layers that may change, fine-tuned for as long."""
    every: dict[str, Way] = dict.fromkeys((key for key, those in ways.items() if "weights" in those), "weights")
    tuned, learnt = tuning.learnt("all layers", every, course)
    made = tuning.made("all", tuned, learnt.after)
    return replace(found, points=(*found.points, replace(made.point, name="all layers")))
