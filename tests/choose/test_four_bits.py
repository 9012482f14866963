"""4-bit weights as options of layers: taken where bytes are short, from the layers that lose least by it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from alone import best, propose

from haversack.base.budget import Budget
from haversack.base.plan import LayerPlan
from haversack.base.profile import Profile
from haversack.choose.forecast import computes_integers
from haversack.choose.mixing import Mixer
from haversack.choose.options import CLIPPED, FULL, options
from haversack.tools.graph.onnx import unpack

NARROW_ERRORS = (0.2, 0.5, 0.1, 0.4)
ABLE = ("float32", "float16", "int8", "w4a8")
"""What a target can do whose only other width is that of 4 bits."""


@dataclass
class Narrowing:
    """The little world, in which all layers but the last may have 4-bit weights, at int8's speed."""

    world: object

    @property
    def profile(self):
        known = self.world.profile
        losses = {key: dict(found) for key, found in known.sensitivity.items()}
        for key, error in zip(self.world.layers[:-1], NARROW_ERRORS, strict=False):
            losses[key]["w4a8"] = error
        return Profile(known.seconds, losses)

    def mixer(self, **settings):
        elements = dict(zip(self.world.layers, self.world.elements, strict=True))
        return Mixer(self.world.graph, self.profile, elements, {"onnxruntime": ABLE, **settings})

    def options(self, base, **settings):
        elements = dict(zip(self.world.layers, self.world.elements, strict=True))
        speed = {"int8": 0.5, "w4a8": 0.5}
        settings = {"precisions": ABLE, **settings}
        return options(
            self.world.graph, self.profile, base, weight_elements=elements, speed={"onnxruntime": speed}, **settings
        )


@pytest.fixture
def narrowing(world):
    return Narrowing(world)


def kinds(found):
    return [option.plan.precision for option in found]


def test_four_bits_are_an_option_where_their_loss_is_known(world, narrowing):
    found = narrowing.options(world.plan("int8").layers)
    assert [kinds(found[key]) for key in world.layers] == [["int8", "w4a8", "float16", "float32"]] * 3 + [
        ["int8", "float16", "float32"]
    ]
    wide, narrow = found[world.layers[0]][:2]
    assert narrow.plan == LayerPlan("w4a8", "channel", CLIPPED)
    names = unpack.cast_bytes(f"{world.layers[0]}:weight")
    assert (narrow.bytes, narrow.seconds) == (wide.bytes / 2 + names, wide.seconds)
    assert narrow.loss == pytest.approx(0.2**2)


def test_from_four_bits_the_way_back_is_an_option(world, narrowing):
    base = {key: LayerPlan("w4a8", "tensor", CLIPPED) for key in world.layers[:2]}
    found = narrowing.options(base)
    assert kinds(found[world.layers[0]]) == ["w4a8", "int8", "float16", "float32"]
    assert found[world.layers[0]][1].plan == LayerPlan("int8", "tensor", FULL)


@pytest.mark.parametrize("precision", ["float16", "int8_weights", "int8_dynamic"])
def test_layers_that_are_not_static_stay_as_wide(world, narrowing, precision):
    base = {world.layers[0]: LayerPlan(precision)}
    assert "w4a8" not in kinds(narrowing.options(base)[world.layers[0]])


def test_a_target_without_it_is_not_offered_it(world, narrowing):
    found = narrowing.options(world.plan("int8").layers, precisions=("int8", "float32"))
    assert {one for layer in found.values() for one in kinds(layer)} == {"int8", "float32"}


@pytest.mark.parametrize(
    "limit, narrow",
    [(210_000, []), (165_000, [2]), (143_000, [0, 2]), (137_500, [0, 1, 2])],
)
def test_the_knapsack_narrows_the_layers_that_lose_least_for_their_bytes(world, narrowing, limit, narrow):
    plan, told = propose(narrowing.mixer(), world.evaluate(world.plan("int8")), Budget(size=limit), 0.0)
    found = [index for index, key in enumerate(world.layers) if plan.layers[key].precision == "w4a8"]
    assert found == narrow
    assert told.bytes <= limit
    assert told.latency_ratio == pytest.approx(0.5)


@pytest.mark.parametrize("limit, expected", [(172_500, {"int8", "w4a8"}), (218_000, {"int8", "float16"})])
def test_bytes_that_are_left_go_to_float_only_where_integers_alone_are_nothing_new(world, narrowing, limit, expected):
    """At the first limit the touchiest layer would fit in float16 once another has 4 bits, and err less: but then the
    file's bits could not be proven. At the second the uniform plan fits, and a mixture is there to err less."""
    plan, told = propose(narrowing.mixer(), world.evaluate(world.plan("int8")), Budget(size=limit), 0.0)
    assert {layer.precision for layer in plan.layers.values()} == expected
    assert told.bytes <= limit


def test_the_search_makes_the_mixture_real_from_either_uniform_plan(world, narrowing):
    uniform = world.plan("int8")
    small = replace(uniform, layers={key: LayerPlan("w4a8") for key in world.layers[:3]} | {
        world.layers[3]: LayerPlan("int8")
    })  # fmt: skip
    measured = world.evaluate(uniform)

    def evaluate(plan):
        size = world.overhead + sum(
            count * (0.5 if plan.layers[key].precision == "w4a8" else 1.0)
            for key, count in zip(world.layers, world.elements, strict=True)
        )
        made = replace(measured.artifact.files[0], bytes=round(size))
        return replace(measured, plan=plan, artifact=replace(measured.artifact, files=(made,)))

    for first in (uniform, small):
        found = best([first], Budget(size=165_000), evaluate, mixer=narrowing.mixer())
        assert found[0].artifact.bytes <= 165_000
        precisions = [found[0].plan.layers[key].precision for key in world.layers]
        assert precisions[3] == "int8"
        assert "w4a8" in precisions


def test_it_computes_integers(world):
    assert computes_integers(replace(world.plan("float32"), layers={world.layers[0]: LayerPlan("w4a8")}))
