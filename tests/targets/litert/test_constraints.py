"""What the kernels demand of encodings: ties, bounds, ratios, and which ops have integer kernels; biases as derived."""

from __future__ import annotations

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.errors import Fault
from haversack.targets.litert import LiteRT
from haversack.tools.graph.injection import bias_differences, bias_digests, derived

TARGET = LiteRT()


def biases(model, encodings):
    return derived(model, encodings, TARGET.constraints(model.graph).integer_ops)


def test_moved_values_share_one_encoding(zoo):
    found = TARGET.constraints(zoo["depthwise"][0].graph)
    assert frozenset({"x:input#0:out", "pad:pad#0:out"}) in found.ties
    assert any(":flatten#0:out" in tie for tie in found.ties)


def test_what_is_joined_shares_one_encoding(zoo):
    found = TARGET.constraints(zoo["branches"][0].graph)
    assert frozenset({":relu#0:out", ":relu#1:out", ":cat#0:out"}) in found.ties


def test_a_clamp_bounds_its_codes(zoo):
    found = TARGET.constraints(zoo["residual"][0].graph)
    assert found.bounds["act:hardtanh#0:out"] == (0.0, 6.0)
    assert TARGET.constraints(zoo["sequence"][0].graph).bounds["act:hardtanh#0:out"] == (-0.5, 0.5)


def test_adds_and_means_have_tie_free_ratios(zoo):
    found = TARGET.constraints(zoo["residual"][0].graph)
    ratios = {(ratio.input, ratio.output): ratio.multiple for ratio in found.ratios}
    assert ratios == {
        ("act:hardtanh#0:out", ":add#0:out"): 1,
        ("two:conv2d#0:out", ":add#0:out"): 1,
        (":add#0:out", ":mean#0:out"): 64,
    }


def test_integer_ops_are_those_of_the_graph(zoo):
    assert {"conv2d", "add", "mean", "linear"} <= TARGET.constraints(zoo["residual"][0].graph).integer_ops
    assert "softmax" not in TARGET.constraints(zoo["squeeze"][0].graph).integer_ops
    assert "hardswish" not in TARGET.constraints(zoo["squeeze"][0].graph).integer_ops


def test_nothing_is_fixed(zoo):
    """Softmax and sigmoid run in float here, so that their kernels' output scales bind nobody."""
    assert TARGET.constraints(zoo["squeeze"][0].graph).fixed == {}


def test_biases_are_those_of_layers_in_integers(zoo, encoded):
    model, sample = zoo["residual"]
    found = biases(model, encoded(model, [sample]))
    assert set(found) == {"one:conv2d#0", "head:linear#0"}, "the other convolution has none"
    codes, scale = found["one:conv2d#0"]
    np.testing.assert_allclose(codes * scale, model.weights["one.bias"], atol=float(scale.max()))
    assert biases(model, Encodings.none()) == {}


def test_biases_per_tensor_have_one_scale(zoo, encoded):
    model, sample = zoo["residual"]
    codes, scale = biases(model, encoded(model, [sample], "int8", "tensor"))["one:conv2d#0"]
    assert (codes.shape, scale.shape) == ((8,), ())
    assert codes.dtype == np.int32


def test_differences_of_biases_tell_what_is_wrong():
    one = (np.arange(3, dtype=np.int32), np.ones(1, np.float32))
    other = (np.arange(1, 4, dtype=np.int32), np.ones(1, np.float32))
    wanted = bias_digests({"a:linear#0": one, "b:linear#0": one, "c:linear#0": one})
    found = bias_differences(wanted, {"a:linear#0": one, "b:linear#0": other, "d:linear#0": one})
    assert found == (
        Fault("b:linear#0", "a code or the scale of its bias is not the one that was written"),
        Fault("c:linear#0", "its bias is not stored as int32 codes with a constant scale"),
        Fault("d:linear#0", "it has a bias in integers that nobody asked for"),
    )
