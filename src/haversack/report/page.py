"""The page: one HTML file that needs no network, no script and no font of its own."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files as resources
from typing import TYPE_CHECKING

from haversack.base.counted import counted
from haversack.base.errors import MissingExtra
from haversack.report import alive, headline, pareto, several, wording
from haversack.report.record import CandidateRecord, FindingRecord, LayerRecord, Limit, Record
from haversack.report.text import SEVERITIES

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = ("page.html.j2", "page.css.j2", "parts.html.j2")
WORST_LAYERS = 5
SHOWN = 3
"""Findings of one kind that stand open; the others are folded away."""
UNFOLDED = 3
"""So many plans that were not made real stand among the candidates; more are folded away."""
FILTERS: tuple[Callable[..., str], ...] = (
    wording.size,
    wording.milliseconds,
    wording.seconds,
    wording.ratio,
    wording.percent,
    wording.error,
    wording.count,
    wording.large,
    wording.points,
    wording.change,
    wording.quality,
    wording.interval,
    wording.amount,
    wording.difference,
    wording.limit_name,
    wording.exactness,
    wording.module,
    wording.operation,
    counted,
)


@dataclass(frozen=True)
class Bar:
    """One layer with the length of its bar in percent of the longest, and whether it is among the worst."""

    layer: LayerRecord
    length: float
    worst: bool


@dataclass(frozen=True)
class Alike:
    """The findings of one kind on what ships for one target; ``allowed`` as in ``FindingRecord``."""

    target: str
    kind: str
    allowed: bool
    findings: tuple[FindingRecord, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.findings)


@dataclass(frozen=True)
class Group:
    """The findings of one severity, by kind."""

    severity: str
    kinds: tuple[Alike, ...]


@dataclass(frozen=True)
class Candidates:
    """The rows of the table, those that are folded away, and why those were not made, in a few words."""

    shown: tuple[CandidateRecord, ...]
    folded: tuple[CandidateRecord, ...]
    why: str = ""


@dataclass(frozen=True)
class Section:
    """What the page shows for one target.

    ``worst`` are its tensors with the largest error; ``timed`` and ``float_timed`` say that some layer was timed.
    """

    target: str
    best: CandidateRecord | None
    limits: tuple[Limit, ...]
    bars: tuple[Bar, ...]
    worst: tuple[tuple[str, float | None], ...]
    timed: bool
    float_timed: bool


def render(record: Record) -> str:
    """Return the page of a record as one HTML document; every value in it is escaped.

    Raises:
        MissingExtra: jinja2, altair or vl-convert is not installed.
    """
    try:
        import jinja2  # noqa: F401 - what fails to import is told here, once
        from markupsafe import Markup
    except ImportError as error:
        raise MissingExtra("jinja2", "pack", purpose="the page of a report") from error
    return (
        _environment()
        .get_template(TEMPLATES[0])
        .render(
            record=record,
            headline=headline.of(record),
            plot=Markup(pareto.draw(record)),  # noqa: S704 - altair escapes what it draws; a test plants hostile names
            slim_plot=Markup(pareto.draw(record, pareto.SLIM)),  # noqa: S704 - as above
            undrawn=pareto.undrawn(record),
            plot_axes=f"Size in {pareto.unit(pareto.points(record))[0]} across, {pareto.axis(record).title} upwards",
            sections=tuple(_section(record, target) for target in record.targets),
            groups=groups(record),
            candidates=candidates(record),
            dash=wording.DASH,
            SHOWN=SHOWN,
            alive=alive,
            architectures=several.rows(record),
        )
    )


@functools.cache
def _environment() -> Environment:
    from jinja2 import DictLoader, StrictUndefined
    from jinja2 import Environment as Jinja

    folder = resources("haversack.report")
    texts = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in TEMPLATES}
    made = Jinja(
        loader=DictLoader(texts), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update({word.__name__: word for word in (*FILTERS, kinds)})
    return made


def groups(record: Record) -> tuple[Group, ...]:
    """Return the findings on what ships, gravest severity first; a severity without findings is left out."""
    found: dict[str, dict[tuple[str, str, bool], list[FindingRecord]]] = {severity: {} for severity in SEVERITIES}
    for target in record.targets:
        best = record.best_of(target)
        for finding in best.findings if best else ():
            found[finding.severity].setdefault((target, finding.kind, finding.allowed), []).append(finding)
    return tuple(
        Group(severity, tuple(Alike(*which, tuple(alike)) for which, alike in kinds.items()))
        for severity, kinds in found.items()
        if kinds
    )


def candidates(record: Record) -> Candidates:
    """Return the candidates in order; more than a few that were not made real are folded away together."""
    unmade = [one for one in record.candidates if one.verdict == "not made"]
    if len(unmade) <= UNFOLDED:
        return Candidates(record.candidates, ())
    causes: dict[str, int] = {}
    for one in unmade:
        cause = re.split(r"[,(]|\s\S*\d", one.reason.removeprefix("not made: "), maxsplit=1)[0]
        causes[cause] = causes.get(cause, 0) + 1
    why = ", ".join(f"{cause} ({count})" for cause, count in causes.items() if cause)
    return Candidates(tuple(one for one in record.candidates if one.verdict != "not made"), tuple(unmade), why)


def kinds(findings: tuple[FindingRecord, ...]) -> tuple[str, ...]:
    """Return one line a kind of finding: severity, kind, and where, or how often."""
    found: dict[tuple[str, str], list[str | None]] = {}
    for finding in findings:
        found.setdefault((finding.severity, finding.kind), []).append(finding.layer)
    return tuple(
        f"{severity}: {kind}" + (f" ({len(where)})" if len(where) > 1 else f" at {where[0]}" if where[0] else "")
        for (severity, kind), where in found.items()
    )


def bars(layers: tuple[LayerRecord, ...]) -> tuple[Bar, ...]:
    """Return one bar a layer, in execution order; the worst are the few with the largest error above zero."""
    errors = sorted((layer.relative_error for layer in layers if layer.relative_error), reverse=True)
    longest = errors[0] if errors else 1.0
    count = min(WORST_LAYERS, max(1, len(layers) // 8))
    edge = errors[:count][-1] if errors else float("inf")
    return tuple(
        Bar(layer, 100 * (layer.relative_error or 0.0) / longest, (layer.relative_error or 0.0) >= edge)
        for layer in layers
    )


def _section(record: Record, target: str) -> Section:
    best = record.best_of(target)
    layers = best.layers if best else ()
    return Section(
        target=target,
        best=best,
        limits=record.limits_of(target),
        bars=bars(layers),
        worst=tuple(best.parity.layers.items())[:WORST_LAYERS] if best and best.parity else (),
        timed=any(layer.time_share is not None for layer in layers),
        float_timed=any(layer.float_time_share is not None for layer in layers),
    )
