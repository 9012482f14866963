"""Which rows parts learn from: evenly spread ones, in whatever order samples come; and when they are too few."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from few_codes import error, images, narrow, stored
from torch import nn

from haversack.base.plan import LayerPlan, Plan, Step
from haversack.compress import importance as weighing
from haversack.compress.apply import apply
from haversack.compress.plans import uniform
from haversack.compress.prepare import block_reconstruction, equalize, float_means, stages
from haversack.compress.prepare.bias_correct import BiasCorrect
from haversack.compress.prepare.block_reconstruction import BlockReconstruction
from haversack.compress.prepare.contract import PrepareContext
from haversack.compress.prepare.equalize import Equalize
from haversack.compress.prepare.gptq import Gptq
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.graph.execute import Executor


def dark(first):
    """Return 256 pictures in batches of 8, 64 of them nearly black: in front, or at the end."""
    lit, black = images(3, count=24), [(0.02 * sample[0],) for sample in images(4, count=8)]
    return [*black, *lit] if first else [*lit, *black]


@pytest.mark.parametrize(
    ("part", "apart"),
    [(Gptq(samples=64), 1.3), (BiasCorrect(), 1.3), (BlockReconstruction(samples=64, epochs=2), 1.7)],
)
def test_the_order_of_samples_hardly_matters(folded, part, apart):
    """Training alone makes blocks up to 1.34 apart (six other sets of pictures); the black ones alone, 2.1 to 3.7."""
    encodings, fresh, found = narrow(folded), images(2), []
    for first in (True, False):
        samples = dark(first)
        after = part.apply(folded, PrepareContext(lambda samples=samples: samples, encodings))
        found.append(error(after, stored(after, encodings), folded, fresh))
    assert max(found) < apart * min(found), "64 black pictures in front are no reason to fit these alone"


def numbered(rows, batch=8):
    """Return images that know their number: the first pixel of each is its row's."""
    values = np.random.default_rng(5).normal(size=(rows, 3, 9, 9)).astype(np.float32)
    values[:, 0, 0, 0] = np.arange(rows) / 100
    return [(values[start : start + batch],) for start in range(0, rows, batch)]


@pytest.fixture
def seen(monkeypatch):
    """Return a list of the numbers of all rows that the parts get."""
    found = []
    for module in (float_means, stages, equalize, block_reconstruction, weighing):
        plain = module.rebatch

        def rebatch(model, samples, size, plain=plain):
            for batch in plain(model, samples, size):
                found.extend(round(float(value) * 100) for value in batch[0][:, 0, 0, 0])
                yield batch

        monkeypatch.setattr(module, "rebatch", rebatch)
    return found


@pytest.mark.parametrize("rows", [3, 64, 65, 1000])
@pytest.mark.parametrize("part", [Gptq(samples=16), BiasCorrect(samples=16), Equalize(samples=16)])
def test_every_part_sees_rows_of_the_whole_set(folded, seen, part, rows):
    part.apply(folded, PrepareContext(lambda: numbered(rows), narrow(folded)))
    wanted = [(2 * index + 1) * rows // 32 for index in range(16)] if rows > 16 else list(range(rows))
    assert seen[-len(wanted) :] == wanted
    assert seen[: -len(wanted)] in ([], wanted)  # where rows may join, all are counted before


def test_palettes_are_weighted_by_rows_of_the_whole_set(folded, seen):
    keys = [node.key for node in folded.graph.nodes if node.op == "conv2d"]
    weighing.importance(folded, keys, lambda: numbered(320))
    assert seen == list(range(5, 320, 10))


def test_where_memory_is_short_fewer_rows_are_as_evenly_spread(folded, seen):
    after = BiasCorrect(megabytes=0.3).apply(folded, PrepareContext(lambda: numbered(256), narrow(folded)))
    rows = int(after.notes[-1].split()[-2])
    assert 8 <= rows < 64
    assert seen[-rows:] == [(2 * index + 1) * 256 // (2 * rows) for index in range(rows)]
    assert len(seen) == 8 + rows, "one batch says how many fit"


def test_blocks_are_trained_on_as_many_rows_as_fit_evenly_spread(folded, seen):
    found = []
    part = BlockReconstruction(epochs=1, megabytes=0.25)
    after = part.apply(folded, PrepareContext(lambda: numbered(256), narrow(folded), tell=found.append))
    rows = int(after.notes[-1].split()[-2])
    assert rows == 16
    assert seen[-rows:] == list(range(8, 256, 16))
    assert [one.text.partition(",")[0] for one in found if one.kind == "few-samples"] == [
        "16 calibration samples to round by"
    ]


@pytest.mark.parametrize("part, use", [(Gptq, "to round by"), (BiasCorrect, "to take means over")])
def test_few_samples_are_told_with_their_cause(folded, part, use):
    def told(rows, **settings):
        found = []
        context = PrepareContext(lambda: numbered(rows), narrow(folded), tell=found.append)
        part(**settings).apply(folded, context)
        return [one.text.partition(" (what")[0].partition(" (rounded")[0] for one in found if one.kind == "few-samples"]

    (text,) = told(16, samples=64)
    assert text == f"16 calibration samples {use}: give 80, or what fits these fits others less"
    (text,) = told(64, samples=16)
    assert text == f"16 calibration samples {use}: set samples = 32 (it is 16), or what fits these fits others less"
    (text,) = told(256, samples=64, megabytes=1e-6)
    assert text.startswith(f"8 calibration samples {use}, as memory holds no more of 64 (megabytes = 1e-06): raise ")
    assert told(256, samples=64) == []


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_a_model_whose_batch_is_fixed_gets_as_many_rows(batch):
    from haversack.tools.graph.canonical import to_model

    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    model = to_model(torch.export.export(net, (torch.zeros(batch, 4),)), "fixed")
    samples = [(np.random.default_rng(index).normal(size=(batch, 4)).astype(np.float32),) for index in range(200)]
    events = []
    after = Gptq().apply(model, PrepareContext(lambda: samples, narrow(model), events.append))
    assert int(after.notes[-1].split()[-2]) == max(128, 16 * batch)
    told = [(one.done, one.total) for one in events if one.text == "layers rounded by their outputs"]
    assert told[-1][0] == told[-1][1]


def planned(folded, rows, demands, *parts):
    plan = Plan("t", uniform(folded.graph, "int8"), tuple(map(Step, parts)))
    samples = numbered(rows)
    made = apply(folded, plan, ranges=lambda one: ranges(one, samples), constraints=demands, samples=lambda: samples)
    return [one.text for one in made.findings if one.kind == "few-samples"]


def test_ranges_of_few_samples_are_told_where_nothing_else_is(folded, all_constraints):
    demands = all_constraints(folded.graph)
    (text,) = planned(folded, 8, demands)
    assert text == (
        "8 calibration samples to set ranges by: give 32, or what fits these fits others less"
        " (what that costs is part of the drop, which is measured on other samples)"
    )
    (text,) = planned(folded, 8, demands, "bias_correct")
    assert "to take means over" in text
    assert planned(folded, 32, demands) == []


def test_what_needs_no_ranges_tells_of_none(folded):
    demands = TARGETS.build("onnxruntime").constraints(folded.graph)
    layers = {key: LayerPlan("float16") for key in uniform(folded.graph, "int8")}
    samples = numbered(4)
    made = apply(folded, Plan("t", layers), ranges=lambda _: {}, constraints=demands, samples=lambda: samples)
    assert made.findings == ()


def test_constant_calibration_data_are_a_warning(make_model):
    """The first layer sees nothing but zeros; the second sees what the first's bias makes, which is constant too."""
    torch.manual_seed(2)
    model = make_model(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), (6,))
    found = []
    samples = [(np.zeros((40, 6), np.float32),)]
    after = Gptq().apply(model, PrepareContext(lambda: samples, narrow(model), tell=found.append))
    assert [(one.kind, one.severity, one.layer) for one in found] == [
        ("constant-inputs", "warning", "0"),
        ("constant-inputs", "warning", "2"),
    ]
    assert found[0].text.startswith("its 6 inputs never vary: the calibration data are constant")
    assert np.isfinite(Executor(after).run((np.ones((2, 6), np.float32),))[0]).all()
