"""Figures as words and as data: what was not measured is left out, and is null, never a number."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from haversack.base.candidate import Artifact, ArtifactFile, Candidate, Latency, Memory, Parity
from haversack.base.finding import Finding
from haversack.base.graph import Graph
from haversack.base.plan import Plan
from haversack.base.profile import Profile
from haversack.base.quality import Drop, Quality
from haversack.choose.mixing import MARGINS, Forecast
from haversack.flow.choice import Choice
from haversack.flow.figures import figures, forecast_figures

FULL = Candidate(
    Plan("one"),
    Artifact("one", (ArtifactFile("m.onnx", 1_500_000, 1_000_000, "ab" * 32),), (), (), "1"),
    Quality("top1", 0.9, "fraction", "higher", 100, 0.03),
    Drop(0.01, -0.02, 0.04, 100),
    Parity(0.98, 0.05, 3, 640),
    Latency(0.5, 2.0, 3.0, 40.0, 0.6, 0.45, 0.55, 4.0, 100),
    Memory(7_000_000),
    (Finding("noisy", "it was"),),
)
EMPTY = Choice(1, "job.py", "", Graph((), (), ()), Profile(), {}, (), {FULL.id: 0.02})
NOTHING = replace(FULL, artifact=None, quality=None, drop=None, parity=None, latency=None, memory=None, findings=())


def test_everything_measured_is_told():
    text = "\n".join(figures(FULL, EMPTY).lines())
    for words in (
        "size: 1.50 MB (1.00 MB as a download)", "\u00d70.50 of float (quartiles \u00d70.45 to \u00d70.55)",
        "median 2.00 ms",
        "p95 3.00 ms", "cold 40.0 ms", "memory: 7.00 MB", "top1 90.0 % on 100 untouched samples",
        "drop: 1.00 pt (95 %: \u22122.00 to 4.00 pt; 2.00 pt on the half that chose)", "agreement 98.0 %",
        "relative error 0.0500", "3 of 640 output values differ", "noisy: it was",
    ):  # fmt: skip
        assert words in text
    data = figures(FULL, EMPTY).data()
    assert (data["size"], data["latency_ratio"], data["drop"], data["memory"]) == (1_500_000, 0.5, 0.01, 7_000_000)


def test_findings_of_one_kind_are_one_line():
    dead = [Finding("dead-channel", f"{count} channels", f"layer.{count}:conv2d#0") for count in range(27)]
    one = replace(FULL, findings=(*dead[:20], Finding("not-exact", "3 bits differ"), *dead[20:]))
    lines = figures(one, EMPTY).lines()[-2:]
    assert lines == [
        "warning dead-channel at layer.0:conv2d#0: 0 channels (and 26 more)",
        "error not-exact: 3 bits differ",
    ]
    assert figures(one, EMPTY).data()["findings"].count("dead-channel") == 27


def test_nothing_measured_is_nothing_told():
    assert figures(NOTHING, EMPTY).lines() == []
    assert figures(NOTHING, EMPTY).data() == {}


def test_what_could_not_be_compared_is_not_told():
    one = replace(FULL, parity=Parity(math.nan, 0.05))
    text = "\n".join(figures(one, EMPTY).lines())
    assert "agreement" not in text
    assert "reference" not in text
    assert figures(one, EMPTY).data()["agreement"] is None


def test_the_half_that_chose_is_unknown_for_another_candidate():
    other = replace(FULL, plan=Plan("two"))
    assert figures(other, EMPTY).data()["drop_choosing"] is None


@pytest.mark.parametrize("milliseconds", [1.5, math.nan])
def test_a_forecast_is_marked_line_by_line(milliseconds):
    found = forecast_figures(Forecast(1e6, 0.5, 0.1, 8e5, milliseconds), MARGINS)
    lines = found.lines("forecast")
    assert all(line.endswith("(forecast)") for line in lines)
    assert [line.partition(":")[0] for line in lines] == ["size", "download", "latency", "relative error"]
    median = "" if math.isnan(milliseconds) else ", median 1.50 ms"
    assert f"latency: ×0.50 of float{median} ± 15 %  (forecast)" in lines
    assert (found.data()["latency_ms"] is None) == math.isnan(milliseconds)
    assert "size: 1.00 MB ± 2 %  (forecast)" in lines
    assert found.data()["size_margin"] == 0.02
    assert lines[-1].endswith(", within a factor of 2  (forecast)"), "twice as much, or half: never nothing"


@pytest.mark.parametrize(("margin", "words"), [(0.996, "± 100 %"), (1.0, ", within a factor of 2"), (2.54, "of 3.5")])
def test_a_margin_of_all_and_more_is_a_factor(margin, words):
    found = forecast_figures(Forecast(1e6, 0.5, 0.1, 8e5, 1.0), {**MARGINS, "relative_error": margin})
    assert words in found.lines()[-1]
