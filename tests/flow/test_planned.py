"""A plan that is made just as it is: a dry run finds what ``pack`` could not make of it, and ends as ``pack`` would."""

from __future__ import annotations

from dataclasses import replace

import pytest
from layered import network

from haversack.base.errors import ConversionError, UsageError
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.cli import main
from haversack.flow.planned import idle, refuse_unmakeable
from haversack.targets.contract import SHELF as TARGETS

GRAPH = network()
PARTS = {name: TARGETS.build(name) for name in ("onnxruntime", "executorch", "ncnn")}
HEAD = "head:linear#0"
GOOD = Plan("onnxruntime", {HEAD: LayerPlan("w2a8", weights=Step("mse"))}, (Step("fold_norm"),), Step("percentile"))


def look(plan, *more, target="onnxruntime"):
    return refuse_unmakeable(
        GRAPH, {target: replace(plan, target=target)}, {name: PARTS[name] for name in (target, *more)}
    )


def test_a_plan_that_can_be_made_is_not_refused():
    assert look(GOOD) is None
    assert look(Plan("onnxruntime", {HEAD: LayerPlan("palette", "tensor", Step("kmeans", {"bits": 3}))})) is None
    refuse_unmakeable(GRAPH, {"litert": GOOD}, {"onnxruntime": PARTS["onnxruntime"]})  # of a target that is left out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prepare": (Step("gptk"),)}, "did you mean gptq"),
        ({"ranges": Step("msee")}, "did you mean mse"),
        ({"layers": {HEAD: LayerPlan("int8", weights=Step("nothing"))}}, "no quantizer"),
        ({"layers": {HEAD: LayerPlan("palette", "tensor", Step("mse"))}}, "no palette"),
        ({"prepare": (Step("gptq", {"sample": 3}),)}, "sample"),
        ({"layers": {"tail:linear#0": LayerPlan("int8")}}, "no such layer"),
    ],
)
def test_parts_and_layers_that_there_are_not_are_a_wrong_usage(changes, said):
    with pytest.raises(UsageError, match=said):
        look(replace(GOOD, **changes))


def test_weights_of_a_width_that_a_runtime_does_not_have_cannot_be_converted():
    for names in (("executorch",), ("onnxruntime", "executorch")):
        with pytest.raises(ConversionError) as caught:
            look(GOOD, *names[1:], target=names[0])
        assert "cannot have weights of 2 bits" in str(caught.value)


def test_a_precision_that_a_runtime_does_not_have_cannot_be_converted():
    plan = Plan("ncnn", {HEAD: LayerPlan("palette", "tensor", Step("kmeans", {"bits": 4}))})
    with pytest.raises(ConversionError, match="ncnn has no palette"):
        look(plan, target="ncnn")


@pytest.mark.parametrize(
    ("effort", "plans", "told"), [("default", {"a": GOOD}, False), ("high", {}, False), ("high", {"a": GOOD}, True)]
)
def test_an_effort_beside_a_plan_is_told_to_change_nothing(effort, plans, told):
    said = idle(effort, plans, {"a": PARTS["ncnn"]})
    assert [line.partition(":")[0] for line in said] == (["--effort high changes nothing"] if told else [])


JOB = """
import numpy as np
import torch
metric = "top1"
def model():
    return torch.nn.Linear(64, 10).eval()
def calibration():
    yield (np.ones((4, 64), np.float32),)
def evaluation():
    yield (np.ones((4, 64), np.float32),), np.zeros(4, np.int64)
"""
RECIPE = """
format = 2
job = "job.py"
model_digest = "0"
[budget]
size = 20000
[[plans]]
target = "{target}"
prepare = [{{ part = "{part}", settings = {{}} }}]
constrained_by = ["{target}"]
origin = "mine"
[plans.layers.":linear#0"]
precision = "{precision}"
"""


@pytest.mark.parametrize(
    ("target", "part", "precision", "code", "said"),
    [
        ("onnxruntime", "fold_norm", "float16", 0, "weights alone take at least 1.3 kB in float16"),
        ("litert", "fold_norm", "w2a8", 4, "cannot have weights of 2 bits"),
        ("onnxruntime", "gptk", "float16", 2, "did you mean gptq"),
    ],
)
def test_the_dry_run_of_a_recipe_looks_at_its_plan(tmp_path, capsys, target, part, precision, code, said):
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "recipe.toml").write_text(RECIPE.format(target=target, part=part, precision=precision))
    assert (
        main(["pack", str(tmp_path / "recipe.toml"), "--dry-run", "--effort", "high", "--out", str(tmp_path)]) == code
    )
    told = capsys.readouterr()
    assert said in told.out + told.err
    assert ("--effort high changes nothing" in told.out) == (code == 0)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes_of_all_bits_can_be_made_where_a_runtime_has_them(bits):
    plan = Plan("onnxruntime", {HEAD: LayerPlan("palette", "tensor", Step("kmeans", {"bits": bits}))})
    assert look(plan) is None
    with pytest.raises(ConversionError, match="executorch has no palette"):
        look(plan, target="executorch")


def test_a_layer_that_is_left_in_float_needs_no_part():
    assert look(Plan("onnxruntime", {HEAD: LayerPlan("float16", weights=Step("nothing"))})) is None
    assert look(Plan("onnxruntime", {}, ranges=Step("nothing"))) is None
