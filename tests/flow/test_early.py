"""What is known before anything is made: metrics without a value, other numbers than PyTorch's, forecasts, plans."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from torch import nn

from haversack import load, metrics
from haversack.base.budget import Budget
from haversack.base.errors import JobError, VerificationError
from haversack.base.job import Job
from haversack.base.plan import PRECISIONS, STATIC, LayerPlan, Plan
from haversack.base.scope import Scope
from haversack.choose.forecast import least_bytes
from haversack.compress.plans import uniform
from haversack.flow import early
from haversack.flow.data import Data
from haversack.flow.effort import PLAIN, Effort
from haversack.flow.proposals import careful, narrowed, proposals, smaller, worth_knowing
from haversack.flow.requirements import _of_tree, parsed
from haversack.metrics import from_callable
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.graph.execute import Executor

IMAGES = np.random.default_rng(0).normal(size=(12, 2, 6, 6)).astype(np.float32)


def job_of(labels, *, metric="top1", count=12):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3)).eval()
    return Job(
        "tiny",
        model=lambda: network,
        calibration=lambda: iter([(IMAGES[:4],), (IMAGES[4:8],)]),
        evaluation=lambda: iter([((IMAGES[:count],), np.asarray(labels))]),
        metric=metric,
    )


@pytest.fixture(scope="module")
def model():
    return load.export(job_of(np.zeros(12, np.int64)))


# ---- metrics without a value ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "half"),
    [
        ([5, 1, 5, 2, 5, 3], "that chooses"),  # 0, 2 and 4 are equal: no ranks
        ([1, 5, 2, 5, 3, 5], "that is reported"),
        ([1, 1, 2, 2, 3, 3], ""),
    ],
)
def test_a_half_on_which_ranks_have_no_correlation_is_refused(wanted, half):
    metric = metrics.resolve("spearman")
    rows = metric.rows((np.arange(6, dtype=np.float32),), np.array(wanted, np.float32))
    if not half:
        assert np.isfinite(metric.values(rows[0::2][None])).all()
        early.refuse_undefined(metric, rows)
        return
    with pytest.raises(JobError, match=f"spearman is nan on the half of the evaluation set {half}") as caught:
        early.refuse_undefined(metric, rows)
    assert "on 3 samples" in caught.value.tried


def decibels(outputs, expected):
    return 10.0 + outputs[0][:, 0]


@pytest.mark.parametrize("metric, refused", [(decibels, True), (from_callable(decibels, unit="dB"), False)])
def test_a_callable_that_gives_no_fraction_must_say_what_it_gives(metric, refused):
    metric = metrics.resolve(metric)
    rows = metric.rows((np.ones((6, 2), np.float32),), np.zeros(6))
    if not refused:
        early.refuse_undefined(metric, rows)
        return
    with pytest.raises(JobError, match="gives 11, and is taken for a fraction") as caught:
        early.refuse_undefined(metric, rows)
    assert 'unit="dB"' in caught.value.next_step


@pytest.mark.parametrize(
    ("stated", "found", "unit", "step"),
    [
        (88.0, 0.88, "fraction", "baseline = 0.88, if percent"),
        (88.0, 1.0, "fraction", "baseline = 0.88, if percent"),
        (0.9, 0.8, "fraction", "look at preprocess"),
        (88.0, 70.0, "nats", "look at preprocess"),
    ],
)
def test_percent_is_guessed_where_it_may_be_meant(stated, found, unit, step):
    assert early.baseline_step(stated, found, unit).startswith(step)


def test_one_sample_is_one_sample(model):
    metric = metrics.resolve("top1")
    labels = Executor(model).run((IMAGES[:1],))[0].argmax(axis=1)
    said = early.score_one(model, Data(job_of(labels, count=1), model.inputs, metric), metric)
    assert said == "top1 100.0 % on the first 1 sample, float, in PyTorch"


def test_one_batch_is_scored_in_words_before_anything_is_made(model):
    scores = Executor(model).run((IMAGES,))[0]
    labels = scores.argmax(axis=1)
    labels[:3] = (labels[:3] + 1) % 3
    metric = metrics.resolve("top1")
    said = early.score_one(model, Data(job_of(labels), model.inputs, metric), metric)
    assert said == "top1 75.0 % on the first 12 samples, float, in PyTorch"


def test_a_metric_without_a_value_on_one_batch_says_nothing_yet(model):
    metric = metrics.resolve("relative_error")
    zeros = np.zeros((12, 3), np.float32)
    made = replace(job_of(zeros, metric="relative_error"))

    class Silent(type(metric)):
        against = "expected"

    assert early.score_one(model, Data(made, model.inputs, Silent()), Silent()) == ""
    assert early.score_one(model, Data(made, model.inputs, metric), metric).startswith("relative_error 0")


# ---- other numbers than PyTorch's -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("off", "refused"), [(0.0, False), (0.9e-3, False), (1.1e-3, True), (np.nan, True)])
def test_a_float_file_may_leave_pytorch_by_a_thousandth(model, off, refused):
    def predict(sample):
        return tuple(value * np.float32(1 + off) for value in Executor(model).run(sample))

    if not refused:
        assert early.check_float(model, predict, (IMAGES[:4],), "litert") is None
        return
    with pytest.raises(VerificationError, match="the float file's relative error against PyTorch is") as caught:
        early.check_float(model, predict, (IMAGES[:4],), "litert")
    assert caught.value.where == f"litert, {model.outputs[0].name}"
    assert "4 calibration samples" in caught.value.tried


# ---- forecasts ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 9), st.integers(1, 64), st.integers(0, 2000))
def test_the_work_of_a_run_is_counted(model, calibrating, scored, plans, batch, rounding):
    found = early.work(model, (calibrating, scored), plans, batch, Effort(None, "", rounding, rows=7))
    assert found.simulated == 5 * 16 + 3 * 7 + rounding  # a race of five variants, and seven rows for each of 3 layers
    assert (found.forwards, found.plans, found.batch) == ((calibrating + scored) * (plans + 1), plans, batch)


@pytest.mark.parametrize("scored, forwards", [(100, 250), (101, 250), (1, 0)])
def test_degraded_inputs_count_half_of_the_scored_samples_each_time(model, scored, forwards):
    plain, more = (early.work(model, (10, scored), 3, 8, PLAIN, degraded) for degraded in (0, 5))
    assert more.forwards - plain.forwards == forwards


ELEMENTS = 4 * 2 * 9 + 4 * 4 * 9 + 3 * 16
BIASES = 4 + 4 + 3


@pytest.mark.parametrize(
    ("target", "least", "said"),
    [
        ("onnxruntime", ELEMENTS / 8, " in w1a8,"),
        ("executorch", ELEMENTS - 48 / 2, " in w4a8 (1 layer), int8 (2 layers),"),
        ("litert", ELEMENTS - 48 / 2, " in w4a8 (1 layer), int8 (2 layers),"),
        ("ncnn", ELEMENTS, " in int8,"),
        ("coreml", ELEMENTS / 2, " in palette,"),
    ],
)
def test_a_size_below_what_the_weights_take_in_that_runtime_cannot_be_met(model, target, least, said):
    plans = partial(early.narrowest, model, {target: TARGETS.build(target)})
    least += 4 * BIASES
    for size in (int(least) - 1, int(least) + 1):
        (line,) = early.limits(model, Budget(size=size), plans, "fraction")
        assert ("cannot be met" in line) == (size < least)
        assert said in f"{line},"


def test_a_target_is_beyond_a_size_by_its_weights_and_of_those_of_which_one_ships_all_must_be(model):
    plans = {name: early.narrowest(model, {name: TARGETS.build(name)})[name] for name in ("onnxruntime", "ncnn")}
    between, below = Budget(size=ELEMENTS // 2), Budget(size=10)
    assert early.beyond(model, between, plans, one=False) == ("ncnn",)
    assert early.beyond(model, between, plans, one=True) == ()
    assert early.beyond(model, below, plans, one=True) == ("onnxruntime", "ncnn")
    assert early.beyond(model, Budget(drop=0.01), plans, one=False) == ()


def test_layers_have_few_bits_where_all_runtimes_that_share_them_can(model):
    pair = {name: TARGETS.build(name) for name in ("onnxruntime", "executorch")}
    alone = early.narrowest(model, {"onnxruntime": pair["onnxruntime"]})["onnxruntime"]
    assert {layer.precision for layer in alone.layers.values()} == {"w1a8"}
    both = early.narrowest(model, pair)
    for name, least in (("executorch", "int8"), ("onnxruntime", "palette")):  # of which only one holds palettes
        held = {key: layer.precision for key, layer in both[name].layers.items()}
        assert held == {"0:conv2d#0": least, "2:conv2d#0": least, "4:linear#0": "w4a8"}


def test_what_is_made_is_no_smaller_than_its_bound(model):
    for name in ("executorch", "onnxruntime", "ncnn"):
        part = TARGETS.build(name)
        (plan,) = early.narrowest(model, {name: part}).values()
        known = part.constraints(model.graph)
        for made in [*proposals(model.graph, name, part.precisions, (name,)).variants]:
            for one in (made, *smaller(made, part.precisions, known, lambda _: "too large")):
                least = least_bytes(model.graph, model.weights, plan)
                assert least <= least_bytes(model.graph, model.weights, one)


def test_runtimes_that_differ_are_told_apart(model):
    least = partial(early.narrowest, model, {name: TARGETS.build(name) for name in ("coreml", "ncnn")})
    lines = early.limits(model, Budget(size=ELEMENTS, drop=0.01), least, "fraction")
    assert [line.partition(":")[0] for line in lines] == [
        "size at most 264 bytes (coreml)",
        "size at most 264 bytes (ncnn)",
        "drop at most 1.00 pt",
    ]
    assert ["cannot be met" in line for line in lines] == [False, True, False]


FLOAT = {"onnxruntime": Plan("onnxruntime", {})}


def test_the_structure_of_a_file_is_forecast_beside_its_weights(model):
    operations = sum(node.op != "input" for node in model.graph.nodes)
    (line,) = early.limits(model, Budget(size=10_000), lambda _: FLOAT, "fraction")
    more = early.FILE_BYTES + operations * early.OPERATION_BYTES
    assert line.endswith(f"its structure of {operations} operations about {more / 1e3:.1f} kB more (a forecast)")


def test_a_drop_is_told_in_the_unit_of_the_metric(model):
    assert early.limits(model, Budget(drop=0.01), lambda _: FLOAT, "fraction")[0].startswith("drop at most 1.00 pt: ")
    assert early.limits(model, Budget(drop=0.01), lambda _: FLOAT, "nats")[0].startswith("drop at most 0.0100 nats: ")


# ---- plans that are proposed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS.names())
def test_every_target_is_proposed_only_what_it_can_do_and_float_at_the_end(model, target):
    part = TARGETS.build(target)
    found = proposals(model.graph, target, part.precisions, (target,))
    plans = [*found.variants, *found.fallbacks]
    assert len({plan.digest for plan in plans}) == len(plans)
    for plan in plans:
        assert plan.target == target
        assert {layer.precision for layer in plan.layers.values()} <= set(part.precisions)
        assert set(plan.layers) <= {node.key for node in model.graph.nodes if node.weight}
    assert plans[-1].layers == {}
    assert all({layer.precision for layer in plan.layers.values()} <= STATIC for plan in found.variants)


@given(st.sets(st.integers(0, 2)), st.sampled_from(["int8", "float16", "int8_weights"]))
def test_a_plan_is_narrowed_where_it_may_be_and_nowhere_else(model, chosen, precision):
    plan = Plan("onnxruntime", uniform(model.graph, precision), origin="all")
    keys = {list(plan.layers)[index] for index in chosen}
    widths = dict.fromkeys(keys, (2, 4))
    made = narrowed(plan, widths)
    assert len(made) == (precision == "int8" and bool(keys))
    for one in made:
        assert {key for key, layer in one.layers.items() if layer.precision == "w4a8"} == keys
        assert all(one.layers[key] == plan.layers[key] for key in set(plan.layers) - keys)
        assert one.origin == f"all, {len(keys)} layer{'s' * (len(keys) != 1)} with 4-bit weights"
        assert narrowed(one, widths) == []
    assert narrowed(plan, widths, 3) == []


@pytest.mark.parametrize("precision", PRECISIONS[:4])
def test_a_careful_plan_differs_by_its_first_layer_alone(model, precision):
    plan = Plan("onnxruntime", uniform(model.graph, precision), origin="all")
    made = careful(model.graph, plan)
    assert len(made) == (precision in STATIC)
    for one in made:
        assert set(plan.layers) - set(one.layers) == {"0:conv2d#0"}
        assert careful(model.graph, one) == []


@pytest.mark.parametrize(
    ("targets", "narrow", "known"),
    [
        ([("int8", "w4a8")], {"a"}, ("int8", "w4a8")),
        ([("int8", "w4a8")], set(), ("int8",)),
        ([("int8", "w4a8"), ("int8",)], {"a"}, ("int8",)),
    ],
)
def test_the_loss_of_four_bits_is_worth_knowing_where_all_can_have_them(model, targets, narrow, known):
    told = worth_knowing(model.graph, targets, narrow)
    assert {told(node) for node in model.graph.nodes if node.weight} == {known}


# ---- requirements ---------------------------------------------------------------------------------------------------


def test_every_requirement_of_this_project_is_read_as_packaging_reads_it(pytestconfig):
    lines = _of_tree(pytestconfig.rootpath / "pyproject.toml")
    assert len(lines) > 20
    for line in lines:
        ours, theirs = parsed(line), Requirement(line)
        assert ours.name == theirs.name
        assert Requirement(f"{ours.name}{ours.wanted}").specifier == theirs.specifier
        if ours.found and ours.wanted:
            assert (ours.state == "installed") == theirs.specifier.contains(ours.found, prereleases=True)


# ---- what the user allows -------------------------------------------------------------------------------------------


FINER = ("w1a8", "w2a8", "w3a8", "palette")
"""What is smaller than weights of 4 bits, or as small."""
FEW = (*FINER, "w4a8", "w4_grouped", "w5a8", "w6a8", "w7a8")


def test_the_bound_of_a_size_is_that_of_what_the_user_allows(model):
    part = {"onnxruntime": TARGETS.build("onnxruntime")}
    free, held = (early.narrowest(model, part, Scope(without=names)) for names in (FINER, FEW))
    assert least_bytes(model.graph, model.weights, free["onnxruntime"]) == ELEMENTS / 2 + 4 * BIASES
    assert least_bytes(model.graph, model.weights, held["onnxruntime"]) == ELEMENTS + 4 * BIASES
    fixed = early.narrowest(model, part, Scope(fixed={"4:linear#0": LayerPlan("float16")}))["onnxruntime"]
    assert fixed.layers["4:linear#0"].precision == "float16"


@pytest.mark.parametrize(
    ("size", "barred"),
    [
        (70, ""),
        (80, "only w1a8"),
        (120, "w2a8"),
        (200, "w4a8"),
        (250, "w6a8"),
        (4_720, None),
    ],
)
def test_a_size_that_a_forbidden_precision_brings_within_reach_names_the_gentlest(model, size, barred):
    """Weights take 308 bytes with what is left, 77 in one bit."""
    least = partial(early.narrowest, model, {"onnxruntime": TARGETS.build("onnxruntime")})
    (line,) = early.limits(model, Budget(size=size), least, "fraction", scope=Scope(without=FEW))
    if barred:
        assert f"; {barred}, which --without forbids, would bring them down to " in line
    assert ("forbids" in line) == bool(barred)
    assert ("and with its structure of " in line) == bool(barred), "with it even one bit is above these limits"
    assert (early.BEYOND in line) == (size < 300)
    assert "forbids" not in early.limits(model, Budget(size=size), least, "fraction")[0]
