from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.encodings import Encodings
from haversack.base.errors import JobError
from haversack.base.plan import PRECISIONS, STATIC, LayerPlan
from haversack.compress.perturb import perturb
from haversack.profile.ranges import ranges
from haversack.profile.sensitivity import ROWS, sensitivity
from haversack.tools.graph.canonical import to_model
from haversack.tools.graph.execute import Executor
from haversack.tools.numerics.affine import symmetric


def kinds(*precisions):
    return lambda _: {precision: LayerPlan(precision) for precision in precisions}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.fine = nn.Linear(6, 6)
        self.coarse = nn.Linear(6, 4)

    def forward(self, ids):
        return self.coarse(torch.relu(self.fine(self.table(ids))))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    program = torch.export.export(
        Net().eval(), (torch.zeros(2, 3, dtype=torch.long),), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    )
    return to_model(program, "net")


def sentences(count):
    rng = np.random.default_rng(2)
    return [(rng.integers(0, 7, size=(2, 3)),) for _ in range(count)]


@pytest.fixture(scope="module")
def taken(model):
    return ranges(model, sentences(4))


def test_every_layer_and_every_precision_it_can_have(model, taken):
    found = sensitivity(model, partial(perturb, ranges=taken), sentences(3), ways=kinds(*PRECISIONS))
    weighted = {"float16", "int8_dynamic", "int8_weights", *STATIC}
    assert {key: set(errors) for key, errors in found.items()} == {
        "table:embedding#0": {"float16", "int8_weights"},
        "fine:linear#0": weighted,
        "coarse:linear#0": weighted,
    }
    for errors in found.values():
        assert 0 < errors["float16"] < errors["int8_weights"] < 0.05
    for key in ("fine:linear#0", "coarse:linear#0"):
        assert found[key]["int8_weights"] < found[key]["int8"] < 0.05


def test_the_error_is_that_of_the_models_own_output(model):
    key = "coarse:linear#0:weight"
    weight = model.weights["coarse.weight"]
    codes = np.rint(weight / 0.5).astype(np.int32)

    def coarse_only(_, node, precision):
        if node != "coarse:linear#0":
            return Encodings.none()
        return Encodings({key: symmetric(np.full(4, 0.5, np.float32), 8, 0)}, {key: codes})

    samples = sentences(2)
    exact = Executor(model).run((np.concatenate([s[0] for s in samples]),))[0]
    rounded = Executor(model, {"coarse.weight": (codes * 0.5).astype(np.float32)})
    moved = rounded.run((np.concatenate([s[0] for s in samples]),))[0]
    want = np.linalg.norm(moved - exact) / np.linalg.norm(exact)
    assert sensitivity(model, coarse_only, samples) == {"coarse:linear#0": {"int8": pytest.approx(want, rel=1e-5)}}


def test_a_worse_layer_is_found_worse(model, taken):
    spiky = model.weights["fine.weight"].copy()
    spiky[:, 0] *= 40  # one input sets the scale of every channel
    worse = model.with_weights({"fine.weight": spiky})
    before = sensitivity(model, partial(perturb, ranges=taken), sentences(2), ways=kinds("int8_weights"))
    after = sensitivity(worse, partial(perturb, ranges=taken), sentences(2), ways=kinds("int8_weights"))
    assert after["fine:linear#0"]["int8_weights"] > before["fine:linear#0"]["int8_weights"]


def test_it_runs_a_few_rows_only(model, taken):
    drawn = 0

    def stream():
        nonlocal drawn
        for sample in sentences(100):
            drawn += 1
            yield sample

    sensitivity(model, partial(perturb, ranges=taken), stream())
    assert drawn == ROWS // 2
    drawn = 0
    sensitivity(model, partial(perturb, ranges=taken), stream(), rows=4 * ROWS)
    assert drawn == 4 * ROWS // 2


def test_the_error_of_more_rows_is_that_of_all_of_them(model, taken):
    """Squares add up: of two lots of four rows the error lies between theirs, and is none of them."""
    lots = [list(sentences(2)), list(sentences(4))[2:]]
    one, other = (sensitivity(model, partial(perturb, ranges=taken), lot) for lot in lots)
    both = sensitivity(model, partial(perturb, ranges=taken), [*lots[0], *lots[1]], rows=2 * ROWS)
    for key, kinds in both.items():
        for kind, error in kinds.items():
            low, high = sorted((one[key][kind], other[key][kind]))
            assert low < error < high


def test_progress_by_layer(model, taken):
    events = []
    sensitivity(model, partial(perturb, ranges=taken), sentences(2), events.append)
    assert [(event.done, event.total) for event in events] == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_no_samples_and_no_output(model, taken):
    with pytest.raises(JobError, match="no samples"):
        sensitivity(model, partial(perturb, ranges=taken), [])
    zero = model.with_weights({"coarse.weight": np.zeros((4, 6), np.float32), "coarse.bias": np.zeros(4, np.float32)})
    with pytest.raises(JobError, match="zero or not finite"):
        sensitivity(zero, partial(perturb, ranges=taken), sentences(2))


class Heads(nn.Module):
    """A trunk and two heads, the second one's output in other units."""

    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(4)
        self.trunk, self.scores, self.boxes = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(8, 4)
        with torch.no_grad():
            self.boxes.weight *= scale
            self.boxes.bias *= scale

    def forward(self, x):
        x = torch.relu(self.trunk(x))
        return self.scores(x), self.boxes(x)


def heads(scale):
    dims = ({0: torch.export.Dim.AUTO},)
    return to_model(torch.export.export(Heads(scale).eval(), (torch.zeros(2, 6),), dynamic_shapes=dims), "heads")


@pytest.mark.parametrize("scale", [2.0**-7, 2.0**7])
def test_the_units_of_an_output_do_not_matter(scale):
    rows = [(np.random.default_rng(5).normal(size=(8, 6)).astype(np.float32),)]
    way = kinds("int8_weights", "w4a8")
    found = []
    for one in (heads(1.0), heads(scale)):
        perturbed = partial(perturb, ranges=ranges(one, rows), widths={n.key: {4} for n in one.graph.nodes})
        found.append(sensitivity(one, perturbed, rows, ways=way))
    assert set(found[0]) == {"trunk:linear#0", "scores:linear#0", "boxes:linear#0"}
    for key, errors in found[0].items():
        assert found[1][key] == pytest.approx(errors, rel=1e-4)
        assert errors["w4a8"] > errors["int8_weights"] > 0
