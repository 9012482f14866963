"""Weights that several layers read: one form for all of them, whatever each alone would be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from shared_weights import CELLS, recurrent, tied_table

from haversack.base.plan import WEIGHT_BITS, LayerPlan, Step
from haversack.tools.graph import tied
from haversack.tools.graph.demands import demands

CELL, TABLE = recurrent(), tied_table()
MSE = Step("mse")
PLANS = st.builds(
    LayerPlan,
    st.sampled_from([kind for kind in WEIGHT_BITS if kind not in ("palette", "w4_grouped")]),
    st.sampled_from(["channel", "tensor"]),
    st.sampled_from([MSE, Step("minmax"), Step("mse", {"weight_least": 0.6})]),
)
PLANS |= st.sampled_from([LayerPlan("w4_grouped", weights=Step("mse", {"group": group})) for group in (32, 64)])
PLANS |= st.sampled_from([LayerPlan("palette", "tensor", Step("kmeans", {"bits": 6, "group": g})) for g in (0, 16)])


def test_calls_go_by_their_first():
    assert {key: tuple(one.key for one in nodes) for key, nodes in tied.calls(CELL).items()} == {
        "front:linear#0": ("front:linear#0",),
        CELLS[0]: CELLS,
        "head:linear#0": ("head:linear#0",),
    }
    assert [[one.key for one in nodes] for nodes in tied.shared(CELL)] == [list(CELLS)]
    assert tied.leads(CELL)[CELLS[2]] == CELLS[0]


def test_a_layer_comes_before_a_table():
    assert [[one.key for one in nodes] for nodes in tied.shared(TABLE)] == [["head:linear#0", "table:embedding#0"]]


def test_a_table_holds_the_integers_of_a_layer():
    table, head = TABLE.by_key["table:embedding#0"], LayerPlan("int8_dynamic", "channel", MSE)
    assert tied.beside(table, head) == LayerPlan("int8_weights", "channel", MSE)
    assert tied.beside(table, LayerPlan("int8", "tensor", MSE)) is None, "a table has a scale for each row"
    assert tied.beside(table, LayerPlan("w4a8", "channel", MSE)) is None
    assert tied.beside(table, LayerPlan("palette", "tensor", Step("kmeans", {"bits": 6, "group": 16}))) is None
    assert tied.beside(table, LayerPlan("float16")) == LayerPlan("float16")


def test_what_computes_differs_and_the_form_does_not():
    forms = {LayerPlan(kind, "channel", MSE).form for kind in ("int8", "int8_dynamic", "int8_weights")}
    assert len(forms) == 1
    others = [LayerPlan("w4a8", "channel", MSE), LayerPlan("int8", "tensor", MSE), LayerPlan("int8", "channel")]
    others += [LayerPlan("int8", "channel", Step("coarse", {"factor": 2.0})), LayerPlan("float16")]
    assert len({one.form for one in others} - forms) == len(others)


def test_fewer_bits_in_one_call_are_eight_in_all():
    wide, narrow = LayerPlan("int8", "channel", MSE), LayerPlan("w4a8", "channel", MSE)
    layers = {"front:linear#0": narrow, CELLS[0]: wide, CELLS[1]: narrow, CELLS[2]: narrow}
    assert tied.agreed(CELL, layers) == {"front:linear#0": narrow, **dict.fromkeys(CELLS, wide)}


def test_one_call_in_float_is_all_in_float():
    wide = LayerPlan("int8", "channel", MSE)
    assert tied.agreed(CELL, {"front:linear#0": wide, CELLS[1]: wide}) == {"front:linear#0": wide}


def test_a_table_keeps_its_integers_and_the_layer_joins_them():
    rows, grouped = (
        LayerPlan("int8_weights", "channel", MSE),
        LayerPlan("w4_grouped", weights=Step("mse", {"group": 32})),
    )
    found = tied.agreed(TABLE, {"table:embedding#0": rows, "middle:linear#0": grouped, "head:linear#0": grouped})
    assert found["head:linear#0"] == LayerPlan("int8_dynamic", "channel", MSE)
    assert found["table:embedding#0"] == rows
    assert found["middle:linear#0"] == grouped


@given(st.dictionaries(st.sampled_from([*CELLS, "front:linear#0", "head:linear#0"]), PLANS))
def test_what_is_agreed_has_no_quarrel_and_no_new_layer(layers):
    found = tied.agreed(CELL, layers)
    assert list(tied.quarrels(CELL, found)) == []
    assert set(found) <= set(layers)
    assert found.get("front:linear#0") == layers.get("front:linear#0"), "what reads a weight alone stays as it is"
    if not list(tied.quarrels(CELL, layers)):
        assert found == layers


@given(PLANS, PLANS)
def test_a_table_and_a_layer_agree(rows, head):
    layers = {"table:embedding#0": rows, "head:linear#0": head}
    found = tied.agreed(TABLE, layers)
    assert list(tied.quarrels(TABLE, found)) == []
    assert found in ({}, layers) or found["table:embedding#0"].precision in ("int8_weights", "palette")


def test_files_hold_arrays_for_kernels_or_calls():
    (cells,), (table,) = tied.shared(CELL), tied.shared(TABLE)
    assert [len(tied.arrays(cells, stores)) for stores in ("weight", "kernel", "call")] == [1, 1, 3]
    assert [len(tied.arrays(table, stores)) for stores in ("weight", "kernel", "call")] == [1, 2, 2]


def test_what_reads_one_weight_has_the_same_widths():
    found = demands(CELL, narrow=lambda _, node: node.key != CELLS[1], groups=(32,))
    assert set(found.widths) == {"front:linear#0", "head:linear#0"}
    assert set(found.groups) == {"front:linear#0", "head:linear#0", *CELLS}
    assert "head:linear#0" not in demands(TABLE, groups=(32,)).groups, "a table has no groups"
