"""Laws of compressing, on any weights and activations: scales that follow their values, means that add up."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from haversack.base.encodings import Encodings
from haversack.base.plan import PRECISIONS, STATIC, WEIGHT_BITS, Step
from haversack.base.profile import TensorStatistics
from haversack.compress.plans import float_first, uniform
from haversack.compress.prepare.contract import relative_error
from haversack.compress.prepare.float_means import FloatMeans
from haversack.compress.prepare.means import mean_output
from haversack.compress.quantize.contract import SHELF, centers
from haversack.compress.quantize.minmax import MinMax
from haversack.compress.quantize.mse import MeanSquaredError
from haversack.compress.quantize.percentile import Percentile
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.roles import Role, role, units

law = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
QUANTIZERS = [MinMax(), Percentile(99.0, weights=80.0), MeanSquaredError(ratios=7), MeanSquaredError(7, alike=0.0)]
WEIGHTS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.just(6)), elements=st.integers(-40, 40).map(lambda n: n / 8)
)


def rounded_up(number):
    """Return the next number of six significant bits, in plain arithmetic."""
    mantissa, exponent = math.frexp(np.float32(number))
    return math.ldexp(math.ceil(mantissa * 64), exponent - 6)


# ---- scales of weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", QUANTIZERS, ids=lambda part: type(part).__name__)
@law
@given(weights=WEIGHTS, bits=st.sampled_from([4, 8]), power=st.integers(-20, 20))
def test_scales_follow_a_power_of_two_bit_for_bit(part, weights, bits, power):
    factor = np.float32(2.0**power)
    dead = ~np.abs(weights).max(axis=1).astype(bool)
    if dead.all():
        assert part.weight_scales(weights, bits).tolist() == [1.0] * len(weights)
    else:
        scaled = part.weight_scales(weights * factor, bits, taps=3)
        np.testing.assert_array_equal(scaled, part.weight_scales(weights, bits, taps=3) * factor)


@pytest.mark.parametrize("part", QUANTIZERS, ids=lambda part: type(part).__name__)
@law
@given(
    weights=WEIGHTS,
    dead=st.sets(st.integers(0, 3), max_size=2),
    bits=st.sampled_from([4, 8]),
    random=st.randoms(use_true_random=False),
)
def test_each_channel_is_set_by_itself_and_its_sign_means_nothing(part, weights, dead, bits, random):
    weights[[row for row in dead if row < len(weights)]] = 0
    order = list(range(len(weights)))
    random.shuffle(order)
    found = part.weight_scales(weights, bits)
    np.testing.assert_array_equal(part.weight_scales(weights[order], bits), found[order])
    np.testing.assert_array_equal(part.weight_scales(-weights, bits), found)
    for row, scale in zip(weights, found, strict=True):
        if row.any():
            assert part.weight_scales(row[None], bits)[0] == scale
        else:
            assert scale == min([s for r, s in zip(weights, found, strict=True) if r.any()], default=1.0)


@law
@given(weights=WEIGHTS, bits=st.sampled_from([4, 8]))
def test_the_whole_range_fits_the_codes_and_no_smaller_scale_does(weights, bits):
    limit = 2 ** (bits - 1) - 1
    for row, scale in zip(weights, MinMax().weight_scales(weights, bits), strict=True):
        if row.any():
            assert np.abs(np.rint(row / scale)).max() == limit
            assert np.abs(row).max() / limit == pytest.approx(scale, rel=1e-6)


@law
@given(weights=WEIGHTS, bits=st.sampled_from([4, 8]))
def test_the_least_squared_error_is_the_least_of_the_scales_that_are_tried(weights, bits):
    part = MeanSquaredError(ratios=5, weight_least=0.7, weight_most=1.3, alike=0.0)
    limit = 2 ** (bits - 1) - 1

    def error(row, scale):
        codes = np.clip(np.rint(row / np.float64(scale)), -limit, limit)
        return float(np.square(codes * np.float64(scale) - row).sum())

    for row, scale in zip(weights, part.weight_scales(weights, bits), strict=True):
        full = np.abs(row).max() / limit
        tried = [rounded_up(full * ratio) for ratio in (1.0, 0.7, 0.85, 1.0, 1.15, 1.3)]
        if row.any():
            assert error(row, scale) <= min(error(row, one) for one in tried) * (1 + 1e-3) + 1e-9
            assert min(abs(scale / one - 1) for one in tried) < 1e-6


def test_centers_are_the_middles_of_the_bins():
    counts = np.array([1, 0, 3, 4])
    assert centers(TensorStatistics(-1.0, 3.0, counts, -1.0, 3.0, 8)).tolist() == [-0.5, 0.5, 1.5, 2.5]


@pytest.mark.parametrize("name", SHELF.names())
@pytest.mark.parametrize("low, high", [(0.0, 3.0), (-3.0, 0.0), (1.0, 3.0), (-3.0, -1.0), (-2.0, 5.0)])
def test_every_quantizer_covers_nothing_and_stays_within_what_was_seen(name, low, high):
    counts = np.zeros(64, np.int64)
    counts[[0, 20, 63]] = 1, 50, 1
    covered = SHELF.build(name, {}).activation_range(TensorStatistics(low, high, counts, low, high, 1))
    assert min(low, 0.0) <= covered[0] <= 0.0 <= covered[1] <= max(high, 0.0)
    assert covered[1] > covered[0]


# ---- means ----------------------------------------------------------------------------------------------------------

CONVOLUTIONS = [
    (nn.Conv2d(4, 6, 3, padding=1, bias=True), (4, 5, 7)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1)), (4, 6, 5)),
    (nn.Conv2d(4, 4, 3, groups=4, dilation=2), (4, 7, 6)),
    (nn.Conv1d(4, 6, 3, stride=2, groups=2), (4, 9)),
    (nn.Linear(5, 3), (5,)),
    (nn.Linear(5, 3), (4, 5)),
]


@pytest.mark.parametrize("module, shape", CONVOLUTIONS, ids=lambda value: str(value).replace(" ", ""))
def test_a_mean_output_is_what_torch_gives_without_the_bias(make_model, module, shape):
    model = make_model(nn.Sequential(module), shape)
    node = next(node for node in model.graph.nodes if role(node) is Role.LAYER)
    rng = np.random.default_rng(4)
    batches = [torch.from_numpy(rng.normal(1.0, 2.0, (rows, *shape)).astype(np.float32)) for rows in (1, 3, 2)]
    exact = copy.deepcopy(module).double().requires_grad_(False)
    made = torch.cat([exact(batch.double()) for batch in batches])
    axis = -1 if isinstance(module, nn.Linear) else 1
    expected = made.movedim(axis, 0).flatten(1).mean(dim=1) - exact.bias
    found = mean_output(node, np.asarray(model.weights[node.weight]), batches)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_means_of_batches_of_other_lengths_weigh_every_position_alike(make_model):
    conv = nn.Conv1d(2, 3, 2)
    model = make_model(nn.Sequential(conv), (2, 6))
    node = next(node for node in model.graph.nodes if role(node) is Role.LAYER)
    rng = np.random.default_rng(7)
    batches = [torch.from_numpy(rng.normal(size=(rows, 2, length)).astype(np.float32)) for rows, length in
               ((1, 4), (2, 9), (3, 4))]  # fmt: skip
    with torch.no_grad():
        every = torch.cat([conv(batch).movedim(1, 0).flatten(1) for batch in batches], dim=1) - conv.bias[:, None]
    found = mean_output(node, np.asarray(model.weights[node.weight]), batches)
    np.testing.assert_allclose(found, every.mean(dim=1).numpy(), rtol=1e-5, atol=1e-6)


@law
@given(cuts=st.lists(st.integers(1, 23), max_size=4, unique=True))
def test_float_means_do_not_depend_on_the_batches(folded, images, cuts):
    rows = np.concatenate([sample[0] for sample in images])
    layers = {node.key: node for node in folded.graph.nodes if role(node) is Role.LAYER}
    means, executor = FloatMeans(layers), Executor(folded)
    for start, stop in itertools.pairwise([0, *sorted(cuts), len(rows)]):
        means.start(stop - start)
        executor.run((rows[start:stop],), observe=means.observe)
    whole: dict[str, np.ndarray] = {}

    def observe(node, value):
        if node.key in layers:
            whole[node.key] = value.double().transpose(0, 1).flatten(1).mean(dim=1).numpy()

    executor.run((rows,), observe=observe)
    for key, found in means.mean().items():
        np.testing.assert_allclose(found, whole[key], rtol=1e-4, atol=1e-5)


def test_bytes_of_a_row_are_the_largest_sum_of_what_is_alive(folded, images):
    layers = {node.key: node for node in folded.graph.nodes if role(node) is Role.LAYER}
    means = FloatMeans(layers)
    means.start(len(images[0][0]))
    Executor(folded).run(images[0], observe=means.observe)
    parts = units(folded.graph)
    alive = []
    for step in range(len(parts)):
        made = [unit.last.key for unit in parts[: step + 1]]
        needed = {key for unit in parts[step:] for key in unit.head.inputs}
        alive.append(sum(means.elements[key] for key in made if key in needed or key == made[-1]))
    # What nobody reads any more but an output stays: the last unit's, which is the one just made.
    assert means.row_bytes(folded, Encodings.none()) == 4 * max(alive)


# ---- errors and plans -----------------------------------------------------------------------------------------------


@given(st.lists(hnp.arrays(np.float64, (2, 3), elements=st.floats(-100, 100)), min_size=1, max_size=3), st.floats(0, 3))
def test_each_output_counts_by_its_own_size(outputs, share):
    """The root of the mean of the squares: of outputs that are all zero it is 0 where nothing moved."""
    whole = np.concatenate([one.ravel() for one in outputs])
    moved = [one * (1 + share) for one in outputs]
    assert relative_error(outputs, outputs) == 0.0
    sizes = [np.linalg.norm(one) for one in outputs]
    if all(size == 0 or size > 1e-6 for size in sizes):
        alive = sum(size > 0 for size in sizes) / len(sizes)
        assert relative_error(moved, outputs) == pytest.approx(share * math.sqrt(alive), abs=1e-9)
    zeros = [np.zeros_like(one) for one in outputs]
    assert relative_error(outputs, zeros) == pytest.approx(np.linalg.norm(whole))


@pytest.mark.parametrize("precision", [one for one in PRECISIONS if one != "palette"])
def test_a_uniform_plan_is_as_narrow_as_it_says_or_wider_and_never_invents_a_layer(folded, precision):
    layers = uniform(folded.graph, precision, weights=Step("minmax"), integer_ops=frozenset({"conv2d"}))
    weighted = [node.key for node in folded.graph.nodes if node.weight]
    assert list(layers) == [key for key in weighted if key in layers]
    for plan in layers.values():
        assert WEIGHT_BITS[plan.precision] >= WEIGHT_BITS[precision]
    linear = [key for key in weighted if folded.graph.by_key[key].op == "linear"]
    assert (set(weighted) - set(layers)) == (
        set(weighted) if precision == "float32" else set(linear) if precision in STATIC else set()
    )


def test_leaving_the_first_layers_out_leaves_the_others_as_they_are(folded):
    layers = uniform(folded.graph, "int8")
    rest = float_first(folded.graph, layers)
    assert set(layers) - set(rest) == {"stem:conv2d#0"}  # behind a pad, which only moves values
    assert all(rest[key] is layers[key] for key in rest)
    assert float_first(folded.graph, rest) == rest
