"""``python bench/pictures.py``: draws the guide's pictures anew, each an SVG that holds the numbers it shows.

They are read on light and on dark pages alike: a picture has a ground of its own, and takes its colours from the
reader's scheme where the renderer knows it.
"""

from __future__ import annotations

import argparse
import math
import sys

import altair as alt
import numpy as np
import shown
from accounting import ROOT
from drawing import (
    BLUE,
    FAINT,
    GREEN,
    HEIGHT,
    INK,
    ORANGE,
    SOFT,
    WIDTH,
    Chart,
    Picture,
    codes,
    colours,
    held,
    histogram,
    log,
    powers,
    span,
)
from rounding_pictures import ROUNDING
from shown import Numbers

FOLDER = ROOT / "docs" / "images"
PROBED = 9
"""Place of the factor 8 among those that a layer's steps may have."""


def equalize(numbers: Numbers) -> Chart:
    """Draw the range of each channel, before and after."""
    names = {"before": "before", "after": "after equalize"}
    rows = [
        {"channel": place + 1, "range": value, "of": of}
        for key, of in names.items()
        for place, value in enumerate(numbers[key])
    ]
    count = len(numbers["before"])
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_circle(size=44, opacity=1)
        .encode(
            x=alt.X("channel:Q", title="channel, the widest first", scale=span(0, count + 1)),
            y=alt.Y("range:Q", title="largest value of the channel", scale=log(0.3, 1000), axis=powers(0.3, 1000)),
            color=colours(list(names.values()), [ORANGE, BLUE]),
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def clip(numbers: Numbers) -> Chart:
    """Draw an activation's histogram with both ranges, and the error of narrower ranges below it."""
    minmax, mse = numbers["minmax"], numbers["mse"]
    ends = [{"value": x, "of": of} for of, span in (("minmax", minmax), ("mse", mse)) for x in span]
    scale = colours(["minmax", "mse"], [ORANGE, BLUE])
    x = alt.X("value:Q", title="value of the activation", scale=alt.Scale(domain=[-62, 62], nice=False))
    y = alt.Y("share:Q", title="share of values", scale=log(1e-6, 0.3), axis=powers(1e-6, 0.3))
    bars = histogram(numbers, least=1e-6).encode(x=x, y=y, y2=alt.Y2Datum(1e-6))
    rules = alt.Chart(alt.Data(values=ends)).mark_rule(strokeWidth=2).encode(x=x, color=scale)
    costs = [
        {"ratio": ratio, "error": error, "of": of}
        for of, key in (("rounding", "rounding"), ("saturation", "saturation"))
        for ratio, error in zip(numbers["ratios"], numbers[key], strict=True)
        if error > 1e-4
    ]
    both = [a + b for a, b in zip(numbers["rounding"], numbers["saturation"], strict=True)]
    costs += [{"ratio": a, "error": b, "of": "both"} for a, b in zip(numbers["ratios"], both, strict=True)]
    best = [{"ratio": numbers["ratios"][int(np.argmin(both))], "error": min(both)}]
    across = alt.X("ratio:Q", title="range, of what was seen", axis=alt.Axis(format="%"), scale=span(0.3, 1.0))
    along = alt.Y("error:Q", title="mean squared error", scale=log(1e-4, 0.4), axis=powers(1e-4, 0.4))
    order = ["rounding", "saturation", "both"]
    lines = (
        alt.Chart(alt.Data(values=costs))
        .mark_line(strokeWidth=2, clip=True)
        .encode(x=across, y=along, color=colours(order, [SOFT, GREEN, BLUE]))
    )
    mark = alt.Chart(alt.Data(values=best)).mark_circle(size=90, color=BLUE, opacity=1).encode(x=across, y=along)
    half = {"width": 255, "height": 220}
    return alt.hconcat(
        alt.layer(bars, rules).properties(**half), alt.layer(lines, mark).properties(**half), spacing=36
    ).resolve_scale(color="independent")


def compensate(numbers: Numbers) -> Chart:
    """Draw the integers around two weights, and the outputs' error as ellipses through both roundings."""
    exact, hessian = np.array(numbers["weight"]), np.array(numbers["hessian"]).reshape(2, 2)
    names = {"nearest": "to nearest: ", "compensated": "compensated: "}
    labels = [f"{words}error {lost:.2g}" for words, lost in zip(names.values(), numbers["lost"], strict=True)]
    rings = [
        {"a": float(a), "b": float(b), "step": step, "of": label}
        for label, lost in zip(labels, numbers["lost"], strict=True)
        for step, (a, b) in enumerate(_ellipse(exact, hessian, lost))
    ]
    points = [
        {"a": float(a), "b": float(b), "of": of}
        for of, (a, b) in zip((*labels, "float"), (numbers["nearest"], numbers["compensated"], exact), strict=True)
    ]
    grid = [{"a": a, "b": b} for a in range(-1, 5) for b in range(5)]
    x = alt.X("a:Q", title="first weight, in steps", scale=span(-0.6, 3.6), axis=alt.Axis(values=[0, 1, 2, 3]))
    y = alt.Y("b:Q", title="second weight, in steps", scale=span(0.4, 4.1), axis=alt.Axis(values=[1, 2, 3, 4]))
    colour = colours(["float", *labels], [INK, ORANGE, BLUE])
    lines = alt.Chart(alt.Data(values=rings)).mark_line(clip=True, strokeWidth=1.75)
    path = [{"a": a, "b": b, "step": step} for step, (a, b) in enumerate(numbers["path"])]
    way = alt.Chart(alt.Data(values=path)).mark_line(strokeWidth=1.5, strokeDash=[4, 3], color=INK)
    return alt.layer(
        alt.Chart(alt.Data(values=grid)).mark_circle(size=26, color=FAINT, opacity=1, clip=True).encode(x=x, y=y),
        lines.encode(x=x, y=y, color=colour, order="step:Q", detail="of:N"),
        way.encode(x=x, y=y, order="step:Q"),
        alt.Chart(alt.Data(values=points)).mark_circle(size=130, opacity=1).encode(x=x, y=y, color=colour),
    ).properties(width=380, height=335)


def groups(numbers: Numbers) -> Chart:
    """Draw a row of weights, and the range of its codes with one scale and with one for each group."""
    row, most = numbers["row"], 7.0
    weights = [
        {"place": place + 0.5, "weight": value, "step": 3 * place + step}
        for place, weight in enumerate(row)
        for step, value in enumerate((0.0, weight, 0.0))
    ]
    labels = [
        f"{words}: error {error:.1%}"
        for words, error in zip(("a scale for the row", "a scale for each 32"), numbers["errors"], strict=True)
    ]
    ends = [
        {"place": place * shown.GROUP, "edge": sign * most * scale, "of": label, "side": sign}
        for label, key in zip(labels, ("of row", "of groups"), strict=True)
        for sign in (-1, 1)
        for place, scale in [*enumerate(numbers[key]), (len(numbers[key]), numbers[key][-1])]
    ]
    x = alt.X(
        "place:Q", title="place in the row", scale=span(0, len(row)), axis=alt.Axis(values=list(range(0, 385, 64)))
    )
    y = alt.Y("edge:Q", title="weight", scale=span(-0.85, 0.85))
    needles = alt.Chart(alt.Data(values=weights)).mark_line(strokeWidth=1, color=SOFT)
    lines = alt.Chart(alt.Data(values=ends)).mark_line(interpolate="step-after", strokeWidth=1.75)
    return alt.layer(
        needles.encode(x=x, y=alt.Y("weight:Q", title="weight"), order="step:Q"),
        lines.encode(x=x, y=y, color=colours(labels, [ORANGE, BLUE]), detail="side:N"),
    ).properties(width=WIDTH, height=HEIGHT)


def palettes(numbers: Numbers) -> Chart:
    """Draw a weight's histogram, and below it the values that 4 bits stand for, evenly spaced and in a palette."""
    words = {"even": "15 even steps", "palette": "palette of 16"}
    labels = {
        key: f"{text}: error {error:.1%}" for (key, text), error in zip(words.items(), numbers["errors"], strict=True)
    }
    return codes(numbers, labels)


def joins(numbers: Numbers) -> Chart:
    """Draw what scores up to 1 become on three scales."""
    labels = {"640": "scale shared with boxes to 640", "100": "shared with boxes to 100", "1": "scale of their own"}
    rows = [
        {"score": score, "as": value, "of": labels[most]}
        for most, found in numbers["as"].items()
        for score, value in zip(numbers["scores"], found, strict=True)
    ]
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=2, interpolate="step")
        .encode(
            x=alt.X("score:Q", title="score in float", scale=span(0, 1)),
            y=alt.Y("as:Q", title="score in 8 bits", scale=span(-0.03, 1.25)),
            color=colours(list(labels.values()), [ORANGE, GREEN, BLUE]),
        )
        .properties(width=400, height=HEIGHT)
    )


def water(numbers: Numbers) -> Chart:
    """Draw the bits of a weight of each layer by how much its coarser steps lose: by one factor, and filled."""
    even, filled = (
        f"{words}: forecast error {math.sqrt(loss):.2f}"
        for words, loss in zip(("all steps x5", "by water-filling"), numbers["loss"], strict=True)
    )
    rows = [
        {
            "loss": one["losses"][PROBED] / one["weights"],
            "weights": one["weights"] / 1000,
            "bits": one["bits"][place],
            "of": of,
        }
        for key, one in numbers["layers"].items()
        for of, place in ((even, numbers["even"]), (filled, numbers["taken"][key]))
    ]
    sizes = alt.Legend(values=[10, 100, 1000], symbolStrokeColor=SOFT, symbolFillColor="transparent")
    weights = alt.Size("weights:Q", title="thousand weights", scale=alt.Scale(range=[14, 700]), legend=sizes)
    return (
        alt.Chart(alt.Data(values=rows))
        .mark_point(strokeWidth=1.75, opacity=1, filled=False)
        .encode(
            x=alt.X(
                "loss:Q", title="loss with steps x8, for each weight", scale=log(1e-9, 3e-3), axis=powers(1e-9, 3e-3)
            ),
            y=alt.Y("bits:Q", title="bits of a weight as a download", scale=span(3, 10.5)),
            size=weights,
            color=colours([even, filled], [ORANGE, BLUE]),
        )
        .properties(width=WIDTH - 110, height=HEIGHT + 40)
    )


def _ellipse(centre: np.ndarray, hessian: np.ndarray, lost: float, steps: int = 96) -> np.ndarray:
    """Return points around a centre at which e^T H e is ``lost``, float64 [steps + 1, 2]."""
    angles = np.linspace(0.0, 2.0 * np.pi, steps + 1)
    factor = np.linalg.inv(np.linalg.cholesky(hessian)).T
    return np.round(centre + math.sqrt(lost) * np.stack([np.cos(angles), np.sin(angles)], 1) @ factor.T, 4)


PICTURES = {
    "equalize": Picture(
        shown.equalized,
        equalize,
        "Ranges of channels, before and after equalizing",
        "Largest values of 48 channels, made up to lie between 0.5 and 660; after equalize they lie between 3 and 110.",
    ),
    "clip": Picture(
        shown.clipped,
        clip,
        "An activation of EfficientNet-Lite0: its range by minmax and by mse",
        "The histogram has long tails. Of narrower ranges, rounding costs less and saturation more; both together cost "
        "least at about 65 % of what was seen.",
    ),
    "compensate": Picture(
        shown.compensated_pair,
        compensate,
        "Two weights, rounded to nearest and so that the outputs stay near",
        "Lines of equal error of the outputs are long ellipses around the float weights: along them one weight makes "
        "up for the other. The nearest pair of integers lies on a large ellipse, another one on a small one.",
    ),
    "groups": Picture(
        shown.grouped,
        groups,
        "A row of 4-bit weights with one scale, and with a scale for each 32",
        "One large weight sets the scale of its whole row. With a scale for each group it sets that of its own 32.",
    ),
    "palettes": Picture(
        shown.palettes,
        palettes,
        "Values of 4 bits, evenly spaced and in a palette",
        "The values of a palette lie close together where many weights are, and further apart in the tails.",
    ),
    "joins": Picture(
        shown.joined,
        joins,
        "Scores that share a scale with boxes, and with a scale of their own",
        "With the scale of boxes to 640 pixels all scores are 0; with that of boxes to 100 four values are left.",
    ),
    "water": Picture(
        shown.filled,
        water,
        "Bits for each layer of EfficientNet-Lite0 by water-filling",
        "Layers whose coarser steps lose little for each weight get three to five bits, the others up to eight; at as "
        "many bytes one factor for all layers loses several times as much.",
    ),
    **ROUNDING,
}


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PICTURES, help="one picture; the others stay as they are")
    parser.add_argument("--again", action="store_true", help="with the numbers that the pictures hold")
    wish = parser.parse_args()
    for name in PICTURES if wish.only is None else (wish.only,):
        path, one = FOLDER / f"{name}.svg", PICTURES[name]
        path.write_text(one.svg(held(path) if wish.again else one.numbers()), encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e3:.1f} kB\n")


if __name__ == "__main__":
    main()
