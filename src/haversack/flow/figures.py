"""Figures of a candidate and of a forecast as words and as data: a number that was not measured is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from haversack.base.candidate import Candidate
from haversack.base.counted import counted
from haversack.base.finding import Finding
from haversack.choose.mixing import Forecast
from haversack.flow.choice import Choice
from haversack.report import wording


@dataclass(frozen=True)
class Figures:
    """Named figures.

    Attributes:
        words: name -> what a person reads.
        values: name -> number, string or None, for JSON.
    """

    words: Mapping[str, str] = field(hash=False)
    values: Mapping[str, float | str | None] = field(hash=False)

    def lines(self, mark: str = "") -> list[str]:
        """Return one line a figure, each marked with a word (``forecast``) when one is given."""
        return [f"{name}: {text}" + (f"  ({mark})" if mark else "") for name, text in self.words.items()]

    def data(self) -> dict[str, float | str | None]:
        """Return the values; what is not finite is None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self.values.items()
        }


def figures(candidate: Candidate, choice: Choice) -> Figures:
    """Return everything that was measured on a candidate's artefact."""
    words: dict[str, str] = {}
    values: dict[str, float | str | None] = {}
    artifact, latency, memory, parity = candidate.artifact, candidate.latency, candidate.memory, candidate.parity
    if artifact is not None:
        file = artifact.files[0]
        values |= {"path": file.path, "sha256": file.sha256}
        values |= {"size": artifact.bytes, "download": artifact.download_bytes}
        words["size"] = f"{wording.size(artifact.bytes)} ({wording.size(artifact.download_bytes)} as a download)"
        words["sha256"] = file.sha256
    if latency is not None:
        values |= {"latency_ratio": latency.ratio, "latency_ms": latency.median_ms}
        values |= {"latency_p95_ms": latency.p95_ms, "cold_ms": latency.cold_ms}
        words["latency"] = (
            f"{wording.ratio(latency.ratio)} of float (quartiles {wording.ratio(latency.ratio_low)} to "
            f"{wording.ratio(latency.ratio_high)}), median {wording.milliseconds(latency.median_ms)}, "
            f"p95 {wording.milliseconds(latency.p95_ms)}, cold {wording.milliseconds(latency.cold_ms)}"
        )
    if memory is not None:
        values["memory"] = memory.peak_bytes
        words["memory"] = f"{wording.size(memory.peak_bytes)} at the peak above the bare runtime"
    _quality(candidate, choice, words, values)
    if parity is not None:
        values |= {"agreement": parity.agreement, "relative_error": parity.relative_error}
        agreement = "" if math.isnan(parity.agreement) else f"agreement {wording.percent(parity.agreement)}, "
        words["against float"] = f"{agreement}relative error {wording.error(parity.relative_error)}"
        if parity.reference_differing >= 0:
            values["reference_differing"] = parity.reference_differing
            words["against the reference"] = (
                f"{parity.reference_differing} of {parity.reference_compared} output values differ"
            )
    if candidate.findings:
        words |= _findings(candidate)
        values["findings"] = "; ".join(f"{one.kind}: {one.text}" for one in candidate.findings)
    return Figures(words, values)


def _findings(candidate: Candidate) -> dict[str, str]:
    """Return one line a kind: its first finding, and how many more there are."""
    alike: dict[str, list[Finding]] = {}
    for finding in candidate.findings:
        alike.setdefault(finding.kind, []).append(finding)
    lines = {}
    for kind, (first, *others) in alike.items():
        place = f" at {first.layer}" if first.layer else ""
        more = f" (and {len(others)} more)" if others else ""
        lines[f"{first.severity} {kind}{place}"] = f"{first.text}{more}"
    return lines


def _quality(
    candidate: Candidate, choice: Choice, words: dict[str, str], values: dict[str, float | str | None]
) -> None:
    quality, drop = candidate.quality, candidate.drop
    if quality is not None:
        values["quality"] = quality.value
        value = wording.quality(quality.value, quality.unit)
        words["quality"] = f"{quality.metric} {value} on {counted(quality.samples, 'untouched sample')}"
    if drop is not None:
        earlier = choice.chosen_on.get(candidate.id, math.nan)
        values |= {"drop": drop.value, "drop_low": drop.low, "drop_high": drop.high, "drop_choosing": earlier}
        unit = quality.unit if quality is not None else ""
        bounds = wording.interval(drop.low, drop.high, unit)
        half = f"; {wording.points(earlier, unit)} on the half that chose" if math.isfinite(earlier) else ""
        words["drop"] = f"{wording.points(drop.value, unit)} (95 %: {bounds}{half})"


def forecast_figures(forecast: Forecast, within: Mapping[str, float]) -> Figures:
    """Return what the knapsack expects; a NaN, where it expects nothing, is left out of the words.

    Args:
        forecast: what is expected.
        within: name -> by which fraction the truth may be off it (``choose.mixing.margins``).
    """
    values = {
        "size": forecast.bytes,
        "download": forecast.download_bytes,
        "latency_ratio": forecast.latency_ratio,
        "latency_ms": forecast.latency_ms,
        "relative_error": forecast.relative_error,
    }
    ratio, milliseconds = forecast.latency_ratio, forecast.latency_ms
    latency = [f"{wording.ratio(ratio)} of float"] if math.isfinite(ratio) else []
    latency += [f"median {wording.milliseconds(milliseconds)}"] if math.isfinite(milliseconds) else []
    told = {
        "size": (wording.size(forecast.bytes), "size"),
        "download": (
            wording.size(forecast.download_bytes) if math.isfinite(forecast.download_bytes) else "",
            "download",
        ),
        "latency": (", ".join(latency), "latency_ratio" if math.isfinite(ratio) else "latency_ms"),
        "relative error": (
            wording.error(forecast.relative_error) if math.isfinite(forecast.relative_error) else "",
            "relative_error",
        ),
    }
    words = {name: f"{text}{_within(within[key])}" for name, (text, key) in told.items() if text}
    return Figures(words, {**values, **{f"{name}_margin": within[name] for name in values}})


def _within(margin: float) -> str:
    """Return a margin in words: what may be off by as much as itself is known to a factor, up and down."""
    return f" ± {100 * margin:.0f} %" if margin < 1.0 else f", within a factor of {1.0 + margin:.2g}"
