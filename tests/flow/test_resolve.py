"""Another budget, held against what a run has measured; forecast where nothing measured fits; without torch."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from finished import smallest

from haversack.base.budget import parse
from haversack.base.errors import EnvironmentFault, UsageError
from haversack.base.finding import Finding
from haversack.base.plan import LayerPlan
from haversack.base.quality import Drop
from haversack.flow import choice
from haversack.flow.lost import GONE
from haversack.flow.request import read_plan
from haversack.flow.resolve import resolve
from haversack.flow.settings import parsed


def changed(run, change) -> None:
    """Write the run's choice with candidates changed."""
    found = choice.read(run)
    choice.write(replace(found, candidates=tuple(map(change, found.candidates))), run)


def test_a_measured_file_that_meets_it(packed):
    small = smallest(packed.out)
    answer = resolve(packed.out, f"size={small.artifact.bytes}B")
    assert answer.exit_code == 0
    assert answer.plan is None
    text = "\n".join(answer.lines())
    assert small.artifact.files[0].path in text
    assert small.artifact.files[0].sha256 in text
    assert "forecast" not in text


def test_a_limit_one_byte_below_the_smallest_is_missed(packed):
    answer = resolve(packed.out, f"size={smallest(packed.out).artifact.bytes - 1}B")
    assert answer.exit_code == 3
    text = "\n".join(answer.lines())
    assert "no measured artefact meets" in text
    assert "nearest measured:" in text
    assert "nearest: " not in text


def test_a_budget_must_hold_on_both_halves(searched):
    small = smallest(searched)
    budget = f"size={small.artifact.bytes}B,drop=5pt"
    assert resolve(searched, budget).exit_code == 0
    found = choice.read(searched)
    choice.write(replace(found, chosen_on={**found.chosen_on, small.id: 0.2}), searched)
    assert resolve(searched, budget).exit_code == 3
    choice.write(found, searched)
    changed(searched, lambda one: one if one.id != small.id else replace(one, drop=replace(one.drop, value=0.2)))
    assert resolve(searched, budget).exit_code == 3


def test_figures_told_are_those_of_the_untouched_half(searched):
    found = choice.read(searched)
    choice.write(replace(found, chosen_on=dict.fromkeys(found.chosen_on, 0.01)), searched)
    data = resolve(searched, "size=1MB,drop=50pt").data()
    measured = data["targets"]["onnxruntime"]["measured"]
    known = next(one for one in found.candidates if one.id == measured["id"])
    assert measured["drop"] == known.drop.value
    assert measured["drop_choosing"] == 0.01


@pytest.mark.parametrize("how", ["missing", "changed"])
def test_a_file_that_is_not_the_measured_one_does_not_count(searched, how):
    small = smallest(searched)
    path = searched / small.artifact.files[0].path
    path.unlink() if how == "missing" else path.write_bytes(path.read_bytes() + b"\0")
    answer = resolve(searched, f"size={small.artifact.bytes}B")
    assert answer.exit_code == 3
    assert any(one.reason == GONE for one in answer.found["onnxruntime"].candidates)


def only(run, precision: str) -> None:
    """Leave one uniform candidate with all layers in this precision."""
    found = choice.read(run)

    def is_it(one) -> bool:
        return one.artifact is not None and {layer.precision for layer in one.plan.layers.values()} == {precision}

    kept = [one for one in found.candidates if is_it(one) and len(one.plan.layers) == 3]
    choice.write(replace(found, candidates=tuple(kept[:1])), run)


@pytest.fixture
def forecast(searched):
    """A run whose one candidate, small, misses the drop: the knapsack must give some layers back to float."""
    only(searched, "int8")
    changed(searched, lambda one: replace(one, drop=replace(one.drop, value=0.5)))
    return searched


def test_a_forecast_says_that_it_is_one(forecast):
    answer = resolve(forecast, "size=12KB,drop=1pt")
    assert answer.exit_code == 3
    assert answer.plan is not None
    lines = answer.lines()
    text = "\n".join(lines)
    assert "a forecast: nothing of it was made or measured" in text
    assert sum("(forecast)" in line for line in lines) >= 3
    assert "drop: not forecast" in text
    assert any(" -> " in line for line in lines), "which layers differ from the measured plan"


def test_the_forecast_plan_is_written_and_read_back(forecast, tmp_path):
    answer = resolve(forecast, "size=12KB,drop=1pt")
    path = tmp_path / "plan.toml"
    answer.write(path)
    assert read_plan(path) == answer.plan
    assert f"--plan {path}" in answer.next_command(path)
    assert "haversack pack" in "\n".join(answer.lines(path))
    assert "write the plan: haversack resolve" in "\n".join(answer.lines())


def test_the_forecast_as_data_is_json(forecast):
    data = json.loads(json.dumps(resolve(forecast, "size=12KB,drop=1pt").data(), allow_nan=False))
    target = data["targets"]["onnxruntime"]
    assert target["met"] is False
    assert target["forecast"]["size"] <= 12_000
    assert target["plan"]["target"] == "onnxruntime"
    assert data["next"].startswith("haversack pack")


def test_a_limit_of_the_run_that_is_left_out_is_told(searched):
    found = choice.read(searched)
    assert found.budget.limits(), "the run had limits"
    choice.write(replace(found, budget=parse("size=1MB,latency=2x,drop=1pt")), searched)
    answer = resolve(searched, "size=1MB")
    assert "not limited by this budget, though the run was: latency_ratio, drop" in answer.lines()
    assert answer.data()["not_limited"] == ["latency_ratio", "drop"]
    assert not any("not limited by" in line for line in resolve(searched, "size=9MB,latency=1x,drop=2pt").lines())


def test_where_nothing_meets_it_there_is_nothing_to_write(searched, tmp_path):
    choice.write(replace(choice.read(searched), candidates=()), searched)
    with pytest.raises(UsageError, match="no plan to write"):
        resolve(searched, "size=1MB").write(tmp_path / "plan.toml")
    assert not (tmp_path / "plan.toml").exists()


def moved(run) -> None:
    """Leave one candidate, as one that was measured and does not ship."""
    only(run, "int8")
    folder = run / ".haversack" / "elsewhere"
    folder.mkdir()
    (one,) = choice.read(run).candidates
    file = one.artifact.files[0]
    (folder / "model.onnx").write_bytes((run / file.path).read_bytes())
    files = (replace(file, path=".haversack/elsewhere/model.onnx"),)
    changed(run, lambda one: replace(one, artifact=replace(one.artifact, files=files)))


def test_the_plan_of_a_measured_file_is_written_and_the_command_ships_it(searched, tmp_path):
    moved(searched)
    (one,) = choice.read(searched).candidates
    answer = resolve(searched, "size=1MB")
    assert "write the plan: haversack resolve" in "\n".join(answer.lines())
    answer.write(tmp_path / "plan.toml")
    assert read_plan(tmp_path / "plan.toml") == one.plan
    assert answer.plan is None
    last = answer.lines(tmp_path / "plan.toml")[-1]
    assert last.startswith(f"next: haversack pack {choice.read(searched).job} --plan {tmp_path / 'plan.toml'} ")
    assert last.endswith(f"--out {searched}-again    makes it what ships")
    assert f"{searched}/.haversack/elsewhere/model.onnx" in answer.lines()[0]


def test_the_next_command_finds_the_job_from_wherever_it_is_typed(forecast, tmp_path, monkeypatch):
    whole = choice.source_of(forecast)
    choice.write(replace(choice.read(forecast), job=Path(whole).name), forecast)

    def named():
        return shlex.split(resolve(forecast, "size=12KB,drop=1pt").lines()[-1].partition("next: ")[2])[2]

    monkeypatch.chdir(tmp_path)
    assert named() == whole
    monkeypatch.chdir(Path(whole).parent)
    assert named() == Path(whole).name


def test_what_ships_already_needs_no_plan(searched):
    ships = next(one for one in choice.read(searched).candidates if one.artifact.files[0].path.startswith("best/"))
    changed(searched, lambda one: ships)
    answer = resolve(searched, "size=1MB")
    assert not any(line.startswith(("write", "next")) for line in answer.lines())
    assert answer.data()["next"] == ""


def refused(run, kind="slower-than-float"):
    """Leave one candidate that failed for a finding."""
    only(run, "int8")
    told = (Finding(kind, "it is"), Finding("dead-channel", "one"))
    changed(run, lambda one: replace(one, verdict="failed", reason=f"{kind}: it is", findings=told))


def test_a_file_that_failed_for_a_finding_says_what_allows_it(searched):
    refused(searched)
    text = "\n".join(resolve(searched, "size=1MB").lines())
    assert "within the limits, but failed for slower-than-float: " in text
    assert "pack --allow slower-than-float" in text
    assert "loosen the limit" not in text
    command = resolve(searched, "size=1MB").data()["next"]
    assert command.endswith(f"--target onnxruntime --allow slower-than-float --out {searched}-again")


def with_settings(run):
    found = choice.read(run)
    choice.write(replace(found, settings={"onnxruntime": {"file": "small.onnx"}}), run)


def test_commands_keep_the_settings_of_the_target(searched, tmp_path):
    with_settings(searched)
    moved(searched)
    made = shlex.split(resolve(searched, "size=1MB").next_command(tmp_path / "plan.toml"))
    typed = made[made.index("--target") + 1]
    assert parsed(typed) == ("onnxruntime", {"file": "small.onnx"})
    refused(searched)
    words = shlex.split(resolve(searched, "size=1MB").data()["next"])
    assert words[words.index("--target") + 1] == typed


def test_what_a_run_chose_by_is_read_without_settings_too(searched):
    with_settings(searched)
    path = searched / ".haversack" / choice.NAME
    data = json.loads(path.read_text())
    assert data.pop("settings") == {"onnxruntime": {"file": "small.onnx"}}
    path.write_text(json.dumps(data))
    assert choice.read(searched).settings == {}
    assert "--target" not in resolve(searched, "size=1MB").next_command()


def test_a_file_that_failed_and_misses_too_is_not_offered(searched):
    refused(searched)
    text = "\n".join(resolve(searched, "size=1KB").lines())
    assert "--allow" not in text
    assert "loosen the limit" in text


def test_a_plan_that_was_not_made_for_the_old_limits_is_offered(searched, tmp_path):
    refused(searched)
    found = choice.read(searched)
    (one,) = found.candidates
    layers = {key: LayerPlan("float16") for key in one.plan.layers}
    plan = replace(one.plan, layers=layers, prepare=(), origin="float16 weights")
    unmade = replace(
        one, plan=plan, artifact=None, latency=None, parity=None, drop=None, quality=None, findings=(),
        verdict="missed", reason="not made: too large", memory=None,
    )  # fmt: skip
    choice.write(replace(found, candidates=(one, unmade)), searched)
    answer = resolve(searched, "size=30KB")
    assert answer.plan == plan
    text = "\n".join(answer.lines())
    assert "float16 weights: a plan of the run that was not made for its own limits" in text
    answer.write(tmp_path / "plan.toml")
    assert read_plan(tmp_path / "plan.toml") == plan


def test_what_is_established_is_of_the_budget_that_is_asked_for(searched):
    def spread_out(one):
        told = (Finding("not-established", "of another budget"),)
        return one if one.drop is None else replace(one, drop=Drop(0.0, -0.1, 0.1, 64), findings=told)

    found = choice.read(searched)
    choice.write(replace(found, chosen_on={}), searched)
    changed(searched, spread_out)
    assert "not-established" not in "\n".join(resolve(searched, "size=1MB").lines())
    text = "\n".join(resolve(searched, "size=1MB,drop=5pt").lines())
    assert "64 samples do not establish that it is within 5.00 pt" in text
    assert "of another budget" not in text


def test_a_plan_that_cannot_be_written(forecast, tmp_path):
    with pytest.raises(EnvironmentFault, match="write the plan|No such file"):
        resolve(forecast, "size=12KB,drop=1pt").write(tmp_path / "nowhere" / "plan.toml")


@pytest.mark.parametrize("budget, said", [("", "limits nothing"), ("sise=1MB", "did you mean size")])
def test_a_budget_that_cannot_be_read(packed, budget, said):
    with pytest.raises(UsageError, match=said):
        resolve(packed.out, budget)


def test_a_folder_that_is_not_there_or_not_ours(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        resolve(tmp_path / "nowhere", "size=1MB")
    with pytest.raises(UsageError, match="no run of haversack"):
        resolve(tmp_path, "size=1MB")


def test_a_run_that_is_not_finished(searched):
    (searched / ".haversack" / "choice.json").unlink()
    with pytest.raises(UsageError, match="not finished") as caught:
        resolve(searched, "size=1MB")
    assert "tiny_job.py" in caught.value.next_step
    assert str(searched) in caught.value.next_step


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "cannot be read"),
        ("[]", "no object"),
        ('{"format": 7}', "format 7"),
        ('{"format": 1, "job": 3, "grpah": {}}', "did you mean graph"),
    ],
)
def test_a_file_that_was_spoiled(searched, text, said):
    (searched / ".haversack" / "choice.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve(searched, "size=1MB")
    assert said in str(caught.value)
    assert "choice.json" in str(caught.value)


def test_a_spoiled_marker(searched):
    (searched / ".haversack" / "job.json").write_text("no json")
    with pytest.raises(UsageError, match="job.json"):
        resolve(searched, "size=1MB")


def test_what_is_kept_reads_back_as_it_was_written(packed, tmp_path):
    found = choice.read(packed.out)
    (tmp_path / ".haversack").mkdir()
    (tmp_path / ".haversack" / "job.json").write_text('{"source": "job.py"}')
    choice.write(found, tmp_path)
    again = choice.read(tmp_path)
    assert choice.unstructure(again) == choice.unstructure(found)
    assert [one.plan for one in again.candidates] == [one.plan for one in found.candidates]


def test_the_graph_that_is_kept_says_what_flows_where_and_no_more(packed):
    found = choice.read(packed.out)
    layers = [node for node in found.graph.nodes if node.weight]
    assert [node.op for node in layers] == ["conv2d", "conv2d", "linear"]
    assert {node.key for node in layers} == set(found.weight_elements)
    assert all(not node.attributes and not node.parameters for node in found.graph.nodes)
    assert found.weight_elements[layers[1].key] == 16 * 32 * 9
    assert set(found.profile.sensitivity) == set(found.weight_elements)


def test_severe_takes_the_worse_half(packed):
    found = choice.read(packed.out)
    one = next(one for one in found.candidates if one.drop is not None)
    worse = replace(found, candidates=(one,), chosen_on={one.id: one.drop.value + 0.1})
    better = replace(found, candidates=(one,), chosen_on={one.id: one.drop.value - 0.1})
    assert worse.severe()[0].drop.value == pytest.approx(one.drop.value + 0.1)
    assert better.severe()[0].drop.value == one.drop.value
    gained = replace(one, drop=replace(one.drop, value=-3.5))  # a perplexity may fall by more than 1
    assert replace(found, candidates=(gained,), chosen_on={}).severe() == [gained]
    unscored = replace(one, drop=None)
    assert replace(found, candidates=(unscored,)).severe() == [unscored]


def test_a_layer_plan_of_the_run_is_one_of_the_words_we_know(packed):
    precisions = {layer.precision for one in choice.read(packed.out).candidates for layer in one.plan.layers.values()}
    assert precisions <= {"int8", "int8_weights", "float16", "int8_dynamic"}
    assert LayerPlan().precision in precisions


def test_a_run_without_candidates_meets_nothing(searched):
    choice.write(replace(choice.read(searched), candidates=()), searched)
    answer = resolve(searched, "size=1MB")
    assert answer.exit_code == 3
    assert answer.lines()
