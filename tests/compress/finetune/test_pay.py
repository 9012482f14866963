"""What pays: gains of layers, bytes by entropy, and the knapsack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.progress import silent
from haversack.compress.finetune.course import Course, mean_loss, train
from haversack.compress.finetune.pay import Offer, afforded, forecast, offers, scaled


@pytest.fixture(scope="module")
def trained(released, layers, lesson, loss, tmp_path_factory):
    from haversack.compress.finetune.tuned import Tuned

    ways = dict.fromkeys(layers, "weights")
    one = Tuned(released.model, released.encodings, ways)
    place = tmp_path_factory.mktemp("pay") / "kept"
    train(one, lesson[0], lesson[1], loss, Course(epochs=2, rate=0.5), place=place, key="", sink=silent)
    return one, ways


def test_a_gain_is_the_mean_of_alone_and_last(trained, lesson, loss):
    one, ways = trained
    held = lesson[1]
    found = {offer.layer: offer for offer in offers(one, ways, held, loss)}
    assert {*found} == {*ways}
    for key in ways:
        alone = mean_loss(one, held, loss, ()) - mean_loss(one, held, loss, [key])
        last = mean_loss(one, held, loss, [k for k in ways if k != key]) - mean_loss(one, held, loss)
        assert found[key].gain == pytest.approx((alone + last) / 2, abs=1e-6)
    pays = [offer.pay for offer in offers(one, ways, held, loss)]
    assert pays == sorted(pays, reverse=True)


def test_bytes_follow_from_what_changes(trained, layers):
    one, _ = trained
    sizes = forecast(one)
    _, encodings = one.hardened()
    for key in layers:
        count = encodings.integers[f"{key}:weight"].size
        assert 0 < sizes[key] <= count + 4 * one.model.weights[one.model.graph.by_key[key].bias].size


def test_what_does_not_change_takes_nothing(tuned, layers):
    for way in ("channels", "weights"):
        assert set(forecast(tuned(dict.fromkeys(layers, way))).values()) == {0.0}


def offer(layer, gain, size, way="weights"):
    return Offer(layer, way, gain, size)


def test_the_best_paid_are_taken_while_they_fit():
    given = [offer("a", 5.0, 100), offer("b", 4.0, 10), offer("c", 1.0, 5), offer("d", -1.0, 1)]
    assert {one.layer for one in afforded(given, 20)} == {"b", "c"}
    assert {one.layer for one in afforded(given, 115)} == {"a", "b", "c"}
    assert afforded(given, 4) == ()


def test_a_layer_changes_in_one_way_and_in_the_dearer_one_where_there_is_room():
    cheap, dear = offer("a", 2.0, 10, "channels"), offer("a", 3.0, 50, "weights")
    assert afforded([cheap, dear], 30) == (cheap,)
    assert afforded([cheap, dear], 60) == (dear,)


several = st.builds(
    offer, st.sampled_from("abcdef"), st.floats(-1, 5), st.floats(1, 40), st.sampled_from(["channels", "weights"])
)


@given(st.lists(several, max_size=9), st.floats(0, 100))
def test_what_is_afforded_fits_and_holds_each_layer_once(given, limit):
    found = afforded(given, limit)
    assert sum(one.bytes for one in found) <= limit + 1e-6
    assert len({one.layer for one in found}) == len(found)
    assert all(one in given and one.gain > 0 for one in found)
    assert bool(found) is any(one.gain > 0 and one.bytes <= limit for one in given)


@given(st.lists(several, max_size=9))
def test_with_room_for_all_each_layer_has_its_best_way(given):
    best = {layer: max(one.gain for one in given if one.layer == layer) for layer in {one.layer for one in given}}
    wanted = sum(gain for gain in best.values() if gain > 0)
    assert sum(one.gain for one in afforded(given, 1000)) == pytest.approx(wanted)


def test_scaling_changes_bytes_alone():
    one = offer("a", 2.0, 10)
    assert scaled([one], 1.5) == (replace(one, bytes=15.0),)
    assert np.isclose(scaled([one], 1.5)[0].pay, 2.0 / 15)
