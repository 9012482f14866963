"""The rate of each layer: the entropy of the integers that it would be stored as."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.plan import PRECISIONS, WEIGHT_BITS, LayerPlan, Step
from haversack.choose.options import FACTORS, stores
from haversack.compress.rates import rates
from haversack.compress.weights import store
from haversack.tools.numerics import planes
from haversack.tools.numerics.entropy import bits_per_code

WIDE = "wide:conv2d#0"


def test_each_kind_has_the_entropy_of_its_integers_and_a_share_of_its_scales(folded):
    ways = stores(["int8", "w4a8"])
    found = rates(folded, lambda _: ways)
    node = folded.graph.by_key[WIDE]
    assert found[WIDE].keys() == ways.keys()
    for kind, layer in ways.items():
        stored = store(folded, node, layer, None)
        (codes,) = stored.integers.values()
        scales = stored.tensors[f"{WIDE}:weight"].scale
        most = 32 * len(scales) / codes.size
        assert bits_per_code(codes) < found[WIDE][kind] <= bits_per_code(codes) + most


@pytest.mark.parametrize("kind", ["w7a8", "w5a8", "w3a8", "w2a8", "w1a8"])
def test_what_is_packed_has_the_entropy_of_its_bytes(folded, kind):
    bits, node = WEIGHT_BITS[kind], folded.graph.by_key[WIDE]
    layer = stores(["int8", "w4a8"], PRECISIONS)[kind]
    found = rates(folded, lambda _: {kind: layer})[WIDE][kind]
    (codes,) = store(folded, node, layer, None).integers.values()
    packed = sum(bits_per_code(plane) * plane.size for plane in planes.pack(codes, bits)) / codes.size
    scales = len(codes) * 32 / codes.size
    assert packed < found <= packed + scales
    assert packed <= planes.stored_bits(bits) * 1.1


def test_coarser_steps_weigh_less(folded):
    found = rates(folded, lambda _: stores(["int8"]))
    for each in found.values():
        falling = [each["int8"], *(each[f"int8/{factor:g}"] for factor in FACTORS)]
        assert falling[0] > falling[6] > falling[-1]


def test_what_a_layer_cannot_have_is_left_out(folded):
    grouped = {"w4_grouped": LayerPlan("w4_grouped")}
    assert rates(folded, lambda node: grouped if node.key == WIDE else {}) == {}


@pytest.mark.parametrize("of", ["mse", "minmax", "percentile"])
def test_coarse_scales_are_another_parts_times_the_factor(folded, of):
    node = folded.graph.by_key[WIDE]
    plain, coarse = (
        store(folded, node, LayerPlan("int8", weights=step), None).tensors[f"{WIDE}:weight"].scale
        for step in (Step(of), Step("coarse", {"of": of, "factor": 4.0}))
    )
    assert (np.abs(coarse - plain * 4) <= plain * 4 / 32).all()
    assert not (np.ascontiguousarray(coarse).view(np.uint32) & 0x3FFFF).any(), "six bits of mantissa, the first unsaid"
    assert (coarse >= plain).all()


@pytest.mark.parametrize("settings", [{"factor": 0.5}, {"factor": -1e300}, {"of": "coarse"}])
def test_a_setting_out_of_range_is_refused(folded, settings):
    from haversack.base.errors import UsageError

    with pytest.raises(UsageError, match="coarse"):
        store(folded, folded.graph.by_key[WIDE], LayerPlan("int8", weights=Step("coarse", settings)), None)


def test_short_scales_weigh_less(folded):
    """A factor of 1 changes the scales' mantissas alone."""
    ways = {
        "plain": LayerPlan("int8", weights=Step("minmax")),
        "short": LayerPlan("int8", weights=Step("coarse", {"of": "minmax", "factor": 1.0})),
    }
    found = rates(folded, lambda _: ways)[WIDE]
    codes = {kind: store(folded, folded.graph.by_key[WIDE], layer, None).integers for kind, layer in ways.items()}
    plain, short = (found[kind] - bits_per_code(next(iter(codes[kind].values()))) for kind in ways)
    assert short < 0.7 * plain
