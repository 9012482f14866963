"""The exported graph against the module: on another batch length, within a tolerance that can fail."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from haversack.base.errors import ConversionError, JobError
from haversack.load import export
from haversack.load.agreement import TOLERANCE, _difference, check, probe

X = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


@pytest.fixture
def pair(as_job):
    """A module, and its model."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    return module, export(as_job(module, (X,)))


def test_the_same_passes(pair):
    module, model = pair
    assert check(model, module, (X,)) is None


def test_a_changed_weight_is_found(pair):
    module, model = pair
    weight = model.weights["2.weight"]
    with pytest.raises(ConversionError, match="output: differs by"):
        check(model.with_weights({"2.weight": weight * 1.01}), module, (X,))
    assert check(model.with_weights({"2.weight": weight * np.float32(1 + 1e-6)}), module, (X,)) is None


def test_a_training_flag_that_is_set_later_is_found(pair):
    _, model = pair
    noisy = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5))
    with pytest.raises(JobError, match="not deterministic") as error:
        check(model, noisy.train(), (X,))
    assert error.value.faults[0].where == "output"


def test_every_differing_output_is_told(as_job):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return x * self.scale, x + 1, x - self.scale

    module = Two().eval()
    model = export(as_job(module, (X,), output_names=("product", "sum", "rest")))
    with pytest.raises(ConversionError) as error:
        check(model.with_weights({"scale": np.full(1, 2, np.float32)}), module, (X,))
    assert [fault.where for fault in error.value.faults] == ["product", "rest"]


@pytest.mark.parametrize(
    "wanted, got, told",
    [
        ([1.0, 2.0], [1.0, 2.0], ""),
        ([1.0, 2.0], [1.0, 2.0 + 1e-4], ""),
        ([1.0, 2.0], [1.0, 2.001], "differs by 5.00e-04"),
        ([0.0, 0.0], [0.0, 0.0], ""),
        ([0.0, 0.0], [0.0, 1e-3], "differs by"),
        ([-np.inf, 1.0], [-np.inf, 1.0], ""),
        ([-np.inf, 1.0], [0.0, 1.0], "is infinite in other places"),
        ([-np.inf, 1.0], [-np.inf, 2.0], "differs by 1.00e+00"),
        ([1.0, 2.0], [[1.0, 2.0]], "has shape (1, 2) instead of (2,)"),
        ([], [], ""),
    ],
)
def test_the_difference_is_of_the_largest_value(wanted, got, told):
    assert _difference(np.array(wanted, np.float32), np.array(got, np.float32)).startswith(told or "")
    assert bool(_difference(np.array(wanted, np.float32), np.array(got, np.float32))) is bool(told)


def test_integers_must_be_equal():
    assert _difference(np.array([3, 4]), np.array([3, 4])) == ""
    assert "differs" in _difference(np.array([3, 4]), np.array([3, 5]))
    assert _difference(np.array([True]), np.array([True])) == ""
    large = np.array([40_000, 7, 30_522])  # the numbers of words: one off is another word
    assert _difference(large, np.array([40_001, 7, 30_522])) == "differs in 1 of 3 integers"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.floats(0.0, 0.01))
def test_the_tolerance_is_a_line(values, share):
    wanted = np.array(values, np.float64)
    largest = np.abs(wanted).max()
    got = wanted + share * largest
    if largest > 1e-3 and abs(share - TOLERANCE) > 1e-7:
        assert bool(_difference(wanted, got)) is (share > TOLERANCE)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(2, 5))
def test_the_probe_has_another_length_than_the_example(rows, example_rows):
    batch = (np.arange(rows)[:, None], np.arange(rows))
    example = tuple(array[np.arange(example_rows) % rows] for array in batch)
    found = probe(batch, example, ({0: "batch"}, {0: "batch"}))
    assert len(found[0]) == len(found[1]) != example_rows
    assert set(found[1]) <= set(range(rows))


def test_the_probe_of_a_fixed_model_is_the_example():
    batch, example = (np.zeros((4, 2)),), (np.zeros((4, 2)),)
    assert probe(batch, example, ({},)) is example
    assert probe(batch, example, ({1: "length"},)) is example
