"""What was typed, read: job, limits and plans; plans go to a file and come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.base.budget import Budget
from haversack.base.errors import UsageError
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.recipe import FORMAT, Recipe, write
from haversack.flow.pack import pack
from haversack.flow.request import DEFAULT_BUDGET, Request, opened, read_plan, write_plan

JOB = str(Path(__file__).with_name("tiny_job.py"))
PLAN = Plan(
    "onnxruntime",
    {"a.b:conv2d#0": LayerPlan("int8", "tensor", Step("percentile", {"percent": 99.9}))},
    (Step("fold_norm"), Step("bias_correct")),
    Step("mse"),
    ("onnxruntime",),
    "typed by hand",
)


def test_a_plan_goes_to_a_file_and_comes_back(tmp_path):
    write_plan(PLAN, tmp_path / "plan.toml")
    found = read_plan(tmp_path / "plan.toml")
    assert found == PLAN
    assert found.digest == PLAN.digest
    assert found.origin == "typed by hand"


def test_without_limits_one_point_may_be_lost():
    _, budget, fixed = opened(Request(JOB))
    assert budget == DEFAULT_BUDGET
    assert budget.drop == 0.01
    assert fixed == {}


def test_limits_as_they_were_typed():
    _, budget, _ = opened(Request(JOB, "size=5.2MB,latency=0.55x,drop=1pt"))
    assert budget.limits() == {"size": 5_200_000, "latency_ratio": 0.55, "drop": 0.01}


def test_a_plan_stands_for_its_target(tmp_path):
    write_plan(PLAN, tmp_path / "plan.toml")
    _, _, fixed = opened(Request(JOB, plan=tmp_path / "plan.toml"))
    assert fixed == {"onnxruntime": PLAN}


def test_a_recipe_gives_job_limits_and_plans(packed):
    job, budget, fixed = opened(Request(str(packed.out / "recipe.toml")))
    assert Path(job.source).samefile(JOB)
    assert budget.limits() == {"size": 20_000, "drop": 0.05}
    assert set(fixed) == {"onnxruntime"}


def test_limits_typed_beside_a_recipe_count(packed):
    _, budget, _ = opened(Request(str(packed.out / "recipe.toml"), "size=3MB"))
    assert budget.limits() == {"size": 3_000_000}


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"targets": ("onnx",)}, "did you mean onnxruntime"),
        ({"budget": "size"}, "no value"),
        ({"plan": Path("nowhere.toml")}, "nowhere.toml"),
    ],
)
def test_what_cannot_be_read(fields, said):
    with pytest.raises(UsageError) as caught:
        opened(Request(JOB, **fields))
    assert said in str(caught.value)


def test_a_plan_for_a_target_that_was_not_asked_for(tmp_path):
    write_plan(Plan("reference"), tmp_path / "plan.toml")
    with pytest.raises(UsageError, match="the plan is for 'reference', the run for onnxruntime") as caught:
        opened(Request(JOB, plan=tmp_path / "plan.toml"))
    assert caught.value.next_step == "--target reference"


def test_a_plan_file_goes_before_the_recipes_plan(packed, tmp_path):
    write_plan(PLAN, tmp_path / "plan.toml")
    _, _, fixed = opened(Request(str(packed.out / "recipe.toml"), plan=tmp_path / "plan.toml"))
    assert fixed == {"onnxruntime": PLAN}


@pytest.mark.parametrize(
    "text, faults",
    [
        ("target = 3", {"target"}),
        ('target = "onnxruntime"\nrangs = "mse"\nprepare = 7', {"rangs", "prepare"}),
        ('target = "onnxruntime"\n[layers."a:linear#0"]\nprecision = "int7"\ngranularity = "row"',
         {"layers['a:linear#0'].precision", "layers['a:linear#0'].granularity"}),
    ],
)  # fmt: skip
def test_all_faults_of_a_plan_are_told_at_once(tmp_path, text, faults):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_plan(path)
    assert {fault.where for fault in caught.value.faults} == faults
    assert caught.value.where == str(path)


@pytest.mark.parametrize("content", [b"[", b"\xff\xfe", b"a = 1 b = 2"])
def test_a_plan_that_is_no_toml(tmp_path, content):
    path = tmp_path / "plan.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="the plan cannot be read") as caught:
        read_plan(path)
    assert "--write" in caught.value.next_step


def test_all_faults_of_a_budget_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        opened(Request(JOB, "sice=5MB,latency=3,drop=1pt"))
    assert [fault.where for fault in caught.value.faults] == ["sice", "latency"]
    assert "did you mean size" in str(caught.value)


def test_a_recipe_without_limits_means_the_default(tmp_path):
    write(Recipe(FORMAT, JOB, "digest", Budget(), ()), tmp_path / "recipe.toml")
    assert opened(Request(str(tmp_path / "recipe.toml")))[1] == DEFAULT_BUDGET


def test_the_words_are_checked_before_the_job_is_run(tmp_path):
    job = tmp_path / "job.py"
    job.write_text("raise SystemError")
    with pytest.raises(UsageError, match="no target named 'nowhere'"):
        opened(Request(str(job), targets=("nowhere",)))


def job_with(tmp_path, line):
    path = tmp_path / "job.py"
    path.write_text(Path(JOB).read_text() + line)
    return str(path)


def test_a_drop_of_one_is_not_taken_for_a_hundred_points(tmp_path):
    with pytest.raises(UsageError, match="would allow any loss") as caught:
        opened(Request(JOB, "size=5MB,drop=1"))
    assert "drop=1pt" in caught.value.next_step
    nats = job_with(tmp_path, "\nmetric = 'kl'\n")
    assert opened(Request(nats, "drop=1"))[1].drop == 1


def test_a_baseline_in_percent_is_told_as_a_fraction(tmp_path):
    with pytest.raises(UsageError, match="top1 is a fraction") as caught:
        opened(Request(job_with(tmp_path, "\nbaseline = 95\n")))
    assert caught.value.next_step == "baseline = 0.95"


def recipe_of(tmp_path, **said):
    write(Recipe(FORMAT, JOB, "digest", Budget(), (), **said), tmp_path / "recipe.toml")
    return str(tmp_path / "recipe.toml")


BLUR = {"op": "blur", "sigma": 3.0}


def test_a_recipe_keeps_what_was_said_of_degraded_inputs_layers_and_parts(tmp_path):
    source = recipe_of(tmp_path, layers=("0=int8",), without=("w4a8",), degraded=(BLUR,))
    job, *_ = opened(Request(source))
    assert (job.degraded, job.layer_precisions, job.without) == ((BLUR,), ("0=int8",), ("w4a8",))


def test_what_is_typed_goes_before_the_recipe(tmp_path):
    source = recipe_of(tmp_path, layers=("0=int8",), without=("w4a8",), degraded=(BLUR,))
    job, *_ = opened(Request(source, degraded="none", layers="none", without="palette"))
    assert (job.degraded, job.layer_precisions, job.without) == ((), (), ("palette",))
    job, *_ = opened(Request(source, degraded=["noise:level=0.2"], layers=["0=float16", "3=int8"]))
    assert job.degraded == ({"op": "noise", "level": 0.2},)
    assert job.layer_precisions == ("0=float16", "3=int8")


def test_a_job_says_so_where_nothing_else_does(tmp_path):
    said = "\nlayer_precisions = {'0': 'int8', '7': 'float32'}\nwithout = ['w4a8']\ndegraded = [{'op': 'noise'}]\n"
    source = job_with(tmp_path, said)
    job, *_ = opened(Request(source))
    assert (job.layer_precisions, job.without) == (("0=int8", "7=float32"), ("w4a8",))
    assert job.degraded == ({"op": "noise"},)
    job, *_ = opened(Request(source, layers=("3=int8",), without=("none",)))
    assert (job.layer_precisions, job.without) == (("3=int8",), ())
    write(Recipe(FORMAT, source, "digest", Budget(), ()), tmp_path / "recipe.toml")
    job, *_ = opened(Request(str(tmp_path / "recipe.toml")))
    assert (job.layer_precisions, job.without) == ((), ()), "its plans were made before the job said so"
    assert job.degraded == ({"op": "noise"},)


@pytest.mark.parametrize(
    ("line", "more", "said"),
    [
        ("layer_precisions = {'0': 'int9'}", {}, "layer_precisions: 0=int9: there is no precision 'int9'"),
        ("without = ['w4a9']", {}, "without: w4a9: there is no precision and no part of this name"),
        ("layer_precisions = {'0': 'w4a8'}", {"without": "w4a8"}, "0=w4a8: --without forbids w4a8"),
    ],
)
def test_what_a_job_says_wrongly_of_layers_is_told_with_its_field(tmp_path, line, more, said):
    with pytest.raises(UsageError) as caught:
        opened(Request(job_with(tmp_path, f"\n{line}\n"), **more))
    assert said in str(caught.value)


def test_rules_are_checked_before_the_job_is_run(tmp_path):
    job = tmp_path / "job.py"
    job.write_text("raise SystemError")
    with pytest.raises(UsageError, match="it is not GLOB=PRECISION"):
        opened(Request(str(job), layers="head"))


def test_paths_may_be_text_and_one_name_a_tuple():
    found = Request(JOB, out="oc", plan="plan.toml", targets="onnxruntime", allow=["float-op"])
    assert (found.out, found.plan) == (Path("oc"), Path("plan.toml"))
    assert (found.targets, found.allow) == (("onnxruntime",), ("float-op",))


@pytest.mark.parametrize(
    "wishes, said",
    [
        ({"bugdet": "size=1MB", "outs": "x"}, ["bugdet: there is no such field; did you mean budget?", "outs"]),
        ({"out": 3}, ["out: it is a int"]),
        ({"budget": 5}, ["budget: it is a int"]),
        ({"targets": [3]}, ["targets: it is a list"]),
    ],
)
def test_what_python_gives_wrongly_is_a_usage_error(wishes, said):
    with pytest.raises(UsageError) as caught:
        pack(JOB, **wishes)
    for one in said:
        assert one in str(caught.value)


def test_a_plan_that_is_not_there_is_told_without_an_errno(tmp_path):
    with pytest.raises(UsageError, match="the plan cannot be read: no such file or directory") as caught:
        read_plan(tmp_path / "plan.toml")
    assert "Errno" not in str(caught.value)
