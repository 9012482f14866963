"""Another budget for a run whose files were deleted or damaged: what was measured of them leads to the plan again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from finished import smallest

from haversack.base.finding import Finding
from haversack.base.plan import Step
from haversack.flow import choice
from haversack.flow.lost import GONE, answers, there
from haversack.flow.request import read_plan
from haversack.flow.resolve import resolve


def spoil(run, one, how="missing") -> None:
    path = run / one.artifact.files[0].path
    path.unlink() if how == "missing" else path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_what_was_measured_and_met_it_is_made_again_by_its_plan(searched, tmp_path, how):
    small = smallest(searched)
    spoil(searched, small, how)
    answer = resolve(searched, f"size={small.artifact.bytes}B")
    assert answer.exit_code == 3
    assert answer.plan == small.plan
    text = "\n".join(answer.lines())
    assert f"measured, and met it: {searched / small.artifact.files[0].path} ({small.id}), but {GONE}" in text
    assert "loosen the limit" not in text
    assert "write the plan: haversack resolve" in text
    answer.write(tmp_path / "plan.toml")
    assert read_plan(tmp_path / "plan.toml") == small.plan
    assert answer.lines(tmp_path / "plan.toml")[-1].startswith("next: haversack pack ")
    target = answer.data()["targets"]["onnxruntime"]
    assert (target["met"], target["forecast"], target["plan"]["target"]) == (False, None, "onnxruntime")


def test_what_is_gone_is_forecast_from(searched):
    found = choice.read(searched)
    (base,) = (one for one in found.candidates if one.artifact and all_int8(one))
    choice.write(replace(found, candidates=(replace(base, drop=replace(base.drop, value=0.5)),)), searched)
    before = resolve(searched, "size=12KB,drop=1pt")
    spoil(searched, base)
    after = resolve(searched, "size=12KB,drop=1pt")
    assert before.plan is not None
    assert after.plan == before.plan
    assert after.found["onnxruntime"].forecast == before.found["onnxruntime"].forecast
    assert after.found["onnxruntime"].candidates[0].reason == GONE


def all_int8(one) -> bool:
    return len(one.plan.layers) == 3 and {layer.precision for layer in one.plan.layers.values()} == {"int8"}


def test_what_the_user_allowed_of_it_is_allowed_again(searched):
    small, found = smallest(searched), choice.read(searched)
    told = (Finding("slower-than-float", "it is"),)
    kept = tuple(replace(one, findings=told) if one.id == small.id else one for one in found.candidates)
    choice.write(replace(found, candidates=kept), searched)
    spoil(searched, small)
    assert "--allow slower-than-float" in resolve(searched, f"size={small.artifact.bytes}B").data()["next"]


def test_files_that_are_there_answer_before_those_that_are_gone(searched):
    small, found = smallest(searched), choice.read(searched)
    (searched / "other.onnx").write_bytes((searched / small.artifact.files[0].path).read_bytes())
    files = (replace(small.artifact.files[0], path="other.onnx"),)
    plan, artifact = replace(small.plan, ranges=Step("percentile")), replace(small.artifact, files=files)
    choice.write(replace(found, candidates=(*found.candidates, replace(small, plan=plan, artifact=artifact))), searched)
    spoil(searched, small)
    answer = resolve(searched, "size=1MB")
    assert answer.exit_code == 0
    assert answer.plan is None
    assert there(small, searched).verdict == "failed"


def test_with_every_file_there_both_answers_are_one(searched):
    from haversack.base.budget import parse
    from haversack.choose.mixing import Mixer

    found = choice.read(searched)
    mixer = Mixer(found.graph, found.profile, found.weight_elements, {"onnxruntime": ("int8",)})
    told = answers(found.severe(), searched, parse("size=1MB"), mixer)
    assert told.found is told.measured
    assert told.found["onnxruntime"].met
