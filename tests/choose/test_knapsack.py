"""The knapsack against brute force, and the laws that any solution keeps."""

from __future__ import annotations

import itertools
import math

import pytest
from alone import HERE, option, solve
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.choose.options import Border, Once

PRECISIONS = ("int8", "float16", "float32")
CLOSE = 1e-3
"""The solver may end within 1e-4 of the best, and counts a limit as kept within 1e-6 of it."""


@st.composite
def instances(draw):
    """Draw up to four layers with up to three options each, and borders between neighbours."""
    costs = st.integers(0, 60)
    layers = {}
    for index in range(draw(st.integers(1, 4))):
        kinds = draw(st.lists(st.sampled_from(PRECISIONS), min_size=1, max_size=3, unique=True))
        layers[f"l{index}"] = tuple(
            option(f"l{index}", kind, draw(costs), draw(costs), draw(costs) / 10) for kind in kinds
        )
    names = list(layers)
    pairs = [pair for pair in itertools.pairwise(names) if draw(st.booleans())]
    if len(names) > 2 and draw(st.booleans()):
        pairs.append((names[0], names[-1]))
    return layers, tuple(Border(first, second, float(draw(st.integers(0, 30)))) for first, second in pairs)


limits = st.none() | st.integers(1, 250).map(float)


def totals(choice, borders):
    seconds = sum(one.seconds[HERE] for one in choice.values())
    for border in borders:
        ends = choice[border.first], choice[border.second]
        seconds += border.seconds * (len({one.plan.precision == "int8" for one in ends}) == 2)
    return sum(one.bytes for one in choice.values()), seconds, sum(one.loss for one in choice.values())


def every_choice(layers):
    for picked in itertools.product(*layers.values()):
        yield dict(zip(layers, picked, strict=True))


def overshoot(value, limit):
    return 0.0 if limit is None else max(0.0, value / limit - 1)


@settings(max_examples=150)
@given(instances(), limits, limits)
def test_a_feasible_instance_is_solved_as_brute_force_solves_it(instance, max_bytes, max_seconds):
    layers, borders = instance
    possible = []
    for choice in every_choice(layers):
        size, seconds, loss = totals(choice, borders)
        if not overshoot(size, max_bytes) and not overshoot(seconds, max_seconds):
            possible.append(loss)
    found = solve(layers, max_bytes=max_bytes, max_seconds=max_seconds, borders=borders)
    assert found.feasible == bool(possible)
    if possible:
        assert found.loss <= min(possible) + CLOSE * (1 + min(possible))
        assert max_bytes is None or found.bytes <= max_bytes * (1 + 1e-5)
        assert max_seconds is None or found.seconds(HERE) <= max_seconds * (1 + 1e-5)


@settings(max_examples=150)
@given(instances(), st.integers(1, 40).map(float), st.integers(1, 40).map(float))
def test_an_infeasible_instance_gets_the_nearest_choice(instance, max_bytes, max_seconds):
    layers, borders = instance
    nearest = math.inf
    for choice in every_choice(layers):
        size, seconds, _ = totals(choice, borders)
        nearest = min(nearest, overshoot(size, max_bytes) + overshoot(seconds, max_seconds))
    found = solve(layers, max_bytes=max_bytes, max_seconds=max_seconds, borders=borders)
    assert found.feasible == (nearest == 0)
    got = overshoot(found.bytes, max_bytes) + overshoot(found.seconds(HERE), max_seconds)
    assert got <= nearest + CLOSE * (1 + nearest)


@settings(max_examples=60)
@given(instances(), limits, limits)
def test_one_option_a_layer_and_true_sums(instance, max_bytes, max_seconds):
    layers, borders = instance
    found = solve(layers, max_bytes=max_bytes, max_seconds=max_seconds, borders=borders)
    assert list(found.chosen) == list(layers)
    assert all(one in layers[layer] for layer, one in found.chosen.items())
    assert (found.bytes, found.seconds(HERE), found.loss) == pytest.approx(totals(found.chosen, borders))


@settings(max_examples=40)
@given(instances(), st.integers(10, 150).map(float), st.integers(0, 100).map(float))
def test_more_room_never_costs_more_loss(instance, max_bytes, more):
    layers, borders = instance
    tight = solve(layers, max_bytes=max_bytes, borders=borders)
    wide = solve(layers, max_bytes=max_bytes + more, borders=borders)
    if tight.feasible:
        assert wide.feasible
        assert wide.loss <= tight.loss + CLOSE * (1 + tight.loss)


@settings(max_examples=30)
@given(instances(), st.sampled_from([1e-9, 1e-3, 1e6, 1e12]))
def test_the_unit_of_a_limit_does_not_matter(instance, unit):
    layers, _ = instance
    scaled = {
        layer: tuple(option(layer, one.plan.precision, one.bytes * unit, 0, one.loss) for one in found)
        for layer, found in layers.items()
    }
    plain = solve(layers, max_bytes=70.0)
    other = solve(scaled, max_bytes=70.0 * unit)
    assert plain.feasible == other.feasible
    assert other.loss == pytest.approx(plain.loss, rel=CLOSE, abs=CLOSE) or not plain.feasible


def test_without_limits_the_least_loss_is_taken_in_every_layer():
    layers = {
        "a": (option("a", "int8", 1, 1, 0.5), option("a", "float32", 4, 2, 0.0)),
        "b": (option("b", "int8", 1, 1, 0.1), option("b", "float16", 2, 2, 0.2)),
    }
    found = solve(layers)
    assert found.feasible
    assert [one.plan.precision for one in found.chosen.values()] == ["float32", "int8"]
    assert (found.bytes, found.seconds(HERE), found.loss) == (5, 3, 0.1)


def test_the_room_goes_to_the_layer_where_it_saves_most():
    layers = {
        name: (option(name, "int8", 1, 0, loss), option(name, "float32", 4, 0, 0.0))
        for name, loss in {"calm": 0.1, "touchy": 0.9, "middling": 0.4}.items()
    }
    found = solve(layers, max_bytes=6)
    assert {layer: one.plan.precision for layer, one in found.chosen.items()} == {
        "calm": "int8",
        "touchy": "float32",
        "middling": "int8",
    }


def test_a_border_keeps_a_lone_float_layer_out_of_an_integer_chain():
    layers = {
        name: (option(name, "int8", 1, 1.0, loss), option(name, "float32", 4, 1.0, 0.0))
        for name, loss in {"first": 0.0, "second": 0.5, "third": 0.0}.items()
    }
    for name in ("first", "third"):  # these have no other choice
        layers[name] = layers[name][:1]
    borders = (Border("first", "second", 1.0), Border("second", "third", 1.0))
    allowed = solve(layers, max_seconds=5.0, borders=borders)
    assert allowed.chosen["second"].plan.precision == "float32"
    assert allowed.seconds(HERE) == 5.0
    refused = solve(layers, max_seconds=4.9, borders=borders)
    assert refused.chosen["second"].plan.precision == "int8"
    assert refused.seconds(HERE) == 3.0


def test_float16_and_float32_meet_without_a_border():
    layers = {"a": (option("a", "float16", 2, 1.0),), "b": (option("b", "float32", 4, 1.0),)}
    assert solve(layers, borders=(Border("a", "b", 9.0),)).seconds(HERE) == 2.0


def test_a_border_to_a_layer_that_is_no_item_costs_nothing():
    layers = {"a": (option("a", "int8", 1, 1.0),)}
    found = solve(layers, max_seconds=1.0, borders=(Border("a", "elsewhere", 9.0),))
    assert found.feasible
    assert found.seconds(HERE) == 1.0


def test_equal_losses_of_zero_are_no_trouble():
    layers = {"a": (option("a", "int8", 1), option("a", "float32", 4))}
    found = solve(layers, max_bytes=2)
    assert found.chosen["a"].plan.precision == "int8"
    assert found.feasible


@pytest.mark.parametrize("limit", [0.0, -5.0])
def test_a_limit_without_room_is_missed_by_the_smallest(limit):
    layers = {"a": (option("a", "int8", 10, loss=0.9), option("a", "float32", 40, loss=0.0))}
    found = solve(layers, max_bytes=limit)
    assert not found.feasible
    assert found.chosen["a"].plan.precision == "int8"


def test_no_layers_no_costs():
    found = solve({}, max_bytes=0.0)
    assert found.feasible
    assert (found.chosen, found.bytes, found.download, found.seconds(HERE), found.loss) == ({}, 0.0, 0.0, 0.0, 0.0)


def test_layers_without_options_are_all_named():
    with pytest.raises(ValueError, match="layers without an option: b, c"):
        solve({"a": (option("a"),), "b": (), "c": ()})


def test_three_hundred_layers_are_solved_in_time():
    kinds = (("int8", 1.0), ("float16", 2.0), ("float32", 4.0))
    layers = {
        f"l{index}": tuple(
            option(f"l{index}", kind, width * (1 + index % 7), 1.0, (index * 37 % 101) / (100 * width**2))
            for kind, width in kinds
        )
        for index in range(300)
    }
    borders = tuple(Border(one, other, 0.01) for one, other in itertools.pairwise(layers))
    size = sum(found[0].bytes for found in layers.values())
    found = solve(layers, max_bytes=1.5 * size, max_seconds=301.0, borders=borders)
    assert found.feasible
    assert found.bytes <= 1.5 * size * (1 + 1e-5)
    assert found.loss < sum(each[0].loss for each in layers.values())


FUNCTIONS = (Once("few", 25.0, 12.0), Once("many", 6.0, 3.0))


@st.composite
def sharing(draw):
    """Draw up to four layers whose options may need one of two functions, each in the file once."""
    costs = st.integers(0, 60)
    layers = {}
    for index in range(draw(st.integers(1, 4))):
        needs = draw(st.lists(st.sampled_from((None, *FUNCTIONS)), min_size=1, max_size=3))
        layers[f"l{index}"] = tuple(
            option(f"l{index}", "int8", draw(costs), 0, draw(costs) / 10, download=draw(costs), needs=one)
            for one in needs
        )
    return layers


def weights(choice):
    """Return bytes and download bytes of a choice, by the definition."""
    taken = [*choice.values(), *{one.needs for one in choice.values()} - {None}]
    return sum(one.bytes for one in taken), sum(one.download for one in taken)


@settings(max_examples=150)
@given(sharing(), limits, limits)
def test_what_several_options_need_is_paid_once(layers, max_bytes, max_download):
    possible = []
    for choice in every_choice(layers):
        size, download = weights(choice)
        if not overshoot(size, max_bytes) and not overshoot(download, max_download):
            possible.append(sum(one.loss for one in choice.values()))
    found = solve(layers, max_bytes=max_bytes, max_download=max_download)
    assert (found.bytes, found.download) == pytest.approx(weights(found.chosen))
    assert found.feasible == bool(possible)
    if possible:
        assert found.loss <= min(possible) + CLOSE * (1 + min(possible))
        assert max_bytes is None or found.bytes <= max_bytes * (1 + 1e-5)
        assert max_download is None or found.download <= max_download * (1 + 1e-5)


@pytest.mark.parametrize(
    "layers, most, expected",
    [
        (1, 40.0, ["plain"]),  # 10 + 25 are more than 30: its function makes the narrow one the larger
        (1, 34.0, ["plain"]),
        (3, 90.0, ["plain"] * 3),
        (3, 60.0, ["narrow"] * 3),  # 3 * 10 + 25
        (3, 80.0, ["narrow", "narrow", "plain"]),  # 20 + 25 + 30
    ],
)
def test_a_function_pays_where_enough_layers_share_it(layers, most, expected):
    needs = Once("few", 25.0, 0.0)
    found = solve(
        {
            f"l{index}": (
                option(f"l{index}", "int8", 30, 0, 0.0),
                option(f"l{index}", "w3a8", 10, 0, 0.1 + index / 100, needs=needs),
            )
            for index in range(layers)
        },
        max_bytes=most,
    )
    names = {"int8": "plain", "w3a8": "narrow"}
    assert [names[one.plan.precision] for one in found.chosen.values()] == expected
    assert found.feasible
    assert found.bytes <= most
