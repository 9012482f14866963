from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from haversack.base.errors import JobError
from haversack.profile.ranges import BATCH, BINS, COUNTED, Histogram, ranges
from haversack.tools.graph.canonical import to_model

batches_of_values = st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), min_size=1, max_size=8)


def seen(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram.add(torch.tensor(batch, dtype=torch.float32))
    return histogram.statistics(len(batches))


@given(batches_of_values)
def test_every_value_is_counted_inside_the_span(batches):
    found = seen(*batches)
    values = np.concatenate([np.float32(batch) for batch in batches])
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    assert found.counts.sum() == values.size
    assert found.counts.shape == (BINS,)
    assert found.low <= values.min()
    assert values.max() <= found.high


@given(batches_of_values)
def test_a_value_lies_in_its_bin_however_the_span_grew(batches):
    found = seen(*batches)
    values = np.sort(np.concatenate([np.float32(batch) for batch in batches]).astype(np.float64))
    width = (found.high - found.low) / BINS
    binned = np.repeat(found.low + width * (np.arange(BINS) + 0.5), found.counts)
    assert np.abs(values - binned).max() <= width * 0.51 + 1e-9 * (abs(found.low) + abs(found.high))


@pytest.mark.parametrize(
    "batches, low, high",
    [
        (([0.0, 1.0], [3.0]), 0.0, 4.0),
        (([0.0, 1.0], [-2.5]), -3.0, 1.0),
        (([0.0, 1.0], [-0.5, 1.5]), -2.0, 2.0),
        (([5.0, 5.0],), 5.0, 5.0 + 5 * 2.0**-20),
        (([0.0],), 0.0, 2.0**-20),
    ],
)
def test_the_span_doubles_until_it_holds_all(batches, low, high):
    found = seen(*batches)
    assert (found.low, found.high) == (low, high)


def test_no_values_leave_no_trace():
    histogram = Histogram()
    histogram.add(torch.empty(0))
    histogram.add(torch.tensor([1.0, 2.0]))
    assert histogram.statistics(1).counts.sum() == 2


def test_of_many_values_an_even_part_is_counted_but_the_extremes_are_exact():
    values = torch.linspace(-1, 1, COUNTED * 4)
    values[12345] = 7.0
    found = Histogram()
    found.add(values)
    result = found.statistics(1)
    assert result.maximum == 7.0
    assert COUNTED // 2 < result.counts.sum() <= COUNTED
    middle = result.low + (np.arange(BINS) + 0.5) * (result.high - result.low) / BINS
    assert abs((middle * result.counts).sum() / result.counts.sum()) < 0.01


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.act = nn.ReLU6()
        self.divide = Divide()

    def forward(self, x):
        y = self.act(self.conv(x))
        return self.divide(y), y.argmax(dim=1)


class Divide(nn.Module):
    def forward(self, x):
        return 1.0 / (x + 1.0)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    program = torch.export.export(
        Net().eval(), (torch.zeros(2, 2, 4, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    )
    return to_model(program, "net")


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(2, 2, 4, 4)).astype(np.float32),) for _ in range(count)]


def test_float_tensors_that_leave_a_unit(model):
    samples = images(5)
    found = ranges(model, samples)
    assert set(found) == {"x:input#0:out", "act:hardtanh#0:out", "divide:add#0:out", "divide:reciprocal#0:out"} | {
        key for key in found if key.startswith("divide:mul")
    }
    values = np.concatenate([sample[0] for sample in samples])
    assert found["x:input#0:out"].minimum == values.min()
    assert found["x:input#0:out"].maximum == values.max()
    assert {statistics.samples for statistics in found.values()} == {10}
    assert found["act:hardtanh#0:out"].minimum == 0.0


def test_the_batches_make_no_difference(model):
    one = [(np.concatenate([sample[0] for sample in images(6)]),)]
    for key, statistics in ranges(model, images(6)).items():
        other = ranges(model, one)[key]
        assert (statistics.minimum, statistics.maximum) == pytest.approx((other.minimum, other.maximum), rel=1e-6)
        np.testing.assert_array_equal(statistics.counts.sum(), other.counts.sum())


def test_what_is_kept_does_not_grow_with_the_samples(model, monkeypatch):
    """While a stream runs, one batch and one histogram a tensor are alive, however long it is."""
    made = []
    start = Histogram.__init__
    monkeypatch.setattr(Histogram, "__init__", lambda self: (made.append(self), start(self))[1])
    references = []
    alive = []

    def stream(count):
        rng = np.random.default_rng(0)
        for _ in range(count):
            array = rng.normal(size=(2, 2, 4, 4)).astype(np.float32)
            references.append(weakref.ref(array))
            yield (array,)
            del array
            alive.append(sum(reference() is not None for reference in references))

    kept = []
    for count in (12, 60):
        made.clear()
        references.clear()
        alive.clear()
        ranges(model, stream(count))
        kept.append((len(made), sum(histogram.counts.nbytes for histogram in made), max(alive)))
    assert kept[0] == kept[1]
    assert kept[0][:2] == (len(made), len(made) * BINS * 8)
    assert kept[0][2] <= BATCH  # of two rows each: a batch that is joined, and its parts


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_input_is_told_as_one(model, bad):
    samples = images(3)
    samples[1][0][0, 1, 2, 3] = bad
    with pytest.raises(JobError, match="calibration input holds NaN or an infinity") as caught:
        ranges(model, samples)
    assert caught.value.where == "x"


def test_an_activation_that_is_not_finite_is_named_by_module(model):
    broken = model.with_weights({"conv.bias": np.full(3, np.nan, np.float32)})
    with pytest.raises(JobError) as caught:
        ranges(broken, images(2))
    assert caught.value.where == "act"


def test_division_by_zero_is_named_by_module(model):
    class Log(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Ln()

        def forward(self, x):
            return self.inner(x)

    class Ln(nn.Module):
        def forward(self, x):
            return torch.log(x)

    program = torch.export.export(Log().eval(), (torch.ones(2, 2),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    with pytest.raises(JobError, match="returns NaN or an infinity") as caught:
        ranges(to_model(program, "log"), [(np.zeros((1, 2), np.float32),)])
    assert caught.value.where == "inner"


def test_no_samples(model):
    with pytest.raises(JobError, match="no samples"):
        ranges(model, [])


def test_progress_counts_batches(model):
    events = []
    ranges(model, images(9), events.append)
    assert [(event.done, event.total) for event in events] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert {event.stage for event in events} == {"profile"}
