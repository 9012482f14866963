"""Palettes as options of layers: taken where bytes are short and time is not, at float's seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from alone import propose

from haversack.base.budget import Budget
from haversack.base.graph import Node, TensorSpec
from haversack.base.plan import PRECISIONS, STATIC, LayerPlan, Plan, Step
from haversack.base.profile import Profile
from haversack.choose.forecast import computes_integers, least_bytes
from haversack.choose.mixing import Mixer
from haversack.choose.options import PALETTE_BITS, options, stored_bits, stores, ways

ABLE = (*PRECISIONS, "palette")
BOOKS = {bits: LayerPlan("palette", "tensor", Step("kmeans", {"bits": bits})) for bits in PALETTE_BITS}
ERRORS = {6: 0.02, 4: 0.06}


@dataclass
class Booked:
    """The little world, in which the loss of palettes was measured for all layers but the last."""

    world: object

    @property
    def profile(self):
        known = self.world.profile
        losses = {key: dict(found) for key, found in known.sensitivity.items()}
        rates = {}
        for key in self.world.layers[:-1]:
            losses[key] |= {BOOKS[bits].kind: error for bits, error in ERRORS.items()}
            rates[key] = {BOOKS[bits].kind: bits - 0.25 for bits in PALETTE_BITS}
        return Profile(known.seconds, losses, rates)

    @property
    def elements(self):
        return dict(zip(self.world.layers, self.world.elements, strict=True))

    def mixer(self, able=ABLE):
        return Mixer(self.world.graph, self.profile, self.elements, {"onnxruntime": able})

    def options(self, base, able=ABLE):
        speed = {"onnxruntime": {"int8": 0.5, "int8_weights": 1.1}}
        return options(
            self.world.graph, self.profile, base, weight_elements=self.elements, speed=speed, precisions=able
        )


@pytest.fixture
def booked(world):
    return Booked(world)


def test_a_kind_tells_part_bits_and_group():
    assert BOOKS[6].kind == "palette/kmeans/6"
    assert LayerPlan("palette", weights=Step("log")).kind == "palette/log/4"
    assert LayerPlan("palette", weights=Step("kmeans", {"bits": 3, "group": 16})).kind == "palette/kmeans/3/16"
    assert LayerPlan("int8", weights=Step("coarse", {"factor": 4.0})).kind == "int8/4"


@pytest.mark.parametrize(("bits", "held"), [(1, 4), (3, 4), (4, 4), (5, 8), (6, 8), (8, 8)])
def test_what_a_weight_takes_in_all_files(bits, held):
    spec = TensorSpec((4, 8), "float32")
    layer = Node("a:linear#0", "linear", "a", ("x:input#0",), spec, weight="w", parameters=("w",))
    table = Node("t:embedding#0", "embedding", "t", (), spec, weight="t", parameters=("t",))
    book = LayerPlan("palette", weights=Step("kmeans", {"bits": bits}))
    assert stored_bits(book, layer) == held
    assert stored_bits(book, table) == 8
    assert stored_bits(LayerPlan("int8"), layer) == 8
    assert stored_bits(LayerPlan("float16"), table) == 16


def test_they_are_options_where_their_loss_is_known(world, booked):
    found = booked.options(world.plan("int8").layers)
    kinds = [[option.plan.kind for option in found[key]] for key in world.layers]
    assert kinds == [["int8", "palette/kmeans/6", "palette/kmeans/4", "float16", "float32"]] * 3 + [
        ["int8", "float16", "float32"]
    ]
    whole, six, four = found[world.layers[0]][:3]
    assert (six.bytes, four.bytes) == (whole.bytes, whole.bytes / 2)
    assert (six.loss, four.loss) == pytest.approx((0.02**2, 0.06**2))
    assert six.download == pytest.approx(world.elements[0] * 5.75 / 8)
    assert six.seconds == found[world.layers[0]][-1].seconds  # float's


def test_a_target_without_them_is_not_offered_them(world, booked):
    found = booked.options(world.plan("int8").layers, PRECISIONS)
    assert not any("palette" in option.plan.kind for each in found.values() for option in each)


def stored_only(world):
    """Return a candidate with 8-bit weights that compute in float: as large as int8."""
    return replace(world.evaluate(world.plan("int8")), plan=world.plan("int8_weights"))


def test_a_short_file_takes_them_where_time_allows(world, booked):
    base = stored_only(world)
    size = round(base.artifact.bytes * 0.75)
    plan, forecast = propose(booked.mixer(), base, Budget(size=size), 0.0)
    assert "palette/kmeans/4" in {layer.kind for layer in plan.layers.values()}
    assert forecast.bytes <= size
    _, short = propose(booked.mixer(PRECISIONS), base, Budget(size=size), 0.0)
    assert short.bytes > size  # without palettes nothing is smaller than 8 bits here


def test_without_a_limit_on_bytes_nothing_asks_for_them(world, booked):
    plan, _ = propose(booked.mixer(), stored_only(world), Budget(latency_ratio=2.0), 0.0)
    assert not any("palette" in layer.kind for layer in plan.layers.values())


def test_where_8_bits_fit_no_palette_takes_the_time_that_is_left(world, booked):
    """A palette of the first layer would lose less than its 8 bits do, and compute in float; the limits allow both."""
    base = world.evaluate(world.plan("int8"))
    tight, _ = propose(booked.mixer(), base, Budget(size=round(base.artifact.bytes * 0.75), latency_ratio=2.0), 0.0)
    assert "palette" in {layer.precision for layer in tight.layers.values()}
    wide, _ = propose(booked.mixer(), base, Budget(size=base.artifact.bytes + 1_000, latency_ratio=2.0), 0.0)
    assert {layer.precision for layer in wide.layers.values()} == {"int8"}


def test_integers_alone_come_first_where_they_fit(world, booked):
    """A mixture of integers can be proven bit for bit, though palettes would lose less."""
    losses = {key: {**found, "w4a8": 0.2} for key, found in booked.profile.sensitivity.items()}
    known = replace(booked.profile, sensitivity=losses)
    base = world.evaluate(world.plan("int8"))
    plan, _ = propose(replace(booked.mixer(), profile=known), base, Budget(size=round(base.artifact.bytes * 0.75)), 0.0)
    assert {"int8"} < {layer.precision for layer in plan.layers.values()} <= STATIC


def test_what_is_measured_and_weighed_names_them_only_where_asked():
    assert not any("palette" in kind for kind in {**ways(["int8"]), **stores(["int8"])})
    for found in (ways(["int8"], palettes=True), stores(["int8"], palettes=True)):
        assert {kind: plan for kind, plan in found.items() if "palette" in kind} == {
            BOOKS[bits].kind: BOOKS[bits] for bits in PALETTE_BITS
        }


def test_a_lower_bound_counts_the_bits_of_an_index(world):
    import numpy as np

    weights = {f"block.{i}.weight": np.zeros(count, np.float32) for i, count in enumerate(world.elements)}
    plans = {bits: Plan("coreml", dict.fromkeys(world.layers, book)) for bits, book in BOOKS.items()}
    total = sum(world.elements)
    assert {bits: least_bytes(world.graph, weights, plan) for bits, plan in plans.items()} == {
        6: total * 0.75, 4: total * 0.5,
    }  # fmt: skip
    assert not computes_integers(plans[6])
