"""Several architectures through the whole ``pack``: the widths of ``examples/widths.py``, and jobs that go wrong."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from haversack import report
from haversack.base import recipe
from haversack.base.errors import ConversionError, Fault, JobError, UsageError
from haversack.cli import main
from haversack.flow import choice
from haversack.flow.pack import pack, preflight
from haversack.flow.request import Request, architectures, read_plan, write_plan
from haversack.flow.resolve import resolve
from haversack.targets.onnxruntime import OnnxRuntime

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BUDGET = "size=30KB,drop=3pt"
FEW = (*(f"w{bits}a8" for bits in range(1, 8)), "palette")
"""With fewer bits than 8 the widest network would fit as well."""
TARGET = "onnxruntime"


def request_of(job, out, **more):
    wishes = {"budget": BUDGET, "allow": ("slower-than-float",), "effort": "fast", "without": FEW, **more}
    return Request(str(job), out=out, **wishes)


@pytest.fixture(scope="session")
def job(tmp_path_factory):
    """A copy of the example, which trains into a folder beside it."""
    folder = tmp_path_factory.mktemp("widths") / "examples"
    folder.mkdir()
    for name in ("widths.py", "training.py"):
        shutil.copy(EXAMPLES / name, folder / name)
    return folder / "widths.py"


@pytest.fixture(scope="session")
def widths(job, tmp_path_factory):
    """What packing the three widths told and left."""
    events = []
    outcome = pack(request_of(job, tmp_path_factory.mktemp("run") / "out"), events.append)
    return outcome, events


@pytest.fixture(scope="session")
def out(widths):
    return widths[0].page.parent


@pytest.fixture
def record(out):
    return report.read(out)


def shipped(record):
    return record.best_of(TARGET)


def test_the_best_that_meets_the_budget_ships(widths, record):
    assert widths[0].exit_code == 0
    assert list(record.architectures) == ["w4", "w8", "w24"]
    best = shipped(record)
    assert best.verdict == "chosen"
    assert record.architectures["w24"].floats[TARGET].bytes > 200_000, "too wide for 30 kB, even in 8 bits"
    assert {one.architecture for one in record.candidates} == {"w4", "w8", "w24"}
    assert best.architecture in {"w4", "w8"}
    assert best.id == f"{best.architecture}-{best.plan.id}"
    wide = next(one for one in record.candidates if one.architecture == "w24" and one.artifact)
    assert wide.verdict == "missed"
    assert all(limit.met for limit in record.limits_of(TARGET))


def test_every_drop_is_against_the_best_float_model(record):
    floats = {name: one.baseline.value for name, one in record.architectures.items()}
    assert record.baseline.value == max(floats.values())
    assert len(set(floats.values())) > 1, "the widths score alike: this test would show nothing"
    scored = [one for one in record.candidates if one.quality is not None]
    assert {one.architecture for one in scored} == {"w4", "w8", "w24"}
    for one in scored:
        assert one.quality.drop == pytest.approx(record.baseline.value - one.quality.value, abs=1e-9)
        assert one.quality.drop_low <= one.quality.drop <= one.quality.drop_high
    assert any(one.quality.value == floats[one.architecture] != record.baseline.value for one in scored), "own float"


def test_the_file_that_ships_is_the_architectures_own(out, record, job):
    best = shipped(record)
    session = onnxruntime.InferenceSession(out / best.artifact.path)
    with np.load(out / "best" / TARGET / "golden.npz") as golden:
        names = set(golden.files)
    assert any("image" in name for name in names)
    assert [value.name for value in session.get_outputs()] == ["scores"]
    model = record.model_of(best)
    assert model.name == best.architecture
    assert best.after.parameters == model.parameters == record.architectures[best.architecture].model.parameters
    assert [layer.key for layer in best.layers] == [layer.key for layer in model.layers]
    assert main(["verify", str(out)]) == 0


def test_a_broken_file_is_found_by_verify(out, tmp_path, record):
    shutil.copytree(out, tmp_path / "out")
    file = tmp_path / "out" / shipped(record).artifact.path
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert main(["verify", str(tmp_path / "out")]) == 5


def test_the_recipe_names_the_architecture(out, record):
    found = recipe.read(out / "recipe.toml")
    best = shipped(record)
    assert found.architectures[TARGET].name == best.architecture
    assert found.architectures[TARGET].model_digest == record.model_of(best).digest
    assert found.plans == (best.plan,)
    assert architectures(Request(str(out / "recipe.toml"))) == {TARGET: best.architecture}


def test_the_same_command_makes_nothing_twice(widths, out, job, record, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    events = []
    again = pack(request_of(job, tmp_path / "out"), events.append)
    slow = ("lower", "choose", "measure", "verify")
    assert [one.text for one in events if one.kind == "done" and one.stage in slow] == []
    assert any(one.kind == "reused" and one.text.startswith("w24: candidate: ") for one in events)
    assert again.record.best == record.best
    assert [one.id for one in again.record.candidates] == [one.id for one in record.candidates]
    for one in record.candidates:
        if one.artifact:
            assert (tmp_path / "out" / one.artifact.path).read_bytes() == (out / one.artifact.path).read_bytes()


def test_what_is_told_names_the_architecture_and_the_time_of_all(widths):
    _, events = widths
    (forecast,) = [one.data["forecast_seconds"] for one in events if "forecast_seconds" in one.data]
    assert forecast > 3 * 8, "each has a start of its own"
    for name in ("w4", "w8", "w24"):
        assert any(one.text.startswith(f"{name}: candidate: ") for one in events)


def test_the_terminal_and_the_page_say_which_it_is(widths, record):
    best = shipped(record)
    lines = report.lines(record)
    (told,) = [line for line in lines if line.startswith(f"{TARGET}: {best.architecture}  ")]
    assert "(best float " in told
    (why,) = [line for line in lines if "is the best" in line]
    assert why == f"{TARGET}: {record.between[TARGET]}"
    assert "w24 misses the budget: size is " in why
    page = widths[0].page.read_text()
    assert record.between[TARGET].split(":")[0] in page
    assert 'id="architectures"' in page
    assert page.count("Before, w") == 3


def test_a_replay_makes_the_same_bytes_of_that_architecture_alone(out, job, record, tmp_path):
    again = pack(request_of(out / "recipe.toml", tmp_path / "again", budget=None))
    best = shipped(record)
    assert again.exit_code == 0
    assert [one.id for one in again.record.candidates] == [best.id]
    found = again.record.best_of(TARGET)
    assert found.artifact.sha256 == best.artifact.sha256
    assert again.record.baseline.value == record.baseline.value, "the best float model is another architecture's"


def test_resolve_takes_the_best_measured_of_all(out, record, tmp_path):
    measured = {one.architecture: one for one in record.candidates if one.artifact}
    largest = max(one.artifact.bytes for one in record.candidates if one.artifact)
    answer = resolve(out, f"size={largest}B")
    assert answer.exit_code == 0
    ((name, part),) = answer.parts.items()
    first = part.found[TARGET].candidates[0]
    assert name == first.architecture == "w24", "nothing but bytes is limited: the best quality"
    text = "\n".join(answer.lines())
    assert str(out / first.artifact.files[0].path) in text
    assert "with figures of the half of the evaluation set that is reported, w24 is the best (" in text
    assert answer.data()["targets"][TARGET]["architecture"] == "w24"
    answer.write(tmp_path / "plan.toml")
    assert tomllib.loads((tmp_path / "plan.toml").read_text())["architecture"] == "w24"
    assert read_plan(tmp_path / "plan.toml") == first.plan
    assert architectures(Request("job.py", plan=tmp_path / "plan.toml")) == {TARGET: "w24"}
    small = min((one for one in record.candidates if one.artifact), key=lambda one: one.artifact.bytes)
    assert small.architecture == "w4"
    assert set(measured) == {"w4", "w8", "w24"}
    assert list(resolve(out, f"size={small.artifact.bytes}B").parts) == ["w4"]
    missed = resolve(out, f"size={small.artifact.bytes - 1}B")
    assert missed.exit_code == 3
    assert main(["resolve", str(out), "--budget", "latency=0.5x"]) == 2


def test_resolve_says_what_no_architecture_can(out, capsys):
    assert main(["resolve", str(out), "--budget", "size=100B", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 3
    assert told["targets"][TARGET]["met"] is False


def test_what_chose_is_kept_for_each(out):
    kept = choice.read_all(out)
    assert [one.architecture for one in kept] == ["w4", "w8", "w24"]
    assert min(one.float_drop for one in kept) == 0.0
    assert all(candidate.architecture == one.architecture for one in kept for candidate in one.candidates)
    with pytest.raises(UsageError, match="several architectures"):
        choice.read(out)


SMALL = """
import numpy as np
import torch
from torch import nn
metric = "top1"
input_names, output_names = ("image",), ("scores",)
class Branching(nn.Module):
    def forward(self, image):
        return image * 2 if image.sum() > 0 else image
def net(wide, classes=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, wide), nn.ReLU(), nn.Linear(wide, classes)).eval()
def models():
    return {MODELS}
def calibration():
    yield (np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32),)
def evaluation():
    images = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
    yield (images,), net(8)(torch.from_numpy(images)).argmax(1).numpy()
"""


@pytest.fixture
def small(tmp_path):
    """A function that writes a job of small networks and returns its path."""

    def write(models, text=SMALL):
        path = tmp_path / "job.py"
        path.write_text(text.replace("MODELS", models))
        return path

    return write


def test_other_outputs_are_an_error_that_says_so(small, tmp_path):
    job = small('"four": net(8), "five": net(8, 5)')
    with pytest.raises(JobError, match="different interfaces") as told:
        preflight(request_of(job, tmp_path / "out"))
    (fault,) = told.value.faults
    assert fault.where == "five"
    assert "its outputs are scores float32['batch', 5]; those of four are scores float32['batch', 4]" in fault.cause


def test_one_that_cannot_be_exported_is_named_and_the_others_go_on(small, tmp_path):
    job = small('"good": net(8), "bad": Branching().eval()')
    outcome = pack(request_of(job, tmp_path / "out", budget="drop=50pt"))
    assert outcome.exit_code == 0
    record = outcome.record
    assert record.best_of(TARGET).architecture == "good"
    assert "control flow" in record.architectures["bad"].lost
    (lost,) = [one for one in record.candidates if one.architecture == "bad"]
    assert (lost.verdict, lost.artifact, lost.findings[0].kind) == ("failed", None, "unreadable")
    assert any(line.startswith("bad is left out: ") for line in report.lines(record))
    assert report.read(tmp_path / "out") == record, "what is lost can be read back"
    assert [one.architecture for one in choice.read_all(tmp_path / "out")] == ["good"]


def test_none_that_can_be_exported_is_exit_code_4(small, tmp_path):
    job = small('"one": Branching().eval(), "two": Branching().eval()')
    with pytest.raises(ConversionError, match="no architecture can be packed") as told:
        pack(request_of(job, tmp_path / "out"))
    assert told.value.exit_code == 4
    assert [fault.where for fault in told.value.faults] == ["one", "two"]
    assert not (tmp_path / "out").exists()


def test_a_target_that_takes_some_is_not_refused_and_one_that_takes_none_is(small, tmp_path, monkeypatch):
    job = small('"good": net(8), "bad": net(16)')
    real = OnnxRuntime.refusals

    def refusals(self, model):
        return (Fault("0", "too wide"),) if model.name.endswith("bad") else real(self, model)

    monkeypatch.setattr(OnnxRuntime, "refusals", refusals)
    events = []
    found = preflight(request_of(job, tmp_path / "out"), events.append)
    assert list(found.architectures) == ["good"]
    assert list(found.lost) == ["bad"]
    assert any("bad is left out for onnxruntime: onnxruntime cannot take it" in one.text for one in events)
    assert any(line.startswith("bad is left out: ") for line in found.lines())
    monkeypatch.setattr(OnnxRuntime, "refusals", lambda *_: (Fault("0", "too wide"),))
    with pytest.raises(ConversionError) as told:
        preflight(request_of(job, tmp_path / "out"))
    assert {fault.where for fault in told.value.faults} == {"good", "bad"}


def test_the_forecast_adds_up(small, tmp_path):
    found = preflight(request_of(small('"a": net(8), "b": net(16)'), tmp_path / "out"))
    assert found.exit_code == 0
    assert list(found.architectures) == ["a", "b"]
    assert found.forecast_seconds == sum(one.forecast_seconds for one in found.architectures.values())
    assert found.lines()[-1].startswith("forecast of 2 architectures: about ")
    assert not (tmp_path / "out").exists()


def test_a_budget_that_all_miss_is_exit_code_3_with_the_nearest(small, tmp_path):
    outcome = pack(request_of(small('"near": net(8), "far": net(64)'), tmp_path / "out", budget="size=300B"))
    assert outcome.exit_code == 3
    best = outcome.record.best_of(TARGET)
    assert best.architecture == "near"
    assert (tmp_path / "out" / best.artifact.path).is_file()
    assert "near is the best (" in outcome.record.between[TARGET]
    assert "misses the budget by the least" in outcome.record.between[TARGET]


def test_the_stated_baseline_is_the_best_ones(small, tmp_path):
    text = SMALL + "baseline = 1.0\n"
    found = small('"exact": net(8), "other": net(8, seed=5)', text)
    outcome = pack(request_of(found, tmp_path / "out", budget="drop=50pt"))
    record = outcome.record
    assert record.baseline.stated == record.baseline.value == 1.0
    assert record.architectures["other"].baseline.value < 1.0, "short of it, and no error"
    alone = small('"other": net(8, seed=5), "third": net(8, seed=6)', text)
    with pytest.raises(JobError, match=r"where the job states 1\.0000"):
        pack(request_of(alone, tmp_path / "alone", budget="drop=50pt"))


@pytest.mark.parametrize(
    "budget, change, cause",
    [
        ("latency=0.5x", ("top1", "top1"), "a ratio is to an architecture's own float file"),
        ("drop=1pt", ('"top1"', '"agreement"'), "is against a model's own float outputs"),
    ],
)
def test_what_says_nothing_across_architectures_is_refused(small, tmp_path, budget, change, cause):
    job = small('"a": net(8), "b": net(16)', SMALL.replace(*change))
    with pytest.raises(UsageError, match=cause):
        preflight(request_of(job, tmp_path / "out", budget=budget))


def test_a_plan_must_name_one_of_them(small, tmp_path, out, record):
    job = small('"a": net(8), "b": net(16)')
    write_plan(shipped(record).plan, tmp_path / "plan.toml")
    with pytest.raises(UsageError, match="it names no architecture for its plan on onnxruntime"):
        pack(request_of(job, tmp_path / "out", plan=tmp_path / "plan.toml"))
    found = recipe.read(out / "recipe.toml")
    named = {TARGET: replace(found.architectures[TARGET], name="w9")}
    recipe.write(replace(found, job=str(job), architectures=named), tmp_path / "recipe.toml")
    with pytest.raises(UsageError, match="there is no architecture 'w9'"):
        pack(request_of(tmp_path / "recipe.toml", tmp_path / "out", budget=None))


def test_an_error_of_one_names_it(small, tmp_path):
    job = small('"fits": net(8), "unfit": nn.Linear(9, 4).eval()')
    with pytest.raises(JobError, match="unfit: the model does not take a batch"):
        preflight(request_of(job, tmp_path / "out"))
