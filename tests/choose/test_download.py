"""A limit on the download: coarser steps for the layers that lose least by them, where nothing else is gained."""

from __future__ import annotations

from dataclasses import replace

import pytest
from alone import best, propose
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.budget import Budget
from haversack.base.plan import PRECISIONS, LayerPlan, Step
from haversack.base.profile import Profile
from haversack.choose.mixing import MIXED, Mixer
from haversack.choose.options import FACTORS, PROBE, options, stores, ways

BITS = 7.2
"""Entropy of the little world's int8 codes; each doubling of a step takes a bit off."""


def rate(factor: float) -> float:
    return BITS - 3 * FACTORS.index(factor) / 9 - 1 / 3 if factor in FACTORS else BITS


@pytest.fixture
def light(world):
    """The little world, in which coarser steps are known: their squared loss grows with the square of the factor."""
    known = world.profile
    losses = {
        key: {**found, f"int8/{PROBE:g}": (found["int8"] ** 2 * (1 + 0.01 * (PROBE**2 - 1))) ** 0.5}
        for key, found in known.sensitivity.items()
    }
    rates = {key: {"int8": BITS, **{f"int8/{one:g}": rate(one) for one in FACTORS}} for key in world.layers}
    mixer = world.mixer
    return Mixer(mixer.graph, Profile(known.seconds, losses, rates), mixer.weight_elements, mixer.precisions)


def factors(plan):
    return [layer.weights.settings.get("factor", 1.0) for layer in plan.layers.values()]


def test_coarser_steps_are_options_only_where_the_download_is_limited(world, light):
    base = world.evaluate(world.plan("int8"))
    plan, _ = propose(light, base, Budget(download=100_000), 0.0)
    assert "coarse" in {layer.weights.part for layer in plan.layers.values()}
    made, _ = propose(light, base, Budget(size=100_000), 0.0)
    assert "coarse" not in {layer.weights.part for layer in made.layers.values()}


def test_the_download_is_met_and_the_size_is_what_it_was(world, light):
    base = world.evaluate(world.plan("int8"))
    plan, told = propose(light, base, Budget(download=100_000), 0.0)
    assert told.download_bytes <= 100_000 * (1 + 1e-5)
    assert told.bytes == pytest.approx(base.artifact.bytes)
    assert told.latency_ratio == pytest.approx(base.latency.ratio)
    assert max(factors(plan)) > 8


def test_the_layer_that_loses_most_gets_the_finest_steps(world, light):
    plan, _ = propose(light, world.evaluate(world.plan("int8")), Budget(download=150_000), 0.0)
    per_weight = dict(
        zip(world.layers, (e**2 / n for e, n in zip(world.errors, world.elements, strict=True)), strict=True)
    )
    order = sorted(per_weight, key=per_weight.__getitem__)
    found = dict(zip(plan.layers, factors(plan), strict=True))
    assert [found[key] for key in order] == sorted(found.values(), reverse=True)
    assert len(set(found.values())) > 2


@pytest.mark.parametrize("tighter", [180_000, 160_000, 140_000, 120_000])
def test_a_tighter_limit_loses_more(world, light, tighter):
    base = world.evaluate(world.plan("int8"))
    wide, narrow = (propose(light, base, Budget(download=limit), 0.0)[1] for limit in (tighter + 15_000, tighter))
    assert narrow.relative_error > wide.relative_error


@given(st.sampled_from(FACTORS), st.floats(1e-4, 0.5), st.floats(0, 0.5))
def test_between_what_was_measured_squared_loss_grows_with_the_square_of_the_factor(factor, fine, more):
    key, probe = "a:linear#0", (fine**2 + more**2) ** 0.5
    graph = Chain.graph(key)
    profile = Profile({}, {key: {"int8": fine, f"int8/{PROBE:g}": probe}}, {key: {f"int8/{PROBE:g}": 4.0}})
    found = options(graph, profile, {key: LayerPlan()}, weight_elements={key: 10}, speed={"here": {}}, light=True)[key]
    loss = next(one.loss for one in found if one.plan.weights.settings.get("factor") == factor)
    assert loss == pytest.approx(fine**2 + more**2 * (factor**2 - 1) / (PROBE**2 - 1), rel=1e-6, abs=1e-12)


class Chain:
    @staticmethod
    def graph(key):
        from haversack.base.graph import Graph, Node, TensorSpec

        spec = TensorSpec(("batch", 4), "float32")
        nodes = (Node(":input#0", "input", "x", (), spec), Node(key, "linear", "a", (":input#0",), spec, weight="w"))
        return Graph(nodes, (":input#0",), (key,))


def test_without_the_probe_there_are_no_coarser_steps(world, light):
    blind = replace(light, profile=replace(light.profile, sensitivity=world.profile.sensitivity))
    plan, told = propose(blind, world.evaluate(world.plan("int8")), Budget(download=150_000), 0.0)
    assert "coarse" not in {layer.weights.part for layer in plan.layers.values()}
    assert told.download_bytes > 150_000


def test_a_coarse_layer_keeps_the_part_that_sets_its_scales():
    plan = ways(["int8"])[f"int8/{PROBE:g}"]
    assert plan.weights == Step("coarse", {"factor": PROBE})
    assert LayerPlan("int8", weights=Step("coarse", {"factor": 4.0, "of": "minmax"})).kind == "int8/4"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_probed_is_stored(precision):
    probed, stored = ways([precision]), stores([precision])
    assert probed.items() <= stored.items()
    eight = precision in {"int8", "int8_dynamic", "int8_weights"}
    assert (len(probed), len(stored)) == ((2, 1 + len(FACTORS)) if eight else (1, 1))


def test_where_no_download_is_asked_for_nothing_is_probed():
    assert list(ways(["int8", "w4a8"], light=False)) == ["int8", "w4a8"]


def test_the_search_makes_such_a_mixture_real(world, light):
    def evaluate(plan):
        found = world.evaluate(plan)
        weights = zip(world.elements, factors(plan), strict=True)
        size = round(sum(n * rate(one) / 8 for n, one in weights)) + 5_000
        (file,) = found.artifact.files
        return replace(found, artifact=replace(found.artifact, files=(replace(file, download_bytes=size),)))

    found = best([world.plan("int8")], Budget(download=140_000), evaluate, mixer=light)
    assert found[0].plan.origin == MIXED
    assert found[0].verdict == "chosen"
    assert 130_000 < found[0].artifact.download_bytes <= 140_000
