"""The Pareto plot: size against loss, one mark a candidate, as SVG that takes its colours from the page."""

from __future__ import annotations

import io
import re
import resource
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from haversack.base.errors import EnvironmentFault, MissingExtra
from haversack.report import wording
from haversack.report.record import CandidateRecord, Record

WIDTH, HEIGHT = 640, 300
SLIM = 290
"""The width of the plot for a phone: there its words are as large as on a desk."""
APART = 44.0, 18.0
"""Pixels across and along by which two labels must differ, or the later one is left out."""
ROOM = {"left": 4, "top": 4, "right": 14, "bottom": 4}
"""Pixels around the drawing: more on the right, where a note beside the last mark ends in any font of the page."""
LETTER, BESIDE, LONGEST = 7.5, 28.0, 160
"""Pixels of a legend: of a name's letter in the widest of the fonts that a page may get, of mark and gap beside a name,
and of the longest name, which ends in dots there."""
PADDING = 30
RESERVED = 80 << 30
"""Bytes of addresses without which vl-convert's engine ends the process: it died at 40 GB, and drew at 70."""
SERIES = 5
LABELLED = 8
_FONT = "ui-sans-serif, system-ui, sans-serif"


@dataclass(frozen=True)
class Point:
    """One candidate: size in MB, loss in the unit of the vertical axis; ``note`` stands beside its mark.

    ``architecture`` is what it was made of, where there are several; its mark has a shape of its own then.
    """

    size: float
    loss: float
    target: str
    kind: str
    note: str
    architecture: str = ""


@dataclass(frozen=True)
class Axis:
    """What the vertical axis shows, with the factor from the record's unit to the axis's."""

    title: str
    quantity: str
    factor: float


def axis(record: Record) -> Axis:
    """Return the drop as the vertical axis where any candidate has one that differs, else the relative error."""
    drops = {candidate.quality.drop for candidate in record.candidates if candidate.quality} - {None}
    if drops:
        fraction = record.baseline.unit == "fraction"
        return Axis(
            f"Drop in {record.baseline.metric} ({'pt' if fraction else record.baseline.unit})",
            "drop",
            100.0 if fraction else 1.0,
        )
    return Axis("Relative error against float", "relative_error", 1.0)


def points(record: Record) -> tuple[Point, ...]:
    """Return the candidates that have both a size and a loss, the shipping ones last (drawn on top)."""
    shown = axis(record)
    found = []
    for candidate in record.candidates:
        source = candidate.quality if shown.quantity == "drop" else candidate.parity
        loss: float | None = getattr(source, shown.quantity, None)
        if candidate.artifact is None or loss is None:
            continue
        kind = "ships" if record.best.get(candidate.target) == candidate.id else "considered"
        size, note = candidate.artifact.bytes / 1e6, _note(candidate)
        found.append(Point(size, loss * shown.factor, candidate.target, kind, note, candidate.architecture))
    return tuple(sorted(found, key=lambda point: point.kind == "ships"))


def _note(candidate: CandidateRecord) -> str:
    """Return the time as a ratio to float; of several architectures, which have no float file in common, as it is."""
    if candidate.architecture:
        time = wording.milliseconds(candidate.latency.median_ms) if candidate.latency else ""
        return f"{candidate.architecture} {time}".rstrip()
    return wording.ratio(candidate.latency.ratio) if candidate.latency and candidate.latency.ratio is not None else ""


def frontier(points: Iterable[Point]) -> tuple[Point, ...]:
    """Return the points that no other of the same target beats in size and loss at once, by target, then size."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.target, p.size, p.loss)):
        last = kept[-1] if kept and kept[-1].target == point.target else None
        if last is None or point.loss < last.loss:
            kept.append(point)
    return tuple(kept)


def unit(points: Iterable[Point]) -> tuple[str, float]:
    """Return the unit of the axis of sizes, as the page spells such sizes, and how many of it are one MB."""
    return ("kB", 1e3) if max((point.size for point in points), default=0.0) < 1 else ("MB", 1.0)


@dataclass(frozen=True)
class Span:
    """What an axis spans: the least and the greatest value that is drawn on it, limits among them."""

    low: float
    high: float

    @property
    def domain(self) -> list[float] | None:
        """For altair; None where there is one value alone, and altair finds room around it."""
        return [self.low, self.high] if self.high > self.low else None

    def pixels(self, distance: float, length: int) -> float:
        """Return how many of ``length`` pixels a distance of values takes."""
        return abs(distance) / (self.high - self.low) * (length - 2 * PADDING) if self.domain else 0.0


def spans(record: Record) -> tuple[Span, Span]:
    """Return what the axes span: size in MB across, the loss along."""
    shown, allowed = points(record), {limit.limit: limit.allowed for limit in record.budget}
    sizes, losses = [point.size for point in shown], [point.loss for point in shown]
    if "size" in allowed:
        sizes.append(allowed["size"] / 1e6)
    if "drop" in allowed and axis(record).quantity == "drop":
        losses.append(allowed["drop"] * axis(record).factor)
    return Span(min(sizes), max(sizes)), Span(min(losses), max(losses))


def labelled(shown: Sequence[Point], across: Span, along: Span, width: int = WIDTH) -> tuple[Point, ...]:
    """Return the points with their notes, but for those that would be printed over another: what ships comes first.

    Args:
        shown: all of them.
        across, along: what the axes span.
        width: of the plot, in pixels.
    """
    kept: list[Point] = []
    for point in sorted(shown, key=lambda p: p.kind != "ships"):
        near = (
            across.pixels(point.size - other.size, width) < _apart(point, other)
            and along.pixels(point.loss - other.loss, HEIGHT) < APART[1]
            for other in kept
        )
        if point.note and not any(near):
            kept.append(point)
    return tuple(point if point in kept else replace(point, note="") for point in shown)


def _apart(point: Point, other: Point) -> float:
    """Return by how many pixels across two labels must differ: those that name an architecture are as long as it is."""
    named = [one.note for one in (point, other) if one.architecture]
    return max([APART[0], *(LETTER * len(note) for note in named)])


def columns(targets: Sequence[str], width: int = WIDTH) -> int:
    """Return in how many columns a legend stands, so that none of its names leaves the plot.

    Args:
        targets: the names.
        width: of the plot, in pixels.
    """
    taken = [min(LETTER * len(name), LONGEST) + BESIDE for name in targets]
    return len(targets) if sum(taken) <= width else max(1, int(width // max(taken)))


def undrawn(record: Record) -> str:
    """Return why there is no plot, as a sentence; an empty string where there is one."""
    if not points(record):
        return "No candidate has both a size and a loss to plot."
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < RESERVED:
        return "There is no plot: what draws it reserves 64 GB of addresses, and ulimit -v allows fewer."
    return ""


def draw(record: Record, width: int = WIDTH) -> str:
    """Return the plot as one <svg> element without scripts, links or fonts of its own; empty without two numbers.

    Args:
        record: of the run.
        width: of the plot, in pixels without the axis.

    Returns:
        The SVG; nothing where ``undrawn`` says why not.

    Raises:
        MissingExtra: altair or vl-convert is not installed.
        EnvironmentFault: one of them cannot be loaded.
    """
    if undrawn(record):
        return ""
    shown = points(record)
    try:
        import altair as alt
        import vl_convert  # noqa: F401 - altair draws through it
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "altair", "pack", purpose="the plot of a report") from error
    except ImportError as error:
        raise EnvironmentFault(
            f"what draws the plot cannot be loaded: {error}", where=error.name or "altair"
        ) from error
    stream = io.StringIO()
    _chart(alt, record, shown, width).save(stream, format="svg")
    return _inline(stream.getvalue())


def _chart(altair: Any, record: Record, points: Sequence[Point], width: int) -> Any:  # noqa: ANN401 - altair's own
    name, factor = unit(points)
    across, along = spans(record)
    shown = [replace(point, size=point.size * factor) for point in labelled(points, across, along, width)]
    wide = None if across.domain is None else [value * factor for value in across.domain]
    targets = list(record.targets)
    colours = [f"var(--series-{count % SERIES})" for count in range(len(targets))]
    scale = altair.Scale(domain=targets, range=colours)
    crowded = len(shown) > LABELLED
    rows = {"columns": columns(targets, width), "labelLimit": LONGEST, "columnPadding": 20}
    legend = (
        altair.Legend(title=None, orient="top", symbolType="circle", symbolOpacity=1, **rows)
        if len(targets) > 1
        else None
    )
    shapes = {"shape": altair.Shape("architecture:N", legend=None)} if record.architectures else {}
    base = altair.Chart(altair.Data(values=[asdict(point) for point in shown])).encode(
        x=altair.X("size:Q", title=f"Size ({name})", scale=_scale(altair, wide)),
        y=altair.Y("loss:Q", title=axis(record).title, scale=_scale(altair, along.domain)),
        color=altair.Color("target:N", scale=scale, legend=legend),
    )
    ships = altair.datum.kind == "ships"
    edge = altair.Chart(altair.Data(values=[asdict(point) for point in frontier(shown)]))
    layers = [
        *_limits(altair, record, factor, across, width),
        edge.mark_line(interpolate="step-after", strokeWidth=1.25, opacity=0.6).encode(
            x="size:Q", y="loss:Q", color=altair.Color("target:N", scale=scale, legend=legend)
        ),
        base.encode(**shapes)
        .transform_filter(~ships)
        .mark_point(filled=False, size=70, strokeWidth=1.75, opacity=1, fill="var(--paper)"),
        base.encode(**shapes).transform_filter(ships).mark_point(filled=True, size=150, opacity=1),
        (base.transform_filter(ships) if crowded else base)
        .mark_text(align="left", dx=10, dy=-9, fontSize=12, font=_FONT)
        .encode(text="note:N", color=altair.value("var(--ink)")),
    ]
    return _styled(altair.layer(*layers).properties(width=width, height=HEIGHT), ticks=6 if width == WIDTH else 4)


def _scale(altair: Any, domain: list[float] | None) -> Any:  # noqa: ANN401 - as above
    span = {} if domain is None else {"domain": domain}
    return altair.Scale(zero=False, nice=False, padding=PADDING, **span)


def _limits(altair: Any, record: Record, factor: float, across: Span, width: int) -> list[Any]:  # noqa: ANN401 - as above
    """Return the dashed lines of the budget: allowed size across, allowed drop along."""
    allowed = {limit.limit: limit.allowed for limit in record.budget}
    shown = axis(record)
    lines = []
    style = {"color": "var(--faint)", "strokeDash": [4, 4], "strokeWidth": 1}
    words = {"color": "var(--soft)", "fontSize": 11, "font": _FONT}
    if "size" in allowed:
        data = altair.Data(values=[{"size": allowed["size"] / 1e6 * factor, "label": "size allowed"}])
        chart = altair.Chart(data)
        lines.append(chart.mark_rule(**style).encode(x="size:Q"))
        low, high = across.low, across.high
        left = (allowed["size"] / 1e6 - low) * 2 < high - low  # to its right, where the axis is near
        lines.append(
            chart.mark_text(align="left" if left else "right", dx=5 if left else -5, **words, baseline="top").encode(
                x="size:Q", y=altair.value(4), text="label:N"
            )
        )
    if "drop" in allowed and shown.quantity == "drop":
        data = altair.Data(values=[{"loss": allowed["drop"] * shown.factor, "label": "drop allowed"}])
        chart = altair.Chart(data)
        lines.append(chart.mark_rule(**style).encode(y="loss:Q"))
        lines.append(
            chart.mark_text(align="right", dy=-6, **words).encode(y="loss:Q", x=altair.value(width - 4), text="label:N")
        )
    return lines


def _styled(chart: Any, ticks: int) -> Any:  # noqa: ANN401 - as above
    return (
        chart.configure(background="transparent", font=_FONT, aria=False, padding=ROOM)
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="var(--soft)",
            titleColor="var(--soft)",
            titleFontWeight="normal",
            labelFontSize=12,
            titleFontSize=12,
            gridColor="var(--line)",
            domain=False,
            ticks=False,
            labelPadding=8,
            titlePadding=12,
            tickCount=ticks,
        )
        .configure_legend(labelColor="var(--ink)", labelFontSize=12, symbolSize=90)
    )


def _inline(svg: str) -> str:
    """Return an SVG file as an element of a page: no namespaces, a width that follows the page."""
    head, _, rest = svg.partition(">")
    head = re.sub(r"\s(?:xmlns(?::\w+)?|version|class)=\"[^\"]*\"", "", head)
    head = re.sub(r"\s(?:width|height)=\"[^\"]*\"", "", head)
    return f'{head} aria-hidden="true" focusable="false">{rest}'
