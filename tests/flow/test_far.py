"""What travels to a worker and back, without any cluster: values, programs, errors, and who may answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from haversack import load
from haversack.base.encodings import Encodings
from haversack.base.errors import EnvironmentFault, Fault, JobError, MissingExtra, VerificationError
from haversack.base.job import Job
from haversack.base.spread import Light
from haversack.flow import far, parcels
from haversack.flow.far import Answer, Terms, differing, likeness
from haversack.flow.own_code import own_code
from haversack.measure.quality import NotFinite
from haversack.tools.graph.simulate import Simulator

BATCH = (np.random.default_rng(0).normal(size=(4, 2, 6, 6)).astype(np.float32),)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    return load.export(Job("tiny", lambda: network, lambda: [BATCH], list, ""))


class Programs:
    """Keeps programs apart, as bytes."""

    def __init__(self):
        self.kept = {}

    def apart(self, program):
        name = str(id(program))
        self.kept.setdefault(name, parcels.program_bytes(program))
        return name

    def back(self, name):
        return parcels.program_from(self.kept[name])


def through(value):
    programs = Programs()
    return parcels.unpacked(parcels.packed(value, programs.apart), programs.back), programs


def test_a_model_comes_back_as_it_was_and_its_program_travels_once(model):
    (one, other), programs = through((model, model.with_weights({})))
    assert len(programs.kept) == 1
    assert one.digest == other.digest == model.digest
    names = [node.name for node in model.program.graph.nodes]
    assert [node.name for node in one.program.graph.nodes] == names


def test_it_computes_the_same_bits(model):
    (found, _) = through(model)
    mine, theirs = (Simulator(one).run(Encodings.none(), [BATCH])[0] for one in (model, found))
    assert mine[0].tobytes() == theirs[0].tobytes()


@given(arrays.arrays(st.sampled_from(["f4", "i1", "u2", "i8", "?"]), arrays.array_shapes(min_dims=0, min_side=0)))
def test_arrays_come_back_writable_to_the_bit(array):
    found = parcels.unpacked(parcels.packed(array, str), str)
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    assert found.flags.writeable


def test_functions_without_a_name_do_not_travel():
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        parcels.packed(partial(lambda x: x), str)


@dataclass(frozen=True)
class Kept(Light):
    number: int

    @cached_property
    def much(self):
        return lambda: self.number


def test_what_was_made_of_the_fields_stays():
    kept = Kept(3)
    assert kept.much() == 3
    found = parcels.unpacked(parcels.packed(kept, str), str)
    assert found == kept
    assert set(vars(found)) == {"number"}
    assert found.much() == 3


def test_a_machine_is_like_itself():
    assert far.greet(Terms(likeness(), 1)).kind == "value"
    assert own_code()[:12] in likeness()["haversack"]
    assert {"torch", "numpy"} <= set(likeness())


@pytest.mark.parametrize(
    "theirs, lines",
    [
        ({"torch": "2.13.0", "scipy": "1"}, ()),
        ({"torch": "2.12.0", "scipy": "1"}, ("torch is 2.12.0 there, 2.13.0 here",)),
        ({"scipy": "1"}, ("torch is missing there, 2.13.0 here",)),
        ({"torch": "2.13.0", "scipy": "1", "numpy": "2"}, ("numpy is 2 there, missing here",)),
    ],
)
def test_what_differs_is_told_by_name(theirs, lines):
    assert differing({"torch": "2.13.0", "scipy": "1"}, theirs) == lines


def test_one_that_is_not_alike_answers_nothing(monkeypatch):
    monkeypatch.setattr(far, "_value", lambda *_: pytest.fail("it may not begin"))
    asked = Terms({**likeness(), "haversack": "another"}, 1)
    found = parcels.unpacked(far.answer(asked, "builtins:divmod", [None], {}, b""), str)
    assert found.kind == "unlike"
    assert found.value[0].startswith("haversack is the version with the digest")


@pytest.mark.parametrize(
    "error, name",
    [
        (JobError("odd", where="a", tried="b", next_step="c", faults=(Fault("d", "e"),)), "JobError"),
        (NotFinite("NaN", where="y"), "VerificationError"),
        (MissingExtra("scipy", "pack", purpose="it"), "EnvironmentFault"),
    ],
)
def test_errors_come_back_as_the_nearest_class_of_the_tree(error, name):
    again = far.raised(*far.plainly(error))
    assert type(again).__name__ == name
    assert str(again) == str(error)
    assert again.exit_code == error.exit_code
    assert isinstance(again, (JobError, VerificationError, EnvironmentFault))


def told(shared, task):
    if task < 0:
        raise JobError("it is negative", where=shared)
    return task * 2


@pytest.mark.parametrize("task, kind, value", [(2, "value", 4), (-1, "error", ("JobError", "it is negative"))])
def test_a_task_is_answered_by_the_name_of_its_function(monkeypatch, task, kind, value):
    monkeypatch.setattr(far, "_value", lambda shared, _: shared)
    monkeypatch.setattr(far, "named", lambda name: {far.name_of(told): told}[name])
    terms = Terms(likeness(), torch.get_num_threads())
    found = parcels.unpacked(far.answer(terms, far.name_of(told), "x", {}, parcels.packed(task, str)), str)
    assert isinstance(found, Answer)
    got = (found.value[0], found.value[1]["cause"]) if kind == "error" else found.value
    assert (found.kind, got) == (kind, value)
    assert 0 <= found.seconds < 10


def test_a_name_leads_to_its_function():
    assert far.named(far.name_of(own_code)) is own_code


@pytest.mark.parametrize("function", [lambda shared, task: task, Programs.apart], ids=["lambda", "method"])
def test_what_no_module_names_is_refused(function):
    with pytest.raises(TypeError, match="only a function that a module names"):
        far.name_of(function)


def test_a_worker_takes_the_threads_that_are_asked_for():
    before = torch.get_num_threads()
    try:
        far._settle(before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
