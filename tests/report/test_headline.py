"""The verdict in one sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack.base.budget import parse
from haversack.base.finding import Finding
from haversack.report import build, headline, text


def test_met(record):
    verdict = headline.of(record)
    assert verdict == headline.Headline("met", "Every budget is met on onnxruntime.")


def test_met_on_two_targets(many):
    kept = replace(many, budget=tuple(limit for limit in many.budget if limit.met))
    assert headline.of(kept).sentence == "Every budget is met on onnxruntime and litert."


def test_missed_says_by_how_much_on_each_target(many):
    verdict = headline.of(many)
    assert verdict.state == "missed"
    assert verdict.sentence == (
        "The budget is missed on onnxruntime: size 5.80 MB, allowed 5.20 MB; "
        "on litert: drop in quality 3.00 pt, allowed 1.00 pt."
    )


def test_a_miss_below_the_shown_digits_is_still_told(values):
    first = values["candidates"][0]
    file = replace(first.artifact.files[0], bytes=5_200_400)
    changed = replace(first, artifact=replace(first.artifact, files=(file,)))
    verdict = headline.of(build(**{**values, "candidates": (changed,)}))
    assert verdict.state == "missed"
    assert "size 5.20 MB, allowed 5.20 MB (400 B too much" in verdict.sentence


def test_a_missed_latency_is_told_as_measured_against_allowed(values):
    first = replace(values["candidates"][0], latency=replace(values["candidates"][0].latency, ratio=1.04))
    budget = parse("size=5MB,latency=0.05x")
    verdict = headline.of(build(**{**values, "candidates": (first,), "budget": budget}))
    assert verdict.sentence.startswith("The budget is missed on onnxruntime: size 5.02 MB, allowed 5.00 MB")
    assert verdict.sentence.endswith("; latency against float ×1.04, allowed ×0.05.")


def test_a_drop_that_one_half_alone_allows_is_missed_as_the_exit_code_says(record):
    reason = "nearest: drop is 1.20 pt, allowed is 1.00 pt (20.0% over)"
    first, *others = record.candidates
    told = replace(record, candidates=(replace(first, verdict="missed", reason=reason), *others))
    assert headline.of(told) == headline.Headline(
        "missed",
        "The budget is missed on onnxruntime: drop is 1.20 pt, allowed is 1.00 pt (20.0% over) on the samples that "
        "chose, though within it on the others.",
    )
    assert text.lines(told)[1].endswith("missed")
    assert text.lines(record)[1].endswith("met")


def test_not_measured_is_missed(values):
    first = replace(values["candidates"][0], memory=None)
    verdict = headline.of(build(**{**values, "candidates": (first,)}))
    assert verdict.state == "missed"
    assert verdict.sentence == "The budget is missed on onnxruntime: peak memory was not measured."


def test_no_artefact_is_failed(values):
    failed = values["candidates"][-1]
    verdict = headline.of(build(**{**values, "candidates": (failed,), "best": {}, "after": {}}))
    assert verdict == headline.Headline("failed", "No artefact for onnxruntime.")


def test_one_target_without_artefact_and_one_that_missed(hollow):
    verdict = headline.of(hollow)
    assert verdict.state == "failed"
    assert verdict.sentence.startswith("No artefact for litert; the budget is missed on onnxruntime: peak memory")


@pytest.mark.parametrize(("allowed", "state"), [((), "failed"), (("slower-than-float",), "met")])
def test_an_error_fails_unless_it_is_allowed(values, allowed, state):
    first = replace(values["candidates"][0], findings=(Finding("slower-than-float", "1.2 times the time of float"),))
    made = build(**{**values, "candidates": (first,), "allowed": allowed})
    verdict = headline.of(made)
    assert verdict.state == state
    assert ("The finding slower-than-float fails the run on onnxruntime" in verdict.sentence) == (state == "failed")
    assert len(headline.failing(made, "onnxruntime")) == (1 if state == "failed" else 0)


def test_several_kinds_are_listed(values):
    kinds = ("weight-changed", "scale-changed", "scale-changed", "not-exact")
    first = replace(values["candidates"][0], findings=tuple(Finding(kind, "planted") for kind in kinds))
    sentence = headline.of(build(**{**values, "candidates": (first,)})).sentence
    assert sentence == "The findings not-exact, scale-changed and weight-changed fail the run on onnxruntime."


def test_warnings_do_not_fail(record):
    assert {finding.severity for finding in record.candidates[0].findings} == {"warning", "note"}
    assert headline.failing(record, "onnxruntime") == ()
    assert headline.failing(record, "nowhere") == ()


def test_no_budget(record):
    assert headline.of(replace(record, budget=())) == headline.Headline(
        "met", "No budget was set; measured on onnxruntime."
    )


def test_nothing_made(record):
    verdict = headline.of(replace(record, candidates=(), best={}, budget=()))
    assert verdict == headline.Headline("failed", "Nothing was made.")


def test_a_missed_size_says_what_the_bytes_are(many):
    best = many.best_of("onnxruntime")
    stored = replace(best.after or many.model, weight_bytes=4_700_000)
    kept = tuple(replace(one, after=stored) if one.id == best.id else one for one in many.candidates)
    sentence = headline.of(replace(many, candidates=kept)).sentence
    assert "size 5.80 MB, allowed 5.20 MB (4.70 MB are weights, 1.10 MB structure and scales)" in sentence
