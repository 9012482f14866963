"""Laws of choosing, whatever was measured: each against a definition that is spelled out here once more."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from alone import HERE, option, solve
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from haversack.base.budget import Budget
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.plan import PRECISIONS
from haversack.choose.forecast import TOLERANCE, hopeless, least_bytes, overshoot
from haversack.choose.options import SECONDS_PER_BORDER_ELEMENT, Border, borders
from haversack.choose.runtimes import LEAD, between
from haversack.choose.verdict import checks, judged, loss

law = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)

measurements = st.fixed_dictionaries({
    "size": st.integers(1, 30),
    "ratio": st.none() | st.sampled_from([0.3, 0.5, 0.9, 1.2]),
    "error": st.none() | st.integers(1, 40).map(lambda n: n / 400),
    "drop": st.none() | st.sampled_from([-0.01, 0.0, 0.004, 0.03]),
    "memory": st.none() | st.integers(1, 30),
    "verdict": st.sampled_from(["open", "open", "open", "failed"]),
})  # fmt: skip
several = st.lists(measurements, min_size=1, max_size=6)
budgets = st.builds(
    Budget,
    size=st.none() | st.integers(1, 30),
    latency_ratio=st.none() | st.sampled_from([0.4, 0.8, 1.0]),
    memory=st.none() | st.integers(1, 30),
    drop=st.none() | st.sampled_from([0.0, 0.01]),
)


SURE = {"size": 1, "ratio": 0.3, "error": 0.05, "drop": 0.0, "memory": 1, "verdict": "open"}
"""Meets every budget that is drawn."""


def built(make, rows):
    """Candidates that differ in name, so that each can be told from the others."""
    return [make(f"n{index}", **{**row, "reason": "it crashed"}) for index, row in enumerate(rows)]


def over(row, budget):
    """By how much a row misses a budget, from the numbers themselves."""
    total = 0.0
    for name, limit in budget.limits().items():
        got = row["ratio" if name == "latency_ratio" else name]
        if got is None:
            return math.inf
        if got > limit:
            total += (got - limit) / max(abs(limit), 1e-9)
    return total


@law
@given(several, budgets)
def test_one_is_chosen_where_one_meets_all_limits_and_it_is_the_nearest_to_float(make, rows, budget):
    assume(set(budget.limits()) - {"drop"})  # a drop alone ranks by cost
    found = judged(built(make, rows), budget)
    able = [row for row in rows if row["verdict"] != "failed" and not over(row, budget)]
    assert [one.verdict == "chosen" for one in found] == [bool(able), *[False] * (len(rows) - 1)]
    if able:
        errors = [math.inf if row["error"] is None else row["error"] for row in able]
        assert loss(found[0]) == min(errors)


@law
@given(several, budgets)
def test_judging_loses_nobody_and_says_why_of_everybody(make, rows, budget):
    given_ones = built(make, rows)
    found = judged(given_ones, budget)
    assert sorted(one.id for one in found) == sorted(one.id for one in given_ones)
    for one in found:
        row = rows[int(one.plan.origin.removeprefix("n"))]
        met = not over(row, budget)
        assert one.reason
        assert one.verdict in ({"failed"} if row["verdict"] == "failed" else {"chosen", "met"} if met else {"missed"})


@law
@given(several, budgets, st.integers(1, 30))
def test_where_none_meets_the_budget_the_first_is_over_by_the_least(make, rows, budget, size):
    rows = [{**row, "size": row["size"] + 30} for row in (*rows, SURE)]
    # Misses of latency are equal inside the noise, and the error decides: that is another test's.
    budget = replace(budget, size=size, latency_ratio=None)
    able = [row for row in rows if row["verdict"] != "failed"]
    found = judged(built(make, rows), budget)
    first = rows[int(found[0].plan.origin.removeprefix("n"))]
    assert over(first, budget) == pytest.approx(min(over(row, budget) for row in able))
    assert found[0].reason.startswith("nearest: ")


@law
@given(several, budgets, st.integers(0, 5))
def test_taking_away_one_that_was_not_chosen_changes_no_choice(make, rows, budget, index):
    rows = [*rows, SURE]
    found = judged(built(make, rows), budget)
    assert found[0].verdict == "chosen"
    gone = found[1 + index % (len(found) - 1)]
    rest = [one for one in built(make, rows) if one.id != gone.id]
    assert judged(rest, budget)[0].id == found[0].id


@law
@given(several, budgets, st.integers(0, 10), st.sampled_from([0.0, 0.2]))
def test_a_wider_budget_loses_nobody_who_met_the_tighter(make, rows, budget, bytes_more, ratio_more):
    wide = replace(
        budget,
        size=None if budget.size is None else budget.size + bytes_more,
        memory=None if budget.memory is None else budget.memory + bytes_more,
        latency_ratio=None if budget.latency_ratio is None else budget.latency_ratio + ratio_more,
    )

    def meeting(limits):
        return {one.id for one in judged(built(make, rows), limits) if one.verdict in {"chosen", "met"}}

    assert meeting(budget) <= meeting(wide)
    for one in built(make, rows):
        assert sum(check.overshoot for check in checks(one, wide)) <= sum(c.overshoot for c in checks(one, budget))


# ---- between runtimes ---------------------------------------------------------------------------------------------


@law
@given(several, budgets, st.randoms(use_true_random=False))
def test_the_runtime_that_ships_is_named_by_its_definition(make, rows, budget, random):
    best = {f"t{index}": one for index, one in enumerate(built(make, rows))}
    taken = dict(zip(best, rows, strict=True))
    level = min((row["verdict"] == "failed", over(row, budget)) for row in rows)
    inside = {name: row for name, row in taken.items() if (row["verdict"] == "failed", over(row, budget)) == level}
    times = {name: math.inf if row["ratio"] is None else row["ratio"] for name, row in inside.items()}
    quick = [name for name in inside if times[name] <= min(times.values()) * LEAD]
    keys = {name: (math.inf if inside[name]["error"] is None else inside[name]["error"], inside[name]["size"])
            for name in quick}  # fmt: skip
    names = list(best)
    random.shuffle(names)
    choice = between({name: best[name] for name in names}, budget)
    assert keys[choice.target] == min(keys.values())
    assert choice.paragraph.startswith(f"{choice.target} ships")
    assert all(name in choice.paragraph for name in best)


# ---- the knapsack ---------------------------------------------------------------------------------------------------


@st.composite
def layers_of_options(draw):
    costs = st.integers(0, 40)
    found = {}
    for index in range(draw(st.integers(1, 4))):
        name = f"l{index}"
        kinds = draw(st.lists(st.sampled_from(["int8", "float16", "float32"]), min_size=1, max_size=3, unique=True))
        found[name] = tuple(
            option(name, kind, float(draw(costs)), float(draw(costs)), draw(costs) / 8) for kind in kinds
        )
    pairs = [pair for pair in itertools.pairwise(found) if draw(st.booleans())]
    return found, tuple(Border(*pair, float(draw(st.integers(0, 9)))) for pair in pairs)


@law
@given(layers_of_options(), st.integers(0, 80), st.integers(1, 30))
def test_bytes_added_to_every_option_of_a_layer_come_off_the_limit(instance, room, more):
    found, lines = instance
    limit = room + sum(min(one.bytes for one in options) for options in found.values())
    plain = solve(found, max_bytes=limit + 0.5, borders=lines)
    assert plain.feasible
    moved = {**found, "l0": tuple(replace(one, bytes=one.bytes + more) for one in found["l0"])}
    again = solve(moved, max_bytes=limit + 0.5 + more, borders=lines)
    assert again.feasible
    assert again.loss == pytest.approx(plain.loss, abs=2e-3)
    assert again.bytes <= limit + 0.5 + more


@law
@given(layers_of_options(), st.integers(5, 120), st.integers(5, 120))
def test_an_option_that_is_worse_in_everything_changes_nothing(instance, max_bytes, max_seconds):
    found, lines = instance
    worse = replace(
        found["l0"][0],
        bytes=found["l0"][0].bytes + 1,
        seconds={HERE: found["l0"][0].seconds[HERE] + 1},
        loss=found["l0"][0].loss + 1,
    )
    limits = {"max_bytes": max_bytes + 0.5, "max_seconds": max_seconds + 0.5, "borders": lines}
    plain = solve(found, **limits)
    again = solve({**found, "l0": (worse, *found["l0"])}, **limits)
    assert plain.feasible == again.feasible
    if plain.feasible:
        assert again.loss == pytest.approx(plain.loss, abs=2e-3)
        assert again.chosen["l0"] != worse


@law
@given(layers_of_options(), st.integers(5, 120))
def test_borders_never_help(instance, limit):
    found, lines = instance
    free = solve(found, max_seconds=limit + 0.5)
    tied = solve(found, max_seconds=limit + 0.5, borders=lines)
    assert free.feasible or not tied.feasible
    if tied.feasible:
        assert free.loss <= tied.loss + 2e-3


# ---- where layers meet ----------------------------------------------------------------------------------------------


@st.composite
def graphs(draw):
    """Any graph without cycles: each node reads some before it."""
    count = draw(st.integers(2, 9))
    nodes = []
    for index in range(count):
        sources = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        spec = TensorSpec(("batch", draw(st.integers(1, 5))), "float32")
        nodes.append(Node(f"n{index}", "op", f"n{index}", tuple(f"n{one}" for one in sorted(sources)), spec))
    graph = Graph(tuple(nodes), ("n0",), (nodes[-1].key,))
    return graph, draw(st.sets(st.sampled_from([node.key for node in nodes])))


@law
@given(graphs())
def test_two_layers_meet_where_a_path_between_them_passes_no_third(instance):
    graph, layers = instance

    def reached(key):
        """Layers that a value from this node arrives at, by walking every path forward."""
        found = set()
        for node in graph.nodes:
            if key in node.inputs:
                found |= {node.key} if node.key in layers else reached(node.key)
        return found

    expected = {(first, second): graph.by_key[first].output.shape[1] for first in layers for second in reached(first)}
    found = borders(graph, sorted(layers))
    assert {(one.first, one.second) for one in found} == set(expected)
    assert len(found) == len(expected)
    for one in found:
        assert one.seconds == pytest.approx(expected[one.first, one.second] * SECONDS_PER_BORDER_ELEMENT)


# ---- what a plan weighs at least ------------------------------------------------------------------------------------

WIDTHS = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "int8_dynamic": 1.0, "int8_weights": 1.0}
WIDTHS |= {"w4a8": 0.5, "w4_grouped": 0.5, "w2a8": 0.2, **{f"w{bits}a8": bits / 8 for bits in (1, 3, 5, 6, 7)}}


@law
@given(st.lists(st.sampled_from(sorted(WIDTHS)), min_size=4, max_size=4), st.integers(0, 3), st.floats(0.1, 1.6))
def test_a_forecast_is_the_sum_and_hopeless_is_what_is_over_the_tolerance(world, kinds, changed, share):
    weights = {f"block.{i}.weight": np.zeros(count, np.float32) for i, count in enumerate(world.elements)}
    plan = world.plan(*kinds)
    total = sum(count * WIDTHS[kind] for count, kind in zip(world.elements, kinds, strict=True))
    assert least_bytes(world.graph, weights, plan) == pytest.approx(total)
    narrower = world.plan(*[*kinds[:changed], "w1a8", *kinds[changed + 1 :]])
    assert least_bytes(world.graph, weights, narrower) <= total
    budget = Budget(size=max(1, round(total * share)))
    refused = bool(hopeless(world.graph, weights, budget)(plan))
    missed = overshoot(world.graph, weights, budget)(plan)
    assert refused == (total > budget.size * TOLERANCE)
    assert missed == pytest.approx(max(0.0, total / budget.size - 1))


def test_every_precision_that_computes_has_its_width_in_the_table():
    assert set(WIDTHS) == set(PRECISIONS) - {"palette"}
