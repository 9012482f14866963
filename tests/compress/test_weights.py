from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.encodings import Affine, Dynamic, Float
from haversack.base.errors import JobError
from haversack.base.plan import LayerPlan, Step
from haversack.compress.weights import store
from haversack.tools.numerics.affine import bias_codes, dequantize, from_range


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(6, 4)
        self.layer = nn.Linear(4, 3)
        self.bare = nn.Linear(3, 2, bias=False)

    def forward(self, ids):
        return self.bare(self.layer(self.table(ids)))


@pytest.fixture(scope="module")
def model(make_model):
    torch.manual_seed(0)
    return make_model(Net(), (5,), dtype=torch.long)


LAYER, TABLE, BARE = "layer:linear#0", "table:embedding#0", "bare:linear#0"


def stored(model, key, *plan, source=None, **settings):
    return store(model, model.graph.by_key[key], LayerPlan(*plan, **settings), source)


def test_float32_stores_nothing_and_float16_says_so(model):
    assert stored(model, LAYER, "float32").tensors == {}
    made = stored(model, LAYER, "float16")
    assert made.tensors == {f"{LAYER}:weight": Float("float16")}
    assert made.integers == {}


@pytest.mark.parametrize("key, rows", [(LAYER, 3), (TABLE, 6)])
def test_one_scale_a_channel_and_codes_that_reach_127(model, key, rows):
    made = stored(model, key, "int8_weights")
    encoding = made.tensors[f"{key}:weight"]
    codes = made.integers[f"{key}:weight"]
    weight = model.weights[model.graph.by_key[key].weight]
    assert isinstance(encoding, Affine)
    assert (encoding.axis, encoding.scale.shape, encoding.signed) == (0, (rows,), True)
    assert (np.abs(codes).max(axis=1) == 127).all()
    assert np.abs(dequantize(codes, encoding) - weight).max() <= encoding.scale.max() / 2 * 1.001


def test_one_scale_a_tensor(model):
    encoding = stored(model, LAYER, "int8", "tensor").tensors[f"{LAYER}:weight"]
    assert (encoding.axis, encoding.scale.shape) == (None, ())
    assert float(encoding.scale) == pytest.approx(np.abs(model.weights["layer.weight"]).max() / 127)


def test_dynamic_says_so_at_its_input(model):
    made = stored(model, LAYER, "int8_dynamic")
    assert made.tensors[f"{LAYER}:in"] == Dynamic()
    assert set(made.integers) == {f"{LAYER}:weight"}


def test_the_quantizer_is_the_plans(model):
    ratio = Step("percentile", {"weights": 60.0})
    clipped = stored(model, LAYER, "int8", weights=ratio).tensors[f"{LAYER}:weight"].scale
    full = stored(model, LAYER, "int8").tensors[f"{LAYER}:weight"].scale
    assert (clipped < full).all()


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_a_dead_channel_gives_its_bias_room_and_is_told(model, granularity):
    weight = model.weights["layer.weight"].copy()
    weight[1 if granularity == "channel" else slice(None)] *= 1e-9
    dead = model.with_weights({"layer.weight": weight, "layer.bias": np.array([0.1, -3.0, 0.2], np.float32)})
    source = from_range(0.0, 2.0)
    made = stored(dead, LAYER, "int8", granularity, source=source)
    scale = made.tensors[f"{LAYER}:weight"].scale
    codes = bias_codes(dead.weights["layer.bias"], source.scale, scale)
    assert np.abs(codes).max() <= 1 << 22
    assert [(f.kind, f.layer) for f in made.findings] == [("dead-channel", "layer")]
    if granularity == "channel":
        assert "1 of 3" in made.findings[0].text
        healthy = stored(model, LAYER, "int8", source=source).tensors[f"{LAYER}:weight"].scale
        np.testing.assert_array_equal(scale[[0, 2]], healthy[[0, 2]])


@pytest.mark.parametrize("precision", ["int8_weights", "int8_dynamic"])
def test_a_bias_in_float_needs_no_room(model, precision):
    dead = model.with_weights({"layer.weight": model.weights["layer.weight"] * np.float32(1e-9)})
    made = stored(dead, LAYER, precision, source=from_range(0.0, 2.0))
    assert made.findings == ()


def test_a_layer_without_bias_needs_none(model):
    assert stored(model, BARE, "int8", source=from_range(0.0, 2.0)).findings == ()


def test_a_weight_that_is_not_finite_is_named(model):
    broken = model.weights["layer.weight"].copy()
    broken[0, 0] = np.nan
    with pytest.raises(JobError, match="NaN") as caught:
        stored(model.with_weights({"layer.weight": broken}), LAYER, "int8")
    assert caught.value.where == "layer"
    assert "layer.weight" in caught.value.tried


def test_the_size_of_the_kernel_reaches_the_quantizer(small_model, monkeypatch):
    from haversack.compress.quantize.minmax import MinMax

    seen = []
    inner = MinMax.weight_scales

    def spy(self, weights, bits=8, taps=1):
        seen.append((weights.shape, taps))
        return inner(self, weights, bits, taps)

    monkeypatch.setattr(MinMax, "weight_scales", spy)
    for key in ("stem:conv2d#0", "head:linear#0"):
        stored(small_model, key, "int8")
    assert seen == [((8, 27), 9), ((5, 6), 1)]
