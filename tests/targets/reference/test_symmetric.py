"""The law as a runtime with symmetric int8 keeps it, against sums and roundings written out here in whole numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.encodings import Affine, Encodings
from haversack.targets.reference import Reference
from haversack.targets.reference.symmetric import TOP, SymmetricLayer, limits, settle, snap
from haversack.tools.graph import canonical
from haversack.tools.numerics import affine


def symmetric(scale, zero=128):
    return Affine(8, signed=False, axis=None, scale=np.array(scale, np.float32), zero_point=np.array(zero, np.int32))


def away(value):
    """Round a Fraction half away from zero."""
    whole = int(abs(value) + Fraction(1, 2))
    return whole if value >= 0 else -whole


STEPS = {
    0.5: 1,
    -0.5: -1,
    1.5: 2,
    2.5: 3,
    -2.5: -3,
    0.49: 0,
    -0.49: 0,
    126.5: 127,
    127.5: 127,
    -127.5: -127,
    400.0: 127,
}


@pytest.mark.parametrize("steps, code", STEPS.items())
def test_a_half_is_rounded_away_from_zero_and_codes_end_at_127(steps, code):
    found = settle(torch.tensor([steps]), symmetric(0.25), *limits(symmetric(0.25)))
    assert float(found) == code * 0.25


@given(st.floats(-500, 500, width=32), st.sampled_from([0.25, 0.5, 1.0, 2.0]))
def test_a_value_goes_to_the_nearest_code(value, scale):
    found = float(snap(torch.tensor([value], dtype=torch.float32), symmetric(scale)))
    steps = Fraction(value) / Fraction(scale)
    assert found == max(-TOP, min(TOP, away(steps))) * scale
    assert np.signbit(found) == (found < 0), "no zero below zero"


def test_a_value_is_multiplied_by_the_inverse_of_the_scale():
    """ncnn's Quantize holds 1 / scale: at a half, that is another code than a division gives."""
    scale = np.float32(0.3)
    values = (np.arange(-200, 200) / 2 * scale).astype(np.float32)
    found = snap(torch.from_numpy(values), symmetric(scale)).numpy()
    steps = values * (np.float32(1) / scale)
    assert steps.dtype == np.float32
    wanted = np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5)) * scale
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "bounds, ends",
    [
        (None, (-127, 127)),
        ((0.0, float("inf")), (0, 127)),
        ((0.0, 6.0), (0, 60)),
        ((-0.3, 0.4), (-3, 4)),
        ((-1e9, 1e9), (-127, 127)),
        ((float("-inf"), 0.1), (-127, 1)),
    ],
)
def test_a_clamp_is_an_interval_of_codes(bounds, ends):
    assert limits(symmetric(0.1), bounds) == ends


def layer(module, example, rng, *, bias=True, scale_in=0.05, scale_out=0.3):
    """Return (model, encodings, weight codes, bias codes, multipliers) of one layer in integers."""
    if bias:
        torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    model = canonical.to_model(torch.export.export(module.eval(), (example,)), "one")
    node = next(node for node in model.graph.nodes if node.weight)
    codes = rng.integers(-127, 128, model.weights[node.weight].shape).astype(np.int32)
    scales = rng.uniform(1e-3, 1e-2, len(codes)).astype(np.float32)
    source, out, weight = symmetric(scale_in), symmetric(scale_out), affine.symmetric(scales, 8, 0)
    tensors = {f"{node.inputs[0]}:out": source, f"{node.key}:weight": weight, node.out: out}
    encodings = Encodings(tensors, {f"{node.key}:weight": codes})
    added = affine.bias_codes(module.bias.detach().numpy(), source.scale, scales) if bias else codes[:, 0].ravel() * 0
    added = np.zeros(len(codes), np.int64) if not bias else added.astype(np.int64)
    return model, encodings, codes, added, affine.multiplier(source.scale, scales, out.scale)


def rounded(steps):
    return np.clip(np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5)), -127, 127)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_dense_layer_adds_its_bias_behind_the_product(bias, seed):
    rng = np.random.default_rng(seed)
    module = torch.nn.Linear(24, 7, bias=bias)
    model, encodings, codes, added, factor = layer(module, torch.zeros(5, 24), rng, bias=bias)
    x = rng.integers(-127, 128, (5, 24))
    (found,) = Reference(arithmetic="symmetric").run(model, encodings, ((x * np.float32(0.05)).astype(np.float32),))
    sums = x @ codes.T.astype(np.int64)
    inverse = (np.float32(1) / (np.float32(1) / factor)).astype(np.float64)
    steps = sums * inverse + (added.astype(np.float32) * factor).astype(np.float64) * bias
    np.testing.assert_array_equal(found, rounded(steps.astype(np.float32)).astype(np.float32) * np.float32(0.3))


@pytest.mark.parametrize("seed", range(3))
def test_a_depthwise_layer_adds_its_bias_to_the_sum(seed):
    rng = np.random.default_rng(seed)
    module = torch.nn.Conv2d(4, 4, 2, groups=4)
    model, encodings, codes, added, factor = layer(module, torch.zeros(2, 4, 5, 5), rng)
    x = rng.integers(-127, 128, (2, 4, 5, 5))
    (found,) = Reference(arithmetic="symmetric").run(model, encodings, ((x * np.float32(0.05)).astype(np.float32),))
    sums = np.zeros((2, 4, 4, 4), np.int64)
    for row in range(2):
        for column in range(2):
            taps = codes[:, 0, row, column].astype(np.int64).reshape(1, 4, 1, 1)
            sums += x[:, :, row : row + 4, column : column + 4] * taps
    steps = (sums + added.reshape(1, 4, 1, 1)).astype(np.float32) * factor.reshape(1, 4, 1, 1)
    np.testing.assert_array_equal(found, rounded(steps).astype(np.float32) * np.float32(0.3))


@pytest.mark.parametrize(
    "module, shape, dense",
    [
        (lambda: torch.nn.Conv2d(4, 4, 1), (1, 4, 3, 3), True),
        (lambda: torch.nn.Conv2d(4, 4, 1, groups=2), (1, 4, 3, 3), False),
        (lambda: torch.nn.Conv1d(4, 4, 1), (1, 4, 3), False),
        (lambda: torch.nn.Linear(4, 4), (1, 4), True),
        (lambda: torch.nn.Linear(4, 4), (1, 2, 4), False),
    ],
    ids=["conv2d", "conv2d in groups", "conv1d", "linear", "linear over rows"],
)
def test_which_layers_have_an_int8_kernel(module, shape, dense):
    model, encodings, codes, _, _ = layer(module(), torch.zeros(*shape), np.random.default_rng(0))
    node = next(node for node in model.graph.nodes if node.weight)
    made = SymmetricLayer(
        node,
        codes,
        np.zeros(4, np.float32),
        source=encodings.affine(f"{node.inputs[0]}:out"),
        weight=encodings.affine(f"{node.key}:weight"),
        out=encodings.affine(node.out),
        bounds=None,
    )
    assert made.dense is dense


def test_the_two_laws_part_at_halves_alone():
    """With scales of powers of two, every product is exact: what differs is a half, and by one code."""
    rng = np.random.default_rng(4)
    module = torch.nn.Linear(16, 3, bias=False)
    model = canonical.to_model(torch.export.export(module.eval(), (torch.zeros(64, 16),)), "one")
    node = next(node for node in model.graph.nodes if node.weight)
    codes = rng.integers(-9, 10, (3, 16)).astype(np.int32)
    one, out = symmetric(1.0), symmetric(8.0)
    weight = affine.symmetric(np.ones(3, np.float32), 8, 0)
    encodings = Encodings(
        {f"{node.inputs[0]}:out": one, f"{node.key}:weight": weight, node.out: out}, {f"{node.key}:weight": codes}
    )
    x = rng.integers(-20, 21, (64, 16)).astype(np.float32)
    (mine,) = Reference(arithmetic="symmetric").run(model, encodings, (x,))
    (law,) = Reference().run(model, encodings, (x,))
    sums = x.astype(np.int64) @ codes.T
    inside = np.abs(sums) < 126 * 8
    differing = mine != law
    assert differing[inside].any()
    assert set(np.unique(sums[differing & inside] % 8)) == {4}
    assert np.abs(mine - law)[inside].max() == 8.0
    assert not differing[inside & (sums % 8 != 4)].any()
    assert np.abs(mine).max() <= 127 * 8.0
