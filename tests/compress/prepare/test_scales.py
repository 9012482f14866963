"""Scales of few codes are looked for anew, by what integers that make up for each other lose at them."""

from __future__ import annotations

import numpy as np
import pytest
from few_codes import error, images, narrow
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.plan import WIDTHS, LayerPlan, Plan, Step
from haversack.compress.apply import apply
from haversack.compress.plans import uniform
from haversack.compress.prepare import by_outputs, means
from haversack.compress.prepare.by_outputs import FACTORS, Rows
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.gptq import Gptq
from haversack.compress.prepare.means import FEW, Wanted, are_few, tell_few
from haversack.compress.prepare.moments import Moments
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.numerics.affine import dequantize, symmetric


@pytest.fixture
def rounded(folded):
    """Return (bits, part, quantizer of weights) -> the folded model in integers, rounded so."""
    demands = TARGETS.build("onnxruntime").demands(folded)

    def make(bits, part="gptq", weights="mse", granularity="channel"):
        layers = uniform(folded.graph, WIDTHS[bits], weights=Step(weights), widths=demands.widths)
        layers = {key: LayerPlan(one.precision, granularity, one.weights) for key, one in layers.items()}
        return apply(
            folded,
            Plan("onnxruntime", layers, (Step(part),), Step("mse"), ("onnxruntime",)),
            ranges=lambda model: ranges(model, images(1)),
            constraints=demands,
            samples=lambda: images(1),
        )

    return make


def scales(made, folded):
    """Return key -> the scales of each weight that is in integers."""
    keys = [f"{node.key}:weight" for node in folded.graph.nodes if node.weight]
    return {key: made.encodings.affine(key).scale for key in keys if made.encodings.affine(key) is not None}


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_unseen_samples_come_nearer_to_float_at_the_new_scales(folded, rounded, monkeypatch, bits):
    mine = rounded(bits)
    monkeypatch.setattr(by_outputs, "FACTORS", (1.0,))
    plain = rounded(bits)
    found, before = (error(one.model, one.encodings, folded, images(2)) for one in (mine, plain))
    assert found < before


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_scales_are_some_of_those_that_are_tried_and_weights_lie_on_them(folded, rounded, bits):
    mine, plain = rounded(bits), rounded(bits, "bias_correct")
    moved = 0
    for key, scale in scales(mine, folded).items():
        ratio = scale / scales(plain, folded)[key]
        nearest = np.abs(ratio[:, None] - np.array(FACTORS)).min(axis=1)
        assert (nearest < 1e-5).all()
        moved += int((np.abs(ratio - 1) > 1e-3).sum())
        node = folded.graph.by_key[key.removesuffix(":weight")]
        values = dequantize(mine.encodings.integers[key], mine.encodings.affine(key))
        np.testing.assert_array_equal(values, mine.model.weights[node.weight])
    assert moved > 0


@pytest.mark.parametrize(
    ("bits", "weights", "granularity"), [(8, "mse", "channel"), (4, "power_of_two", "channel"), (4, "mse", "tensor")]
)
def test_scales_stay_where_codes_are_many_or_powers_or_one_scale_is_shared(folded, rounded, bits, weights, granularity):
    mine = scales(rounded(bits, weights=weights, granularity=granularity), folded)
    plain = scales(rounded(bits, "bias_correct", weights, granularity), folded)
    assert mine
    for key, scale in mine.items():
        np.testing.assert_array_equal(scale, plain[key])


def test_scales_stay_where_nobody_takes_new_ones(folded):
    encodings = narrow(folded)
    after = Gptq().apply(folded, PrepareContext(lambda: images(1), encodings))
    for key, encoding in encodings.tensors.items():
        values = after.weights[folded.graph.by_key[key.removesuffix(":weight")].weight]
        steps = values / encoding.scale.reshape(-1, *[1] * (values.ndim - 1))
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    groups=st.integers(1, 3),
    count=st.integers(1, 4),
    n=st.integers(1, 9),
    bits=st.sampled_from([1, 2, 3, 4]),
    seed=st.integers(0, 1 << 16),
)
def test_no_row_loses_by_new_scales(groups, count, n, bits, seed):
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(groups, 40, n)) @ rng.normal(size=(groups, n, n))
    hessian = inputs.swapaxes(1, 2) @ inputs / 40
    seen = Moments(hessian, hessian, 40)
    scale = rng.uniform(0.2, 1.5, (groups, count)).astype(np.float32)
    encoding = symmetric(scale.reshape(-1), bits, 0)
    exact = rng.normal(size=(groups, count, n))
    rows = Rows(exact, scale, encoding, np.inf, 0.01, seen, (seen,))
    mine = rows.rescaled()
    assert np.isin(mine.scale, scale[..., None] * np.array(FACTORS, np.float32)).all()
    before, after = rows.lost(seen, rows.compensated(seen)), mine.lost(seen, mine.compensated(seen))
    assert after <= before + 1e-9 * abs(before)
    lone = Rows(exact[:, :1], scale[:, :1], encoding, np.inf, 0.01, seen, (seen,)).rescaled()
    np.testing.assert_array_equal(lone.scale, mine.scale[:, :1])


@pytest.mark.parametrize(
    ("sizes", "few"), [((), True), ((8, 8), True), ((31,), True), ((32,), False), ((8,) * 4, False)]
)
def test_rows_are_few_or_not(sizes, few):
    assert are_few([np.zeros((size, 2)) for size in sizes]) is few


@pytest.mark.parametrize(
    ("unseen", "words"),
    [
        ((), " (what that costs is part of the drop, which is measured on other samples)"),
        ((np.nan,), " (what that costs is part of the drop, which is measured on other samples)"),
        ((1.0,), ""),
        ((1.09,), ""),
        ((1.1,), " (rounded by half of them, a layer loses 1.1 times as much on the other half)"),
        (
            (1.0, np.nan, 3.0),
            " (rounded by half of them, a layer loses 2.0 times as much on the other half)",
        ),
    ],
)
def test_what_few_samples_cost_is_told_in_figures(unseen, words):
    found = []
    tell_few(16, Wanted(64, 16, 1.0), found.append, unseen)
    tell_few(FEW, Wanted(64, FEW, 1.0), found.append, unseen)
    (one,) = found
    assert one.kind == "few-samples"
    assert one.text == f"16 calibration samples to round by: give 80, or what fits these fits others less{words}"


def test_fewer_samples_are_told_to_cost_more(folded, monkeypatch):
    monkeypatch.setattr(means, "TOLD", 0.0)

    def told(count):
        found = []
        Gptq().apply(folded, PrepareContext(lambda: images(1, count=count), narrow(folded), tell=found.append))
        (one,) = [finding for finding in found if finding.kind == "few-samples"]
        return float(one.text.partition("loses ")[2].partition(" times")[0])

    assert told(2) > told(3) > 1


@pytest.mark.parametrize(("rows", "known"), [(1, False), (2, True), (8, True)])
def test_what_one_batch_costs_is_told_by_its_halves(folded, monkeypatch, rows, known):
    """So few samples are as many as one batch has; a single one nothing can be held against."""
    monkeypatch.setattr(means, "TOLD", 0.0)
    found, (sample, *_) = [], images(1, count=rows)
    samples = [tuple(array[:rows] for array in sample)] if len(sample[0]) >= rows else images(1, count=rows)
    Gptq().apply(folded, PrepareContext(lambda: samples, narrow(folded), tell=found.append))
    (one,) = [finding for finding in found if finding.kind == "few-samples"]
    assert ("on the other half" in one.text) is known
    assert ("is part of the drop" in one.text) is not known
