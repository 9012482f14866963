"""Scales that are powers of two: what the constraints leave of them, and that what they do not is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.constraints import Constraints, Ratio
from haversack.base.encodings import Encodings
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.profile import TensorStatistics
from haversack.compress.activations import encode
from haversack.compress.apply import apply
from haversack.compress.quantize.power_of_two import PowerOfTwo
from haversack.profile.ranges import ranges
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.reference import Reference
from haversack.tools.numerics.affine import is_power, power_up
from haversack.tools.numerics.ties import is_tie_free

SPEC = TensorSpec(("batch", 4, 3, 3), "float32")
NODES = (("x", "input"), ("a", "conv2d", 0), ("b", "conv2d", 1), ("s", "add", 1, 2), ("c", "conv2d", 3))
KEYS = [f"{name}:{op}#0" for name, op, *_ in NODES]
CHAIN = Graph(
    tuple(
        Node(key, one[1], one[0], tuple(KEYS[index] for index in one[2:]), SPEC)
        for key, one in zip(KEYS, NODES, strict=True)
    ),
    (KEYS[0],),
    (KEYS[-1],),
)
A, B, S, C = (f"{key}:out" for key in KEYS[1:])


def seen(low, high):
    return TensorStatistics(low, high, np.array([1, 1]), low, high, 1)


def made(taken, constraints, part=None):
    statistics = {key: one if isinstance(one, TensorStatistics) else seen(*one) for key, one in taken.items()}
    return encode(CHAIN, frozenset(taken), statistics, part or PowerOfTwo(halvings=0), constraints)


@given(st.floats(2.0**-120, 2.0**120))
def test_the_next_power_above(scale):
    found = float(power_up(np.float32(scale)))
    assert is_power(np.float32(found))
    assert found / 2 < np.float32(scale) <= found
    assert power_up(np.float32(found)) == found


def test_powers_are_known_by_their_mantissa():
    scales = np.array([1.0, 0.5, 2.0**-140, 3.0, 0.1, np.nextafter(np.float32(2), np.float32(0))], np.float32)
    assert is_power(scales).tolist() == [True, True, True, False, False, False]


@settings(max_examples=60)
@given(st.floats(-50, 0), st.floats(0.01, 50), st.floats(-5, 0), st.floats(0.01, 5))
def test_unbound_scales_are_powers_of_two_that_cover_the_range(low, high, least, most):
    found, findings = made({A: (low, high), B: (least, most)}, Constraints())
    assert findings == []
    for key, (start, stop) in {A: (low, high), B: (least, most)}.items():
        scale, zero = float(found[key].scale), int(found[key].zero_point)
        assert is_power(found[key].scale)
        assert -zero * scale <= start + scale / 2 + 1e-6
        assert stop - scale / 2 - 1e-6 <= (255 - zero) * scale < 2 * (stop - start) + 2 * scale


def test_tied_tensors_have_one_power_of_two():
    found, findings = made({A: (-1.0, 3.0), B: (-2.0, 1.0)}, Constraints(ties=(frozenset({A, B}),)))
    assert found[A] is found[B]
    assert float(found[A].scale) == 2.0**-5  # 5 / 255 is a little less
    assert findings == []


def test_a_symmetric_grid_has_a_power_of_two():
    found, findings = made({A: (-1.0, 3.0)}, Constraints(symmetric=True))
    assert float(found[A].scale) == 2.0**-5  # 3 / 127 is a little less
    assert findings == []


def test_a_clamp_keeps_its_scale_and_that_is_told():
    found, (finding,) = made({A: (0.0, 6.0), B: (0.0, 7.9)}, Constraints(bounds={A: (0.0, 6.0), B: (0.0, np.inf)}))
    assert float(found[A].scale) * 255 <= 6.0
    assert not is_power(found[A].scale)
    assert float(found[B].scale) == 2.0**-5
    assert finding.kind == "not-a-shift"
    assert finding.text == (
        f"1 of 2 activation scales are no powers of two: a clamp, an add or a mean demands another ({A})"
    )


def test_a_fixed_scale_stays():
    found, findings = made({A: (0.0, 1.0)}, Constraints(fixed={A: (1 / 255, 0)}))
    assert found[A].scale == np.float32(1 / 255)
    assert [one.kind for one in findings] == ["not-a-shift"]


@pytest.mark.parametrize(
    ("narrow", "wide", "wanted"),
    [
        (7.0, 7.0, 2.0**-5),  # as it is: k is 501
        (7.0, 3.0, 2.0**-5),  # wider than the sum: k is 1002
        (3.0, 7.0, 2.0**-5),  # one bit is given up, and it is a shift
        (0.7, 7.0, None),  # three bits would be too many
    ],
)
def test_the_ratio_of_an_add_is_kept_by_one_bit_at_most(narrow, wide, wanted):
    ratio = Ratio(A, S)
    found, findings = made({A: (0.0, narrow), S: (0.0, wide)}, Constraints(ratios=(ratio,)))
    assert is_tie_free(found[A].scale, found[S].scale)
    assert is_power(found[S].scale)
    assert is_power(found[A].scale) == (wanted is not None)
    assert [one.kind for one in findings] == ([] if wanted else ["not-a-shift"])
    if wanted:
        assert float(found[A].scale) == wanted
    else:
        assert float(found[A].scale) < 2 * narrow / 255


def test_outliers_are_given_up_where_that_rounds_the_rest_finer():
    counts = np.zeros(512, np.int64)
    counts[:200], counts[-1] = 10_000, 1
    statistics = TensorStatistics(0.0, 7.9, counts, 0.0, 7.9, 1)
    assert float(made({A: statistics}, Constraints(), PowerOfTwo())[0][A].scale) == 2.0**-6
    assert float(made({A: statistics}, Constraints())[0][A].scale) == 2.0**-5


def test_more_tensors_are_counted_than_named():
    keys = (A, B, S, C)
    _, (finding,) = made(dict.fromkeys(keys, (0.0, 6.0)), Constraints(bounds=dict.fromkeys(keys, (0.0, 6.0))))
    assert finding.text.startswith("4 of 4 activation scales")


@settings(max_examples=40)
@given(st.integers(0, 1000), st.sampled_from([2, 4, 8]))
def test_weights_take_the_power_of_least_error_among_all(seed, bits):
    weights = np.random.default_rng(seed).normal(0, 0.1, (3, 24)).astype(np.float32)
    limit = 2 ** (bits - 1) - 1

    def lost(scale, row):
        return np.square(np.clip(np.rint(row / scale), -limit, limit) * scale - row, dtype=np.float64).sum()

    found = PowerOfTwo(halvings=6).weight_scales(weights, bits)
    for scale, row in zip(found, weights, strict=True):
        best = min(lost(np.float32(2.0**power), row) for power in range(-12, 3))
        assert lost(scale, row) == pytest.approx(best)


def test_a_negative_setting_is_refused():
    with pytest.raises(ValueError, match="halvings"):
        PowerOfTwo(halvings=-1)


def test_a_whole_model_multiplies_by_shifts_and_runs_as_the_reference_does(make_model, tmp_path):
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * 36, 5))
    model = make_model(net, (3, 8, 8))
    samples = [(np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32),)]
    step = Step("power_of_two")
    layers = {node.key: LayerPlan("int8", weights=step) for node in model.graph.nodes if node.weight}
    target = OnnxRuntime()
    made = apply(
        model,
        Plan("onnxruntime", layers, ranges=step),
        ranges=lambda one: ranges(one, iter(samples)),
        constraints=target.constraints(model.graph),
        samples=lambda: iter(samples),
    )
    assert not [one for one in made.findings if one.kind == "not-a-shift"]
    assert all(is_power(one.scale).all() for one in made.encodings.tensors.values())
    artifact = target.lower(made.model, made.encodings, tmp_path)
    session = target.open_session(tmp_path / "model.onnx", artifact.session_options)
    found = session.run({model.inputs[0].name: samples[0][0]})[model.outputs[0].name]
    wanted = Reference().run(made.model, made.encodings, samples[0])[0]
    np.testing.assert_array_equal(found, wanted)
    exact = Reference().run(made.model, Encodings.none(), samples[0])[0]
    assert np.linalg.norm(wanted - exact) < 0.05 * np.linalg.norm(exact)
