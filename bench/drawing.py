"""What the guide's pictures share: how one becomes an SVG, its colours, letters, scales and legends."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import altair as alt
from shown import Numbers

FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"
PAPER, INK, SOFT, FAINT, GRID = "#ffffff", "#1f2328", "#59636e", "#afb8c1", "#e6eaef"
POWER = "datum.value >= 0.01 && datum.value <= 1000 ? format(datum.value, '~') : format(datum.value, '.0e')"
"""How a tick of a logarithmic axis is written."""
WIDTH, HEIGHT = 560, 260
BLUE, ORANGE, GREEN = "#1f6feb", "#bc4c00", "#1a7f37"
DARK = {
    PAPER: "#0d1117",
    INK: "#e6edf3",
    SOFT: "#9da7b3",
    FAINT: "#5b6570",
    GRID: "#21262d",
    BLUE: "#6cb0ff",
    ORANGE: "#ffa657",
    GREEN: "#56d364",
}
"""A colour on a light ground -> the same on a dark one."""
Chart = Any
"""One of altair's, which has no common type."""


def colours(names: Sequence[str], shades: Sequence[str]) -> alt.Color:
    """Return a colour for each name, told above the picture in a line each: browsers differ in how wide words are."""
    legend = alt.Legend(title=None, orient="top", columns=1, symbolOpacity=1, symbolStrokeWidth=2, labelLimit=400)
    return alt.Color("of:N", scale=alt.Scale(domain=list(names), range=list(shades)), legend=legend)


def log(low: float, high: float) -> alt.Scale:
    """Return a logarithmic scale that ends there."""
    return alt.Scale(type="log", domain=[low, high], nice=False)


def span(low: float, high: float) -> alt.Scale:
    """Return an even scale that ends there."""
    return alt.Scale(domain=[low, high], nice=False)


def powers(low: float, high: float) -> alt.Axis:
    """Return an axis with ticks at the powers of ten alone."""
    found = [10.0**power for power in range(-12, 6) if low <= 10.0**power <= high]
    return alt.Axis(values=found, labelExpr=POWER)


def histogram(numbers: Numbers, least: float = 0.0) -> Chart:
    """Return shares of values as an outline with steps."""
    middles, half = numbers["middles"], (numbers["middles"][1] - numbers["middles"][0]) / 2
    shares = [max(share, least) for share in numbers["share"]]
    rows = [{"value": x - half, "share": y} for x, y in zip(middles, shares, strict=True)]
    rows.append({"value": middles[-1] + half, "share": shares[-1]})
    return alt.Chart(alt.Data(values=rows)).mark_area(interpolate="step-after", color=FAINT, opacity=1)


def styled(chart: Chart) -> Chart:
    """Return a chart in the colours and letters of all pictures."""
    words = {"labelColor": SOFT, "titleColor": SOFT, "labelFontSize": 12, "titleFontSize": 12}
    return (
        chart.configure(background=PAPER, font=FONT, aria=False, padding=12)
        .configure_view(stroke=None)
        .configure_axis(
            **words,
            titleFontWeight="normal",
            labelFlush=False,
            gridColor=GRID,
            domainColor=FAINT,
            tickColor=FAINT,
            titlePadding=8,
        )
        .configure_legend(labelColor=INK, labelFontSize=12, titleColor=SOFT, titleFontSize=12, titleFontWeight="normal")
    )


def labelled(words: Mapping[str, str], errors: Sequence[float]) -> dict[str, str]:
    """Return labels with errors, by key."""
    return {key: f"{text}: error {error:.1%}" for (key, text), error in zip(words.items(), errors, strict=True)}


def codes(numbers: Numbers, labels: Mapping[str, str]) -> Chart:
    """Return a weight's histogram with the values that codes stand for below it: key of the numbers -> its label."""
    ticks = [{"value": value, "of": label} for key, label in labels.items() for value in numbers[key]]
    edge = 0.44
    bars = (
        histogram(numbers)
        .encode(
            x=alt.X("value:Q", title=None, scale=span(-edge, edge), axis=None),
            y=alt.Y("share:Q", title="share of weights", axis=alt.Axis(format="%", tickCount=4)),
        )
        .properties(width=WIDTH, height=190)
    )
    marks = (
        alt.Chart(alt.Data(values=ticks))
        .mark_tick(thickness=2, size=22, opacity=1, clip=True)
        .encode(
            x=alt.X("value:Q", title="weight", scale=span(-edge, edge), axis=alt.Axis(tickCount=9)),
            y=alt.Y("of:N", title=None, sort=list(labels.values()), axis=None),
            color=colours(list(labels.values()), [ORANGE, BLUE, GREEN][: len(labels)]),
        )
        .properties(width=WIDTH, height=32 * len(labels))
    )
    return alt.vconcat(bars, marks, spacing=4)


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        numbers: gives what it shows.
        draw: makes a chart of that.
        title: what it shows, in a few words.
        words: the same in a sentence, for those who do not see it.
    """

    numbers: Callable[[], Numbers]
    draw: Callable[[Numbers], Chart]
    title: str
    words: str

    def svg(self, numbers: Numbers) -> str:
        """Return the picture of some numbers as one SVG document."""
        stream = io.StringIO()
        styled(self.draw(numbers)).save(stream, format="svg")
        return dressed(stream.getvalue(), self.title, self.words, numbers)


def dressed(svg: str, title: str, words: str, numbers: Numbers) -> str:
    """Return an SVG with a title, a description, the numbers it shows, and colours for dark pages."""
    rules = "".join(
        f"[fill='{light}']{{fill:{dark}}}[stroke='{light}']{{stroke:{dark}}}" for light, dark in DARK.items()
    )
    head = (
        f"<title>{escape(title)}</title><desc>{escape(words)}</desc>"
        f"<metadata>{escape(json.dumps(numbers, separators=(',', ':')), quote=False)}</metadata>"
        f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
    )
    found = re.sub(r"(<svg\b[^>]*?)(\s*>)", lambda made: f'{made[1]} role="img"{made[2]}{head}', svg, count=1)
    return found.strip() + "\n"


def held(path: Path) -> Numbers:
    """Return the numbers that a picture holds."""
    found = re.search(r"<metadata>(.*?)</metadata>", path.read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        sys.exit(f"{path} holds no numbers: draw it without --again")
    numbers: Numbers = json.loads(unescape(found[1]))
    return numbers
