"""What a job gives, looked at before anything is exported: modules, first batches and names of inputs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from haversack.base.errors import JobError
from haversack.load.blame import layer_of, place_of
from haversack.load.examine import MAX_SHOWN, checked, first_batch, input_names, module_of

law = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
KINDS = "b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16 U3 S3 M8[s] m8[s] g O".split()
DTYPES = [order + kind for kind in KINDS for order in ("<", ">")]


def takes(array):
    """Whether PyTorch takes an array: the definition."""
    try:
        torch.from_numpy(array)
    except (TypeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_passes_if_it_is_of_numbers_and_pytorch_takes_it(as_job, dtype):
    array = np.zeros((2, 3), np.dtype(dtype))
    job = as_job(nn.Linear(3, 2))
    if takes(array) and array.dtype.kind != "c":
        assert checked((array,), job)[0] is array
    else:
        with pytest.raises(JobError, match="which is no array of numbers that PyTorch takes") as caught:
            checked((array,), job)
        assert caught.value.faults[0].where == "input 0"


@law
@given(lengths=st.lists(st.integers(0, 3), min_size=1, max_size=4), named=st.integers(0, 4))
def test_every_array_that_does_not_fit_is_told_by_its_name(as_job, lengths, named):
    job = as_job(nn.Linear(3, 2), input_names=tuple(f"in{index}" for index in range(named)))
    batch = tuple(np.zeros((length, 2), np.float32) for length in lengths)
    empty = [index for index, length in enumerate(lengths) if not length]
    if not empty and len(set(lengths)) == 1:
        assert checked(batch, job) == batch
        return
    with pytest.raises(JobError) as caught:
        checked(list(batch), job)
    places = [fault.where for fault in caught.value.faults]
    assert places == ([f"in{i}" if i < named else f"input {i}" for i in empty] or ["axis 0"])
    if not empty:
        assert caught.value.faults[0].cause == f"the inputs hold {' and '.join(map(str, sorted(set(lengths))))} samples"


places = st.sets(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 2)), max_size=5)


@law
@given(bad=places, value=st.sampled_from([np.nan, np.inf, -np.inf]))
def test_values_that_are_no_numbers_are_counted_and_the_first_row_is_named(as_job, bad, value):
    array = np.zeros((4, 2, 3), np.float32)
    for place in bad:
        array[place] = value
    if not bad:
        assert checked((array,), as_job(nn.Linear(3, 2)))
        return
    with pytest.raises(JobError) as caught:
        checked((array,), as_job(nn.Linear(3, 2)))
    rows = min(row for row, *_ in bad)
    assert caught.value.faults[0].cause == f"{len(bad)} of 24 values are NaN or infinite, the first in row {rows}"


@pytest.mark.parametrize(
    "batch, cause, step",
    [
        (np.zeros((2, 3)), "is an array, not a tuple", "with the comma"),
        (torch.zeros(2, 3), "is a Tensor, not a tuple", "with the comma"),
        ({"x": np.zeros(2)}, "is a dict, not a tuple", "NumPy array x"),
        ((), "is empty", "yield (array,)"),
        ((torch.zeros(2, 3),), "is a Tensor, not a NumPy array", "yield tuples"),
        ((np.float32(3),), "is a float32, not a NumPy array", "yield tuples"),
        ((np.array(3.0, np.float32),), "has shape (): no samples", "yield tuples"),
    ],
    ids=["an array", "a tensor", "a mapping", "nothing", "tensors", "a scalar", "a number in an array"],
)
def test_what_is_no_batch_is_told_with_what_to_write(as_job, batch, cause, step):
    with pytest.raises(JobError) as caught:
        checked(batch, as_job(nn.Linear(3, 2)))
    assert cause in str(caught.value)
    assert step in caught.value.next_step


def test_only_the_first_batch_is_asked_for(as_job):
    asked = []

    def batches():
        for number in range(5):
            asked.append(number)
            yield (np.full((2, 3), number, np.float32),)

    job = as_job(nn.Linear(3, 2), *batches())
    asked.clear()
    assert first_batch(job)[0].tolist() == np.zeros((2, 3)).tolist()
    assert asked == []
    with pytest.raises(JobError, match="gave no batch"):
        first_batch(as_job(nn.Linear(3, 2)))


# ---- modules --------------------------------------------------------------------------------------------------------


def test_a_mask_may_hold_infinities_and_a_parameter_may_not(as_job):
    module = nn.Linear(2, 2).eval()
    module.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    module.register_buffer("count", torch.tensor([1, 2]))
    assert module_of(as_job(module)) is module
    module.mask[0] = torch.nan
    with torch.no_grad():
        module.weight[0, 0], module.bias[1] = torch.inf, torch.nan
    with pytest.raises(JobError, match="3 weights are not finite") as caught:
        module_of(as_job(module))
    assert {fault.where: fault.cause for fault in caught.value.faults} == {
        "weight": "1 of 4 values are NaN or infinite",
        "bias": "1 of 2 values are NaN or infinite",
        "mask": "1 of 2 values are NaN or infinite",
    }


@pytest.mark.parametrize("layers", [1, MAX_SHOWN - 1, MAX_SHOWN, 30])
def test_of_many_modules_that_train_the_first_are_named_and_all_counted(as_job, layers):
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(layers))).train()
    with pytest.raises(JobError) as caught:
        module_of(as_job(module))
    shown = caught.value.cause.partition(": ")[2].removesuffix(" …").split(", ")
    assert shown == ["Sequential", *map(str, range(layers))][:MAX_SHOWN]
    assert caught.value.cause.endswith(" …") == (layers + 1 > MAX_SHOWN)
    assert caught.value.tried.endswith(f": {layers + 1} do")


# ---- names of inputs ------------------------------------------------------------------------------------------------


class Plain(nn.Module):
    def forward(self, image, mask, scale=1.0):
        return image * mask * scale


class Many(nn.Module):
    def forward(self, first, *others):
        return sum(others, first)


ONE = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    "module, count, fields, names",
    [
        (Plain(), 2, {}, ("image", "mask")),
        (Plain(), 3, {}, ("image", "mask", "scale")),
        (Plain(), 2, {"input_names": ("a", "b")}, ("a", "b")),
        (Many(), 1, {}, ("first",)),
        (Many(), 4, {}, ("first", "input1", "input2", "input3")),
        (Plain(), 2, {"dims": {"mask": {1: "width"}}}, ("image", "mask")),
    ],
)
def test_inputs_are_named_by_the_job_or_by_the_arguments(as_job, module, count, fields, names):
    assert input_names(module, (ONE,) * count, as_job(module, **fields)) == names


@pytest.mark.parametrize(
    "module, count, fields, told",
    [
        (Plain(), 1, {}, "takes 2 to 3 inputs, a batch of calibration() has 1"),
        (Plain(), 4, {}, "takes 2 to 3 inputs, a batch of calibration() has 4"),
        (Many(), 0, {}, "takes 1 input, a batch of calibration() has 0"),
        (Plain(), 2, {"input_names": ("a",)}, "1 input_names for 2 inputs"),
        (Plain(), 2, {"dims": {"masc": {1: "n"}}}, "is no input (has: image, mask)"),
        (Plain(), 2, {"dims": {"mask": {2: "n"}, "image": {5: "m"}}}, "axis 5 of an array of shape (2, 3)"),
    ],
)
def test_inputs_that_do_not_fit_are_told(as_job, module, count, fields, told):
    with pytest.raises(JobError) as caught:
        input_names(module, (ONE,) * count, as_job(module, **fields))
    assert told in str(caught.value)


# ---- whom to blame --------------------------------------------------------------------------------------------------


class Inner(nn.Module):
    def forward(self, x):
        return x.reshape(-1, 7)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage = nn.Sequential(nn.Identity(), Inner())

    def forward(self, x):
        return self.stage(x) if x.ndim == 2 else x.no_such_name


@pytest.mark.parametrize("shape, layer, source", [((2, 3), "stage.1", "x.reshape(-1, 7)"), ((3,), "Outer", "no_such")])
def test_the_innermost_layer_and_the_users_line_are_named(shape, layer, source):
    module = Outer()
    with pytest.raises((RuntimeError, AttributeError)) as caught:
        module(torch.zeros(shape))
    assert layer_of(caught.value.__traceback__, module) == layer
    place = place_of(caught.value, module)
    assert place.startswith(f"{layer} (")
    assert source in place
    assert __file__ in place


def test_an_error_of_nobody_is_the_models():
    assert place_of(ValueError("never raised"), Outer()) == "Outer"
    try:
        sys.intern(3)
    except TypeError as error:
        assert layer_of(error.__traceback__, Outer()) == ""
        assert "sys.intern(3)" in place_of(error, Outer())
