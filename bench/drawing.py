"""The colours, letters, scales and legends that the guide's pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
from shown import Numbers

FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"
PAPER, INK, SOFT, FAINT, GRID = "#ffffff", "#1f2328", "#59636e", "#afb8c1", "#e6eaef"
POWER = "datum.value >= 0.01 && datum.value <= 1000 ? format(datum.value, '~') : format(datum.value, '.0e')"
"""How a tick of a logarithmic axis is written."""
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
