"""The record is what the stages returned: every number, and None where there was none."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from haversack.base.budget import Budget, parse
from haversack.base.candidate import ArtifactFile
from haversack.base.plan import WEIGHT_BITS, LayerPlan, Precision
from haversack.base.quality import Quality
from haversack.report import build, headline, render
from haversack.report.record import Forecast, Limit


def limits(record):
    return {limit.limit: limit for limit in record.budget}


def test_baseline(record):
    assert record.baseline.metric == "top1"
    assert record.baseline.value == 0.8871
    assert record.baseline.samples == 186
    assert record.baseline.stated == 0.88
    assert record.baseline.direction == "higher"


def test_a_plan_that_was_given_up_was_not_made(values):
    made = [replace(one, artifact=None) if one.verdict == "missed" else one for one in values["candidates"]]
    record = build(**{**values, "candidates": made})
    assert [one.verdict for one in record.candidates] == ["chosen", "not made", "not made", "failed"]
    page = render(record)
    assert page.count('<span class="tag ">not made</span>') == 2
    assert '<span class="tag bad">missed</span>' not in page


def test_limits_of_what_ships(record):
    rows = limits(record)
    assert list(rows) == ["size", "memory", "latency_ratio", "drop"]
    assert rows["size"] == Limit(
        "size", 5_200_000, 5_020_000, met=True, target="onnxruntime", unit="bytes", over=-180_000
    )
    assert rows["drop"].unit == "fraction"
    assert rows["drop"].over == pytest.approx(0.0027 - 0.01)
    assert all(row.met for row in rows.values())


@pytest.mark.parametrize(
    ("budget", "name", "got", "unit", "met"),
    [
        ("size=5MB", "size", 5_020_000, "bytes", False),
        ("size=5.02MB", "size", 5_020_000, "bytes", True),
        ("download=4MB", "download", int(0.86 * 5_020_000), "bytes", False),
        ("memory=31MB", "memory", 31_408_128, "bytes", False),
        ("latency=12ms", "latency_ms", 24.31 * 0.487, "ms", True),
        ("latency=0.4x", "latency_ratio", 0.487, "x", False),
        ("drop=0.2pt", "drop", 0.0027, "fraction", False),
    ],
)
def test_each_limit_is_measured_where_it_belongs(values, budget, name, got, unit, met):
    row = limits(build(**{**values, "budget": parse(budget)}))[name]
    assert row.got == pytest.approx(got)
    assert row.unit == unit
    assert row.met is met
    assert (row.over > 0) is not met


def test_every_limit_of_a_budget_has_a_source(values):
    full = Budget(size=1, download=1, memory=1, latency_ms=1.0, latency_ratio=1.0, drop=1.0)
    rows = limits(build(**{**values, "budget": full}))
    assert set(rows) == set(vars(full))
    assert all(row.got is not None for row in rows.values())


def test_a_runtime_that_does_not_ship_has_the_figures_of_its_best_candidate(values):
    """With ``--target any`` another runtime's file ships, and yet this one met its limits."""
    first, second = values["candidates"][:2]
    others = [replace(one, plan=replace(one.plan, target="litert"), verdict="met") for one in (first, second)]
    lost = replace(others[0], plan=replace(others[0].plan, origin="lost"), artifact=None, verdict="failed")
    made = build(**{**values, "candidates": (first, lost, *others)})
    assert list(made.best) == ["onnxruntime"]
    rows = {limit.limit: limit for limit in made.limits_of("litert")}
    assert (rows["size"].got, rows["size"].met, rows["size"].judged) == (5_020_000, True, True)
    assert {name: (row.got, row.met) for name, row in rows.items()} == {
        row.limit: (row.got, row.met) for row in made.limits_of("onnxruntime")
    }
    told = replace(made, why="onnxruntime ships.")
    assert headline.of(told).sentence == "Every budget is met on onnxruntime."
    page = render(told)
    assert page.count('<th scope="row">Size</th>') == 1, "the page tells the limits of what ships alone"
    assert "not measured" not in page.partition('id="budget"')[2].partition("</section>")[0]


def test_what_was_not_measured_is_never_met(hollow):
    rows = {(row.target, row.limit): row for row in hollow.budget}
    assert len(rows) == 8
    assert rows["onnxruntime", "size"].met
    for key, row in rows.items():
        if key != ("onnxruntime", "size"):
            assert (row.got, row.met, row.over) == (None, False, None)


def test_candidates_keep_verdict_and_reason(record, candidates):
    assert [one.id for one in record.candidates] == [one.id for one in candidates]
    assert [one.verdict for one in record.candidates] == ["chosen", "missed", "missed", "failed"]
    assert all(one.reason for one in record.candidates)
    failed = record.candidates[-1]
    parts = (failed.artifact, failed.quality, failed.parity, failed.latency, failed.memory, failed.after)
    assert parts == (None,) * 6
    assert failed.layers == ()
    assert failed.findings[0].kind == "worker-crashed"


def test_measurements_are_carried_over(record, candidates):
    made, one = record.candidates[0], candidates[0]
    assert made.plan == one.plan
    for name in ("ratio", "median_ms", "p95_ms", "cold_ms", "cpu_ratio", "ratio_low", "ratio_high", "pairs", "device"):
        assert getattr(made.latency, name) == getattr(one.latency, name)
    assert made.memory.peak_bytes == one.memory.peak_bytes
    assert (made.quality.drop, made.quality.drop_low, made.quality.drop_high) == (
        one.drop.value,
        one.drop.low,
        one.drop.high,
    )
    assert made.parity.agreement == one.parity.agreement
    assert made.parity.worst_layer == one.parity.worst_layer
    assert list(made.parity.layers) == list(one.parity.layers)
    assert made.artifact.sha256 == one.artifact.files[0].sha256
    assert made.artifact.session_options == {"session.x64quantprecision": "1"}


def test_sizes_are_of_all_files_together(values):
    first = values["candidates"][0]
    data = ArtifactFile("best/onnxruntime/model.onnx.data", 1_000_000, 900_000, "cd" * 32)
    several = replace(first, artifact=replace(first.artifact, files=(*first.artifact.files, data)))
    made = build(**{**values, "candidates": (several,)}).candidates[0].artifact
    assert made.bytes == 6_020_000
    assert made.path == "best/onnxruntime/model.onnx"
    assert [file.path for file in made.files] == ["best/onnxruntime/model.onnx", "best/onnxruntime/model.onnx.data"]


def test_nan_becomes_none(values):
    first = values["candidates"][0]
    nan = math.nan
    sick = replace(
        first,
        quality=Quality("top1", nan, "fraction", "higher", 3, math.inf),
        drop=replace(first.drop, value=nan, low=-math.inf, high=nan),
        parity=replace(first.parity, agreement=nan, layers={"a:add#0:out": nan}),
        latency=replace(first.latency, p95_ms=nan, ratio=math.inf),
    )
    made = build(**{**values, "candidates": (sick,)})
    one = made.candidates[0]
    assert (one.quality.value, one.quality.standard_error, one.quality.drop) == (None, None, None)
    assert (one.quality.drop_low, one.quality.drop_high) == (None, None)
    assert one.parity.agreement is None
    assert one.parity.layers == {"a:add#0:out": None}
    assert (one.latency.p95_ms, one.latency.ratio) == (None, None)
    assert not limits(made)["drop"].met
    assert not limits(made)["latency_ratio"].met


def test_numpy_numbers_become_plain_ones(values):
    first = values["candidates"][0]
    parity = replace(first.parity, agreement=np.float32(0.5), relative_error=np.float64(0.25))
    made = build(**{**values, "candidates": (replace(first, parity=parity),)}).candidates[0].parity
    assert type(made.agreement) is float
    assert type(made.relative_error) is float


def test_a_drop_without_quality_is_not_invented(values):
    bare = replace(values["candidates"][0], drop=None)
    made = build(**{**values, "candidates": (bare,)})
    assert made.candidates[0].quality.value is not None
    assert made.candidates[0].quality.drop is None
    assert not limits(made)["drop"].met


def test_layers_join_plan_parity_and_model(record, candidates):
    layers = {layer.key: layer for layer in record.candidates[0].layers}
    errors = candidates[0].parity.layers
    assert len(layers) == 50
    conv = layers["_blocks.3._depthwise_conv:conv2d#0"]
    assert (conv.precision, conv.bits, conv.granularity) == ("int8", 8, "channel")
    assert conv.kernel.startswith("int8 kernels")
    assert conv.relative_error == errors["_blocks.3._depthwise_conv:conv2d#0:out"]
    assert layers["_conv_stem:conv2d#0"].relative_error == errors["_conv_stem_act:hardtanh#0:out"]
    assert sum(layer.float_time_share for layer in layers.values()) == pytest.approx(1.0)


def test_layers_left_out_of_the_plan_are_float(record):
    layers = {layer.key: layer for layer in record.candidates[2].layers}
    left = layers["_fc:linear#0"]
    assert (left.precision, left.bits, left.granularity, left.kernel) == ("float32", 32, "", "float kernels")
    assert layers["_blocks.0._expand_conv:conv2d#0"].bits == 8


def test_every_precision_has_bits():
    assert set(WEIGHT_BITS) == set(get_args(Precision))


@pytest.mark.parametrize(
    ("precision", "bits", "granularity"),
    [
        ("float16", 16, ""),
        ("int8_dynamic", 8, "tensor"),
        ("int8_weights", 8, "tensor"),
        ("float32", 32, ""),
        ("w2a8", 1.6, "tensor"),
        ("w1a8", 1, "tensor"),
    ],
)
def test_bits_and_granularity(values, precision, bits, granularity):
    first = values["candidates"][0]
    chosen = {"_fc:linear#0": LayerPlan(precision, "tensor")}
    changed = replace(first, plan=replace(first.plan, layers=chosen))
    made = build(**{**values, "candidates": (changed,), "best": {"onnxruntime": changed.id}}).candidates[0]
    layer = next(one for one in made.layers if one.key == "_fc:linear#0")
    assert (layer.bits, layer.granularity) == (bits, granularity)


def test_a_layer_without_a_compared_tensor_has_no_error(values):
    first = values["candidates"][0]
    blind = replace(first, parity=replace(first.parity, layers={}))
    made = build(**{**values, "candidates": (blind,)}).candidates[0]
    assert {layer.relative_error for layer in made.layers} == {None}
    assert made.parity.worst_layer == ""


def test_the_artefacts_own_times_come_from_after(values, model_facts):
    first = values["candidates"][0]
    timed = replace(model_facts, layers=tuple(replace(layer, time_share=0.02, macs=7) for layer in model_facts.layers))
    made = build(**{**values, "after": {first.id: timed}}).candidates
    assert {(layer.time_share, layer.macs) for layer in made[0].layers} == {(0.02, 7)}
    assert {layer.time_share for layer in made[1].layers} == {None}
    assert made[0].layers[0].float_time_share == model_facts.layers[0].time_share


def test_allowed_findings_are_marked(values):
    made = build(**{**values, "allowed": ("dead-channel",)}).candidates[0]
    assert {finding.kind: finding.allowed for finding in made.findings} == {
        "not-established": False,
        "dead-channel": True,
        "noisy": False,
    }


def test_forecasts_stay_apart_from_measurements(record):
    assert record.candidates[0].forecast == Forecast(5_010_000, 0.0041, 0.066, 0.50)
    assert record.candidates[0].quality.drop == 0.0027
    assert record.candidates[1].forecast is None


def test_float_files(record):
    assert record.floats["onnxruntime"].bytes == 18_573_012
    assert record.floats["onnxruntime"].sha256 == "ab" * 32


@pytest.mark.parametrize("best", [{"onnxruntime": "nobody"}, {"litert": "first"}])
def test_best_must_be_a_candidate_of_its_target(values, best):
    first = values["candidates"][0]
    named = {target: first.id if name == "first" else name for target, name in best.items()}
    with pytest.raises(ValueError, match="is not among its candidates"):
        build(**{**values, "best": named})


def test_targets_and_lookups(many):
    assert many.targets == ("onnxruntime", "litert")
    assert many.best_of("litert").id == many.best["litert"]
    assert many.best_of("executorch") is None
    assert {limit.target for limit in many.limits_of("litert")} == {"litert"}
    assert many.limits_of("executorch") == ()


def test_seconds_are_rounded_to_milliseconds(values):
    assert build(**{**values, "seconds": {"load": 1.23456789}}).seconds == {"load": 1.235}
