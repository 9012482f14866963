"""The guide's pictures of rounding: means, refit, soft roundings, blocks, and where the codes of few bits lie."""

from __future__ import annotations

import altair as alt
import numpy as np
import shown_rounding
from drawing import (
    BLUE,
    FAINT,
    GREEN,
    HEIGHT,
    ORANGE,
    SOFT,
    WIDTH,
    Chart,
    Picture,
    codes,
    colours,
    labelled,
    log,
    powers,
    span,
)
from shown import Numbers
from shown_rounding import BETAS, PARTS


def means(numbers: Numbers) -> Chart:
    """Draw the mean error of each channel, before and after."""
    names = {"before": "rounded to nearest", "after": "with bias_correct, on other photographs"}
    rows = [
        {"channel": place + 1, "off": value, "of": of}
        for key, of in names.items()
        for place, value in enumerate(numbers[key])
    ]
    most = 1.1 * max(map(abs, numbers["before"]))
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_circle(size=30, opacity=1)
        .encode(
            x=alt.X("channel:Q", title="every other channel, by its error", scale=span(0, len(numbers["before"]) + 1)),
            y=alt.Y("off:Q", title="mean error, of the spread", scale=span(-most, most), axis=alt.Axis(format="%")),
            color=colours(list(names.values()), [ORANGE, BLUE]),
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def refit(numbers: Numbers) -> Chart:
    """Draw both errors by damping, and the damping that is taken."""
    names = {"fitted": "on the half that fits", "judged": "on the half that judges"}
    rows = [
        {"damping": damping, "error": error, "of": of}
        for key, of in names.items()
        for damping, error in zip(numbers["damping"], numbers[key], strict=True)
    ]
    place = int(np.argmin(numbers["judged"]))
    best = [{"damping": numbers["damping"][place], "error": numbers["judged"][place]}]
    low, high = 0.95 * min(numbers["fitted"]), max(1.05, min(1.6, 1.02 * max(numbers["judged"])))
    x = alt.X("damping:Q", title="damping of the refit", scale=log(1e-4, 30.0), axis=powers(1e-4, 30.0))
    y = alt.Y("error:Q", title="squared error, relative to no refit", scale=span(low, high), axis=alt.Axis(format="%"))
    lines = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2, clip=True)
    none = alt.Chart(alt.Data(values=[{"error": 1.0}])).mark_rule(color=FAINT, strokeDash=[4, 3])
    return alt.layer(
        none.encode(y=y),
        lines.encode(x=x, y=y, color=colours(list(names.values()), [ORANGE, BLUE])),
        alt.Chart(alt.Data(values=best)).mark_circle(size=90, color=BLUE, opacity=1).encode(x=x, y=y),
    ).properties(width=WIDTH, height=HEIGHT)


def soft(numbers: Numbers) -> Chart:
    """Draw the penalty by how far a weight is rounded up, and what rows lose, of what they lose with gptq."""
    penalties = [
        {"up": up, "paid": paid, "of": f"exponent {beta}"}
        for beta, found in numbers["paid"].items()
        for up, paid in zip(numbers["fractions"], found, strict=True)
    ]
    ratios = [{"share": share, "ratio": one} for share, one in zip(numbers["shares"], numbers["ratio"], strict=True)]
    half, shares = {"width": 255, "height": 220}, alt.Axis(format="%", tickCount=5)
    left = (
        alt.Chart(alt.Data(values=penalties))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("up:Q", title="how far a weight is rounded up", scale=span(0, 1), axis=shares),
            y=alt.Y("paid:Q", title="penalty", scale=span(0, 1.02)),
            color=colours([f"exponent {beta:g}" for beta in BETAS], [SOFT, GREEN, BLUE]),
        )
        .properties(**half)
    )
    low = 0.1 * np.floor(10 * min(numbers["ratio"]))
    right = (
        alt.Chart(alt.Data(values=ratios))
        .mark_line(strokeWidth=2, color=BLUE)
        .encode(
            x=alt.X("share:Q", title="rows, in order of that", scale=span(0, 1), axis=shares),
            y=alt.Y("ratio:Q", title="squared error, of gptq's", scale=span(low, 1.02), axis=alt.Axis(format="%")),
        )
        .properties(**half)
    )
    return alt.hconcat(left, right, spacing=36).resolve_scale(color="independent")


def blocks(numbers: Numbers) -> Chart:
    """Draw errors by bits, a line for each part."""
    rows = [
        {"bits": str(bits), "error": error, "of": part}
        for part, found in numbers["errors"].items()
        for bits, error in zip(numbers["bits"], found, strict=True)
    ]
    order = [str(bits) for bits in numbers["bits"]]
    scale, ticks = log(0.01, 0.1), alt.Axis(values=[0.01, 0.02, 0.05, 0.1])
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=2, point={"size": 60, "filled": True, "opacity": 1})
        .encode(
            x=alt.X("bits:N", title="bits of a weight", sort=order, axis=alt.Axis(labelAngle=0)),
            y=alt.Y(
                "error:Q",
                title="error of the outputs",
                scale=scale,
                axis=ticks,
            ),
            color=colours(PARTS, [ORANGE, GREEN, BLUE]),
        )
        .properties(width=WIDTH - 160, height=HEIGHT)
    )


def shifts(numbers: Numbers) -> Chart:
    """Draw the histogram with three kinds of values."""
    words = {"even": "even steps", "power": "even steps of a power of two", "log": "powers of two (log)"}
    return codes(numbers, labelled(words, numbers["errors"]))


def few(numbers: Numbers) -> Chart:
    """Draw the histogram with the values of few codes."""
    names = ("seven codes", "ternary", "binary")
    words = {
        key: f"{name}, {stored:g} bits a weight"
        for key, name, stored in zip(("of 3", "of 2", "of 1"), names, numbers["stored"], strict=True)
    }
    return codes(numbers, labelled(words, numbers["errors"]))


ROUNDING = {
    "means": Picture(
        shown_rounding.means,
        means,
        "Mean errors of a convolution's channels in 4 bits, before and after bias_correct",
        "Rounded to nearest, channels are off by parts of their spread, to either side; with the bias corrected "
        "on other photographs nearly nothing is left.",
    ),
    "refit": Picture(
        shown_rounding.refit,
        refit,
        "A layer's error, refitted with more and less damping",
        "On the half of the samples that fits, less damping always gains. On the half that judges there is a best "
        "damping, and below it the error grows again.",
    ),
    "soft": Picture(
        shown_rounding.soft,
        soft,
        "The penalty of undecided roundings, and errors of rows relative to gptq's",
        "As the exponent falls from 20 to 2, roundings that are undecided are paid for. Four of ten ternary rows "
        "lose less so than with gptq, some of them far less; the others lose as much.",
    ),
    "blocks": Picture(
        shown_rounding.blocks,
        blocks,
        "Errors of the digits' network by bits of a weight, for three ways to round",
        "At each width gptq and adaround are nearly alike, and block_reconstruction loses least.",
    ),
    "shifts": Picture(
        shown_rounding.shifts,
        shifts,
        "Values of 4 bits: even steps, steps of a power of two, and powers of two",
        "Steps of a power of two lie as even ones do, a little apart from the best. Powers of two lie close together "
        "near 0 and far apart at the ends.",
    ),
    "few": Picture(
        shown_rounding.few,
        few,
        "Values of seven codes, of ternary and of binary weights",
        "Seven codes cover the histogram, three its middle and both sides, two only the sides.",
    ),
}
