"""On degraded inputs: one network that loses more there when it is compressed, through the real command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from haversack import metrics, report
from haversack.base.candidate import Artifact, ArtifactFile, Candidate
from haversack.base.errors import JobError
from haversack.base.graph import TensorSpec
from haversack.base.job import Job
from haversack.base.model import Port
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.cli import main
from haversack.flow import data as data_module
from haversack.flow import degradations, robustness
from haversack.flow.data import Data
from haversack.flow.request import write_plan
from haversack.flow.robustness import Half, Scores, compared, told
from haversack.metrics import from_callable

JOB = Path(__file__).with_name("scaled_job.py")
LAYERS = {"0:conv2d#0": LayerPlan(), "3:linear#0": LayerPlan()}
PLAN = Plan("onnxruntime", LAYERS, (Step("fold_norm"),), Step("mse"), ("onnxruntime",))


def pack(folder, *more):
    """Pack the job with its one plan into a folder; return the exit code, the record, and the events of this call."""
    events = folder / "run" / "events.jsonl"
    before = len(events.read_text().splitlines()) if events.exists() else 0
    words = ["--budget", "drop=20pt", "--allow", "slower-than-float", "--out", str(folder / "run")]
    source = [] if more and more[0].endswith(".toml") else [str(JOB), "--plan", str(folder / "plan.toml")]
    code = main(["pack", *source, *more, *words])
    found = [json.loads(line) for line in events.read_text().splitlines()[before:]]
    return code, report.read(folder / "run"), found


def of_kind(events, kind):
    return [one["text"] for one in events if one["kind"] == kind]


SCORINGS = [
    f"{who} on {what}" for what in ("scale(factor=8.0)", "noise(level=0.001)") for who in ("float", "onnxruntime")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("robust")
    write_plan(PLAN, made / "plan.toml")
    return made


@pytest.fixture(scope="module")
def run(folder):
    return pack(folder)


def test_what_loses_more_on_degraded_inputs_is_told_and_fails_nothing(run):
    code, record, _ = run
    assert code == 0
    worse, sound = record.degraded
    assert (worse.target, worse.degradation, worse.samples) == ("onnxruntime", "scale(factor=8.0)", 128)
    assert worse.less_robust
    assert worse.excess_low > 0
    assert worse.excess == pytest.approx(worse.drop - worse.clean_drop)
    assert worse.drop_low < worse.drop < worse.drop_high
    assert worse.float_change == 0
    assert worse.change < -0.1
    assert not sound.less_robust
    assert sound.excess_low < 0 < sound.excess_high
    best = record.best_of("onnxruntime")
    assert worse.clean_value == pytest.approx(best.quality.value)
    assert worse.clean_drop == pytest.approx(best.quality.drop)
    assert worse.float_clean_value == pytest.approx(record.baseline.value)
    (finding,) = [one for one in best.findings if one.kind == "less-robust"]
    assert finding.severity == "warning"
    assert finding.text.startswith("on scale(factor=8.0) it loses ")
    assert finding.text.endswith(f" where it loses {100 * best.quality.drop:.2f} pt on clean inputs")


def test_terminal_and_page_tell_both_losses(run, folder):
    _, record, _ = run
    (line,) = [one for one in report.lines(record) if "degraded inputs" in one]
    assert line.startswith("onnxruntime: degraded inputs: scale(factor=8.0) −")
    assert "(float 0.00 pt), noise(level=0.001) " in line
    page = (folder / "run" / "report.html").read_text()
    assert "On degraded inputs" in page
    assert page.count("less robust") == 1


def test_samples_are_counted_through_all_of_them(run):
    _, _, events = run
    counts = [(one["done"], one["total"]) for one in events if one["text"] == "samples on degraded inputs"]
    assert counts == [(done, 512) for done in range(32, 513, 32)]


def test_a_resumed_run_scores_nothing_again(run, folder):
    _, first, events = run
    code, again, more = pack(folder)
    assert set(SCORINGS) <= set(of_kind(events, "done"))
    assert set(SCORINGS) <= set(of_kind(more, "reused"))
    assert not [one for one in more if one["text"] == "samples on degraded inputs"]
    assert code == 0
    assert again.degraded == first.degraded


def test_other_steps_do_not_know_of_it_and_none_switches_it_off(run, folder):
    code, record, events = pack(folder, "--degraded", "none")
    assert code == 0
    assert record.degraded == ()
    assert not [one for one in record.best_of("onnxruntime").findings if one.kind == "less-robust"]
    assert not of_kind(events, "done")[1:], "all but the export is from the last run"
    assert "On degraded inputs" not in (folder / "run" / "report.html").read_text()
    assert not [one for one in report.lines(record) if "degraded" in one]


def test_the_flag_stands_in_place_of_the_jobs_list_and_scores_only_what_is_new(run, folder):
    _, record, events = pack(folder, "--degraded", "scale:factor=8", "--degraded", "missing_frames:fraction=1")
    assert [one.degradation for one in record.degraded] == ["scale(factor=8.0)", "missing_frames(fraction=1.0)"]
    assert set(SCORINGS[:2]) <= set(of_kind(events, "reused"))
    blind = record.degraded[1]
    assert blind.value == blind.float_value, "who sees nothing guesses one class, in float as in integers"
    assert not blind.less_robust


def test_a_recipe_is_replayed_on_what_was_typed(run, folder):
    code, record, _ = pack(folder, str(folder / "run" / "recipe.toml"))
    assert code == 0
    assert [one.degradation for one in record.degraded] == ["scale(factor=8.0)", "missing_frames(fraction=1.0)"]


def test_a_recipe_is_replayed_on_the_jobs_list(run, folder):
    pack(folder)  # nothing is typed, so that the recipe keeps nothing
    code, record, events = pack(folder, str(folder / "run" / "recipe.toml"))
    assert code == 0
    assert [one.degradation for one in record.degraded] == [one.degradation for one in run[1].degraded]
    assert set(SCORINGS) <= set(of_kind(events, "reused"))


def test_what_the_data_cannot_take_ends_the_dry_run_and_the_run_before_anything_is_made(tmp_path, capsys):
    code = main(["pack", str(JOB), "--dry-run", "--degraded", "noise:input=2", "--out", str(tmp_path / "out")])
    assert code == 2
    assert "degraded[0].noise: there is no input 2: the sample has 1" in capsys.readouterr().err
    code = main(["pack", str(JOB), "--degraded", "pad:axis=2,length=9", "--out", str(tmp_path / "out")])
    assert code == 2
    assert "degraded[0].pad: shape [64, 1, 9, 8], expected [" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# The reported half.


def half_of(batches, group=1, *, free=True):
    total = sum(batches)
    images = np.arange(total * group * 2, dtype=np.float32).reshape(total * group, 2)
    labels = np.arange(total)

    def evaluation():
        start = 0
        for size in batches:
            rows = slice(start * group, (start + size) * group)
            yield (images[rows],), labels[start : start + size]
            start += size

    job = Job(
        "j",
        lambda: None,
        lambda: [(images[: batches[0] * group],)],
        evaluation,
        "top1",
        degraded=({"op": "scale", "factor": 1.0},),
    )
    metric = from_callable(lambda outputs, expected: outputs[0][::group, 0], group=group)
    data = Data(job, None, metric)
    ports = (Port("x", TensorSpec(("batch" if free else batches[0] * group, 2), "float32")),)
    data.expect(ports)
    (worse,) = degradations.of(job)
    return Half(data, ports, group, worse)


@pytest.mark.parametrize("batches", [(8,), (3, 5), (1, 1, 1, 5), (7, 1)])
@pytest.mark.parametrize("group", [1, 3])
def test_every_second_sample_is_scored_whatever_the_batches(batches, group):
    pairs = list(half_of(batches, group))
    assert np.concatenate([expected for _, expected in pairs]).tolist() == [1, 3, 5, 7]
    rows = np.concatenate([inputs[0] for inputs, _ in pairs])[:, 0] / 2
    assert rows.tolist() == [sample * group + row for sample in (1, 3, 5, 7) for row in range(group)]


def test_batches_of_a_fixed_length_stay_whole():
    half = half_of((4, 4), free=False)
    assert not half.cut
    assert [len(expected) for _, expected in half] == [4, 4]


def test_small_halves_are_kept_and_large_ones_read_anew(monkeypatch):
    half = half_of((4, 4))
    first, second = list(half), list(half)
    assert all(mine[0][0] is theirs[0][0] for mine, theirs in zip(first, second, strict=True))
    monkeypatch.setattr(data_module, "KEPT_BYTES", 1)
    large = half_of((4, 4))
    first, second = list(large), list(large)
    assert [len(expected) for _, expected in first] == [2, 2]
    assert all(mine[0][0] is not theirs[0][0] for mine, theirs in zip(first, second, strict=True))


# What scores say.

BLUR = degradations.of(Job("j", lambda: None, list, list, "top1", degraded=({"op": "blur"},)))[0]


def right(share, count=200):
    return (np.arange(count) < share * count).astype(np.float64)[:, None]


def record_of(float_there, there, metric="top1", clean=(1.0, 1.0)):
    scores = [Scores(None, one) if isinstance(one, str) else Scores(right(one)) for one in (float_there, there)]
    return compared(metrics.resolve(metric), "litert", BLUR, tuple(map(right, clean)), tuple(scores))


@pytest.mark.parametrize(
    "float_there, there, clean, less",
    [
        (0.9, 0.6, (1.0, 1.0), True),
        (0.9, 0.6, (1.0, 0.7), False),
        (0.9, 0.89, (1.0, 1.0), False),
        (0.6, 0.9, (1.0, 1.0), False),
    ],
)
def test_it_is_less_robust_where_the_interval_of_the_excess_lies_above_zero(float_there, there, clean, less):
    found = record_of(float_there, there, clean=clean)
    assert found.less_robust == less
    assert found.excess == pytest.approx((float_there - there) - (clean[0] - clean[1]))
    assert found.float_change == pytest.approx(float_there - clean[0])
    assert found.change == pytest.approx(there - clean[1])


def test_a_metric_against_float_says_nothing_of_floats_own_loss():
    found = record_of(1.0, 0.6, "agreement")
    assert found.against_float
    assert (found.float_value, found.float_clean_value, found.float_change) == (None, None, None)
    assert found.less_robust
    assert found.drop == pytest.approx(0.4)


def test_what_cannot_be_scored_is_told_and_only_what_float_can_do_is_missed():
    mine = record_of(0.9, "scores: 3 of its 8 values are NaN or infinite")
    assert (mine.value, mine.drop, mine.excess) == (None, None, None)
    assert mine.float_value == pytest.approx(0.9)
    assert mine.less_robust
    both = record_of("the runtime died", 0.5)
    assert both.cause == "float: the runtime died"
    assert not both.less_robust
    json.dumps([mine.cause, both.cause])


def test_a_whole_set_metric_that_refuses_what_it_gets_costs_its_row_alone():
    def picky(outputs, expected):
        if outputs[0].max() > 1:
            raise ValueError("no such value")
        return float(outputs[0].mean())

    metric = from_callable(picky)
    labels = np.arange(20)
    sound, strange = (metric.kept((np.full((20, 1), value),), labels) for value in (0.5, 2.0))
    found = compared(metric, "litert", BLUR, (sound, sound), (Scores(sound), Scores(strange)))
    assert "no such value" in found.cause
    assert found.float_value == pytest.approx(0.5)
    assert found.drop is None


def candidate(target):
    artifact = Artifact(target, (ArtifactFile("m", 1, 1, "00"),), (), (), "1")
    return Candidate(Plan(target, LAYERS), artifact, None, None, None, None, None)


def test_each_finding_stands_with_its_own_target():
    found = record_of(0.9, 0.6)
    failed = replace(found, degradation="noise(level=0.1)", drop=None, cause="it died")
    sound = replace(found, target="onnxruntime", less_robust=False)
    one, other = told([candidate("onnxruntime"), candidate("litert")], [found, failed, sound], "fraction")
    assert one.findings == ()
    assert [finding.text for finding in other.findings] == [
        "on blur(sigma=1.0) it loses 30.00 pt where it loses 0.00 pt on clean inputs",
        "on noise(level=0.1) it cannot be scored where float can: it died",
    ]
    assert {finding.exit_code for finding in other.findings} == {0}


@pytest.mark.parametrize("asked", [(), (BLUR,)])
def test_where_nothing_ran_nothing_is_scored(steps_on, asked):
    from torch import nn

    from haversack.measure.local import LocalDevice

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 3)).eval()
    with LocalDevice() as device:
        assert robustness.measured(steps_on(network, device), {"onnxruntime": candidate("onnxruntime")}, asked) == ()


def test_a_float_model_that_overflows_is_told(steps_on):
    from torch import nn

    from haversack.measure.local import LocalDevice

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3)).eval()
    network[3].weight.data *= 100
    with LocalDevice() as device:
        steps = steps_on(network, device, allow=("slower-than-float",))
        steps = replace(steps, job=replace(steps.job, degraded=({"op": "scale", "factor": 1e38},)))
        layers = {"0:conv2d#0": LayerPlan(), "3:linear#0": LayerPlan()}
        plan = Plan("onnxruntime", layers, (), Step("minmax"), ("onnxruntime",))
        asked = robustness.checked(steps.data, steps.job)
        found = robustness.measured(steps, {"onnxruntime": steps.evaluate(plan)}, asked)
    assert found[0].cause.startswith("float: ")
    assert "NaN or infinite" in found[0].cause
    assert not found[0].less_robust
    assert found[0].clean_value is not None


def test_a_job_that_degrades_nothing_is_checked_at_no_cost():
    assert robustness.checked(None, Job("j", lambda: None, list, list, "top1")) == ()
    with pytest.raises(JobError, match="degraded cannot be read"):
        robustness.checked(None, Job("j", lambda: None, list, list, "top1", degraded=({},)))
