"""Plans: identity by content, and what two of them differ in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from haversack.base.constraints import Constraints, Ratio
from haversack.base.plan import PRECISIONS, LayerPlan, Plan, Precision, Step
from haversack.targets.contract import SHELF

LAYERS = {"a:conv2d#0": LayerPlan(), "b:linear#0": LayerPlan("int8_weights", "tensor", Step("mse"))}
PLAN = Plan("onnxruntime", LAYERS, (Step("fold_norm"),), Step("percentile", {"keep": 0.999}), ("onnxruntime",), "first")


def test_the_digest_does_not_depend_on_order_or_origin():
    other = replace(PLAN, layers=dict(reversed(list(LAYERS.items()))), origin="second")
    assert other.digest == PLAN.digest
    assert other == PLAN


@pytest.mark.parametrize(
    "change",
    [
        {"target": "reference"},
        {"layers": {}},
        {"layers": {**LAYERS, "a:conv2d#0": LayerPlan("float32")}},
        {"layers": {**LAYERS, "a:conv2d#0": LayerPlan(granularity="tensor")}},
        {"layers": {**LAYERS, "a:conv2d#0": LayerPlan(weights=Step("minmax", {"shrink": 0.9}))}},
        {"layers": {**LAYERS, "a:conv2d#1": LayerPlan()}},
        {"prepare": ()},
        {"prepare": (Step("equalize"),)},
        {"prepare": (Step("fold_norm"), Step("equalize"))},
        {"ranges": Step("percentile")},
        {"ranges": Step("percentile", {"keep": 0.99})},
        {"constrained_by": ()},
    ],
)
def test_everything_else_counts(change):
    other = replace(PLAN, **change)
    assert other.digest != PLAN.digest
    assert other.id != PLAN.id
    assert PLAN.differences(other)
    assert len(PLAN.differences(other)) == len(other.differences(PLAN))


def test_the_order_of_preparation_counts():
    steps = (Step("fold_norm"), Step("equalize"))
    assert replace(PLAN, prepare=steps).digest != replace(PLAN, prepare=steps[::-1]).digest


def test_the_id_is_short_and_names_the_target():
    assert PLAN.id == f"onnxruntime-{PLAN.digest[:12]}"


def test_no_differences_from_itself():
    assert PLAN.differences(PLAN) == []
    assert PLAN.differences(replace(PLAN, origin="elsewhere")) == []


def test_differences_in_words():
    other = replace(
        PLAN,
        target="reference",
        layers={"a:conv2d#0": LayerPlan("float16"), "c:linear#0": LayerPlan()},
        ranges=Step("minmax"),
    )
    assert PLAN.differences(other) == [
        "target: onnxruntime -> reference",
        "ranges: percentile(keep=0.999) -> minmax",
        "a:conv2d#0: int8/channel/minmax -> float16/channel/minmax",
        "b:linear#0: int8_weights/tensor/mse -> float32",
        "c:linear#0: float32 -> int8/channel/minmax",
    ]


def test_a_difference_in_a_layer_s_settings_is_seen():
    other = replace(PLAN, layers={**LAYERS, "a:conv2d#0": LayerPlan(weights=Step("minmax", {"shrink": 0.9}))})
    assert PLAN.differences(other) == ["a:conv2d#0: int8/channel/minmax -> int8/channel/minmax(shrink=0.9)"]


@pytest.mark.parametrize(
    "prepare, line",
    [
        ((), "prepare: fold_norm -> none"),
        ((Step("fold_norm"), Step("equalize", {"rounds": 2})), "prepare: fold_norm -> fold_norm, equalize(rounds=2)"),
    ],
)
def test_differences_of_preparation(prepare, line):
    assert PLAN.differences(replace(PLAN, prepare=prepare)) == [line]


def test_plans_are_hashable_and_data_only():
    assert len({PLAN, replace(PLAN, origin="again"), replace(PLAN, target="reference")}) == 2
    assert LayerPlan().precision in PRECISIONS


def test_constraints_default_to_nothing():
    nothing = Constraints()
    assert (nothing.ties, nothing.ratios, nothing.integer_ops) == ((), (), frozenset())
    assert dict(nothing.fixed) == dict(nothing.bounds) == {}


def test_the_usual_ratio_has_an_odd_denominator():
    assert Ratio("a:add#0:in", "a:add#0:out").denominator % 2 == 1


ROOT = Path(__file__).parents[2]


def test_the_guide_lists_every_precision():
    guide = (ROOT / "docs" / "guide" / "03-compress.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE)) == set(get_args(Precision))


def test_the_table_of_the_readme_is_one_table_and_names_four_bits_where_they_are():
    readme = (ROOT / "README.md").read_text()
    table = re.search(r"^\| target \| precision .*?(?=\n\n)", readme, re.MULTILINE | re.DOTALL).group()
    rows, name = dict[str, str](), ""
    for line in table.splitlines()[2:]:
        name = line.split("|")[1].strip(" `") or name
        rows[name] = rows.get(name, "") + line.split("|")[2]
    assert set(rows) == set(SHELF.names()) - {"reference"}
    assert {name for name, said in rows.items() if "w4a8" in said} == {
        name for name in rows if "w4a8" in SHELF.type_of(name).precisions
    }
