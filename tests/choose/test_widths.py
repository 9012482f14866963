"""Widths between and below 8 and 4 bits as options: their losses are forecast from the two that are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from alone import propose

from haversack.base.budget import Budget
from haversack.base.plan import PRECISIONS, STATIC, WEIGHT_BITS, WIDTHS, LayerPlan
from haversack.base.profile import Profile
from haversack.choose.mixing import Mixer
from haversack.choose.options import BYTES_PER_WEIGHT, LEAST_PACKED, QUANTIZERS, options, stores
from haversack.tools.graph.onnx import unpack
from haversack.tools.numerics import planes

ERRORS = (0.2, 0.5, 0.1, 0.4)


@dataclass
class Wide:
    """The little world, with the loss of every layer in 4 bits."""

    world: object

    @property
    def elements(self):
        return dict(zip(self.world.layers, self.world.elements, strict=True))

    def profile(self, rates=None):
        known = self.world.profile
        losses = {key: dict(found) for key, found in known.sensitivity.items()}
        for key, error in zip(self.world.layers, ERRORS, strict=True):
            losses[key]["w4a8"] = error
        return Profile(known.seconds, losses, rates or {})

    def options(self, base, rates=None, **settings):
        speed = {"onnxruntime": dict.fromkeys(STATIC, 0.5)}
        return options(
            self.world.graph, self.profile(rates), base, weight_elements=self.elements, speed=speed, **settings
        )


@pytest.fixture
def wide(world):
    return Wide(world)


def test_every_width_is_an_option_with_its_bytes_and_a_loss_between_or_beyond(world, wide):
    found = wide.options(world.plan("int8").layers)
    for key in world.layers:
        if wide.elements[key] < LEAST_PACKED:
            assert {o.plan.precision for o in found[key]} & STATIC == {"int8", "w4a8"}
            continue
        losses = wide.profile().sensitivity[key]
        by_bits = {WEIGHT_BITS[o.plan.precision]: o for o in found[key] if o.plan.precision in STATIC}
        assert sorted(by_bits) == list(range(1, 9))
        assert by_bits[8].loss == pytest.approx(losses["int8"] ** 2)
        assert by_bits[4].loss == pytest.approx(losses["w4a8"] ** 2)
        falling = [by_bits[bits].loss for bits in range(1, 9)]
        assert falling == sorted(falling, reverse=True)
        steps = (losses["w4a8"] ** 2 - losses["int8"] ** 2) / (4.0**-4 - 4.0**-8)
        assert by_bits[6].loss == pytest.approx(losses["int8"] ** 2 + steps * (4.0**-6 - 4.0**-8))
        assert by_bits[2].loss == pytest.approx(losses["int8"] ** 2 + steps * (4.0**-2 - 4.0**-8))
        for bits, option in by_bits.items():
            use = unpack.use_bytes(f"{key}:weight", bits)[0] if bits in planes.WIDTHS else 0
            use = unpack.cast_bytes(f"{key}:weight") if bits == 4 else use
            assert option.bytes == pytest.approx(wide.elements[key] * (1.6 if bits == 2 else bits) / 8 + use)
            assert (option.needs is None) == (bits not in planes.WIDTHS)
            assert option.plan.weights == QUANTIZERS[bits] or bits == 8


def test_a_width_that_does_better_than_eight_bits_gains_nothing(world, wide):
    base = world.plan("int8").layers
    found = wide.options(base)
    better = Profile({}, {key: {"int8": 0.5, "w4a8": 0.1} for key in world.layers})
    speed = {"onnxruntime": dict.fromkeys(STATIC, 0.5)}
    flat = options(world.graph, better, base, weight_elements=wide.elements, speed=speed)
    assert {round(o.loss, 9) for o in flat[world.layers[0]] if o.plan.precision == "w6a8"} == {0.25}
    assert found.keys() == flat.keys()


def test_a_target_without_a_width_is_not_offered_it(world, wide):
    found = wide.options(world.plan("int8").layers, precisions=("int8", "w4a8", "w3a8"))
    assert {o.plan.precision for key in world.layers for o in found[key]} & STATIC == {"int8", "w4a8", "w3a8"}


def test_the_knapsack_gives_each_layer_the_bits_that_it_needs(world, wide):
    mixer = Mixer(world.graph, wide.profile(), wide.elements, {"onnxruntime": PRECISIONS})
    plan, told = propose(mixer, world.evaluate(world.plan("int8")), Budget(size=150_000))
    bits = {WEIGHT_BITS[plan.layers[key].precision] for key in world.layers}
    assert told.bytes <= 150_000
    assert bits - {4, 8}
    only = Mixer(world.graph, wide.profile(), wide.elements, {"onnxruntime": ("int8", "w4a8")})
    _, coarse = propose(only, world.evaluate(world.plan("int8")), Budget(size=150_000))
    assert told.relative_error < coarse.relative_error


def test_rates_are_asked_for_where_all_targets_have_a_width():
    assert {"w3a8", "w6a8"} <= set(stores(["int8", "w4a8"], PRECISIONS))
    assert "w3a8" not in stores(["int8", "w4a8"], ["int8", "w4a8"])
    assert "w3a8" not in stores(["int8"], PRECISIONS)
    assert stores(["int8", "w4a8"], PRECISIONS)["w3a8"] == LayerPlan("w3a8", weights=QUANTIZERS[3])


def test_a_download_counts_the_rate_that_is_known_and_dense_bytes_otherwise(world, wide):
    key = world.layers[0]
    base = world.plan("int8").layers
    found = {o.plan.precision: o for o in wide.options(base, {key: {"w3a8": 2.5}}, packing=0.5)[key]}
    use = unpack.use_bytes(f"{key}:weight", 5)[1]
    assert found["w3a8"].download == pytest.approx(wide.elements[key] * 2.5 / 8 + use)
    assert found["w5a8"].download == pytest.approx(wide.elements[key] * 5 / 8 + use)
    weights = found["w4a8"].bytes - unpack.cast_bytes(f"{key}:weight")
    assert found["w4a8"].download == pytest.approx(weights / 2 + unpack.NAMES_DOWNLOADED)


def test_bytes_follow_the_bits_that_are_stored():
    assert {bits: BYTES_PER_WEIGHT[one] * 8 for bits, one in WIDTHS.items()} == {
        **{bits: bits for bits in (1, 3, 4, 5, 6, 7, 8)},
        2: pytest.approx(1.6),
    }


def test_a_forecast_counts_what_unpacks_each_width_once(world, wide, make):
    """From a base of planes as from one of bytes: what the measured file has of it is none of the fixed bytes."""
    mixer = Mixer(world.graph, wide.profile(), wide.elements, {"onnxruntime": PRECISIONS})
    whole = [key for key in world.layers if wide.elements[key] >= LEAST_PACKED]

    def file(plan):
        kinds = {key: WEIGHT_BITS[plan.layers[key].precision] for key in world.layers}
        packed = {key: bits for key, bits in kinds.items() if bits in planes.WIDTHS}
        functions = {unpack.name_of(wide.elements[key], bits) for key, bits in packed.items()}
        return (
            world.overhead
            + sum(wide.elements[key] * BYTES_PER_WEIGHT[WIDTHS[bits]] for key, bits in kinds.items())
            + sum(unpack.use_bytes(f"{key}:weight", bits)[0] for key, bits in packed.items())
            + sum(unpack.function_bytes(name)[0] for name in functions)
        )

    for kind in ("int8", "w6a8"):
        layers = {key: LayerPlan(kind if key in whole else "int8") for key in world.layers}
        base = replace(world.plan("int8"), layers=layers)
        measured = replace(make(size=round(file(base))), plan=base)
        plan, told = propose(mixer, measured, Budget(size=110_000))
        assert len({layer.precision for layer in plan.layers.values()} & {"w1a8", "w2a8", "w3a8", "w5a8"}) >= 1
        assert told.bytes == pytest.approx(file(plan), abs=1)
        assert told.bytes <= 110_000
        assert mixer.expect("onnxruntime", plan, measured).bytes == pytest.approx(file(plan), abs=1)
