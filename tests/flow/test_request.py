"""What was typed, read: job, limits and plans; plans go to a file and come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.base.errors import UsageError
from haversack.base.plan import LayerPlan, Plan, Step
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
        ({"allow": ("fallbak",)}, "did you mean fallback"),
        ({"budget": "size"}, "no value"),
        ({"plan": Path("nowhere.toml")}, "nowhere.toml"),
    ],
)
def test_what_cannot_be_read(fields, said):
    with pytest.raises(UsageError) as caught:
        opened(Request(JOB, **fields))
    assert said in str(caught.value)
