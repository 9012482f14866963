"""One decision for a weight that several layers read: counted once, lost once, timed at each call."""

from __future__ import annotations

from dataclasses import replace

import pytest
from alone import HERE, propose
from shared_weights import CELLS, recurrent, tied_table

from haversack.base.budget import Budget
from haversack.base.plan import PRECISIONS, LayerPlan, Plan
from haversack.base.profile import Profile
from haversack.base.scope import Scope
from haversack.choose.mixing import Mixer
from haversack.choose.options import SECONDS_PER_BORDER_ELEMENT, borders, options

FRONT, HEAD = "front:linear#0", "head:linear#0"
CELL, TABLE = recurrent(), tied_table()
ELEMENTS = {FRONT: 1000, **dict.fromkeys(CELLS, 50_000), HEAD: 2000}
SECONDS = dict.fromkeys(ELEMENTS, 1e-3)
LOSSES = {FRONT: {"int8": 0.01}, CELLS[0]: {"int8": 0.05}, HEAD: {"int8": 0.01}}
INT8 = dict.fromkeys(ELEMENTS, LayerPlan("int8"))


def found(graph=CELL, base=INT8, elements=ELEMENTS, **more):
    profile = Profile({HERE: SECONDS}, LOSSES)
    return options(graph, profile, base, weight_elements=elements, speed={HERE: {"int8": 0.5}}, **more)


def mixer(stores="weight", graph=CELL, elements=ELEMENTS):
    profile = Profile({HERE: SECONDS}, LOSSES)
    return Mixer(graph, profile, elements, {HERE: PRECISIONS}, stores={HERE: stores})


def test_the_calls_of_a_weight_are_one_item():
    items = found()
    assert list(items) == [FRONT, CELLS[0], HEAD]
    first, half, whole = items[CELLS[0]]
    assert [dict(one.layers) for one in (first, half, whole)] == [
        dict.fromkeys(CELLS, LayerPlan(kind)) for kind in ("int8", "float16", "float32")
    ]
    assert [one.bytes for one in (first, half, whole)] == [50_000, 100_000, 200_000]
    assert first.seconds[HERE] == pytest.approx(3 * 0.5e-3), "it is computed at each call"
    assert first.loss == pytest.approx(0.05**2), "that of all calls together was measured"


@pytest.mark.parametrize(("stores", "times"), [("weight", 1), ("kernel", 1), ("call", 3)])
def test_it_counts_as_often_as_a_file_holds_it(stores, times):
    assert found(stores={HERE: stores})[CELLS[0]][0].times[HERE] == times
    knows = mixer(stores)
    made, whole = Plan(HERE, INT8), Plan(HERE)
    assert knows.expect(HERE, made, None).bytes == 1000 + 2000 + times * 50_000
    assert knows.expect(HERE, whole, None).bytes == 4 * (1000 + 2000 + times * 50_000)


def test_a_table_and_a_layer_are_one_item():
    rows = LayerPlan("int8_weights")
    base = {HEAD: LayerPlan("int8_dynamic"), "table:embedding#0": rows, "middle:linear#0": LayerPlan("int8_dynamic")}
    elements = {HEAD: 9000, "table:embedding#0": 9000, "middle:linear#0": 10}
    items = found(TABLE, base, elements, precisions=("int8_dynamic", "int8_weights", "float16"))
    assert set(items) == {HEAD, "middle:linear#0"}
    assert dict(items[HEAD][0].layers) == {HEAD: LayerPlan("int8_dynamic"), "table:embedding#0": rows}
    assert items[HEAD][0].bytes == 9000
    apart = found(TABLE, base, elements, stores={HERE: "kernel"})[HEAD][0]
    assert apart.times[HERE] == 2


def test_what_is_not_allowed_of_one_call_is_no_option_of_any():
    scope = Scope(("x=int8",), (), {CELLS[2]: LayerPlan("int8")})
    kinds = {key: [one.plan.precision for one in each] for key, each in found(scope=scope).items()}
    assert kinds == {FRONT: ["int8", "float16", "float32"], CELLS[0]: ["int8"], HEAD: ["int8", "float16", "float32"]}


def test_borders_between_calls_of_one_weight_cost_nothing():
    edges = {(one.first, one.second): one.seconds for one in borders(CELL, [FRONT, CELLS[0], HEAD])}
    cost = 64 * SECONDS_PER_BORDER_ELEMENT
    assert edges == pytest.approx({(FRONT, CELLS[0]): cost, (CELLS[0], HEAD): cost})


def test_a_mixture_gives_all_calls_one_plan(world):
    """The recurrent weight is most of the file: what must be smaller than all in float takes it in integers."""
    knows = mixer()
    base = world.evaluate(world.plan("int8"))
    files = tuple(replace(one, bytes=60_000) for one in base.artifact.files)
    base = replace(base, plan=Plan(HERE, INT8), artifact=replace(base.artifact, files=files))
    for allowed, kinds in ((60_000, {"int8"}), (120_000, {"float16"}), (300_000, {"float16", "float32"})):
        plan, forecast = propose(knows, base, Budget(size=allowed), 0.0)
        cells = {plan.layers.get(key, LayerPlan("float32")) for key in CELLS}
        assert len(cells) == 1
        assert {one.precision for one in cells} <= kinds
        assert forecast.bytes <= allowed


def test_a_run_before_this_is_read_though_its_calls_differ():
    base = {FRONT: LayerPlan("int8"), CELLS[1]: LayerPlan("int8")}
    first = found(base=base)[CELLS[0]][0]
    assert dict(first.layers) == {
        CELLS[0]: LayerPlan("float32"),
        CELLS[1]: LayerPlan("int8"),
        CELLS[2]: LayerPlan("float32"),
    }
    assert first.times[HERE] == 1.25, "a float weight, and its integers beside it"
