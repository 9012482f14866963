"""Several architectures of one job: a mapping of names to modules, or every fault of it at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from haversack.base.errors import JobError
from haversack.base.job import Job
from haversack.load import architectures, export, open_job

SEVERAL = ("def model():", "def models():")
BOTH = 'return {"narrow": Net().eval(), "wide": Net().eval()}'


def job(models) -> Job:
    return Job("net", nn.Identity, list, list, "top1", source="job.py", models=models)


def test_a_job_file_gives_them_by_name(job_file):
    path = job_file(SEVERAL, ("return Net().eval()", BOTH), more='input_names = ["image"]')
    whole = open_job(str(path))
    ones = architectures(whole)
    assert list(ones) == ["narrow", "wide"]
    for name, one in ones.items():
        assert one.name == f"{whole.name}-{name}"
        assert one.models is None
        assert (one.metric, one.source, one.input_names) == ("top1", str(path), ("image",))
        assert one.model() is one.model(), "the module that models() gave, not another"
    assert ones["narrow"].model() is not ones["wide"].model()
    assert [port.name for port in export(ones["wide"]).inputs] == ["image"]


def test_models_runs_when_it_is_asked_for_and_not_before(job_file):
    path = job_file(SEVERAL, ("return Net().eval()", "raise ValueError('no weights')"))
    whole = open_job(str(path))
    with pytest.raises(JobError, match=r"models\(\) raised ValueError: no weights"):
        architectures(whole)


def test_a_job_of_one_model_has_none(job_file):
    whole = open_job(str(job_file()))
    assert whole.models is None
    assert architectures(whole) == {}


def test_where_one_model_is_wanted_several_are_refused(job_file):
    whole = open_job(str(job_file(SEVERAL, ("return Net().eval()", BOTH))))
    with pytest.raises(JobError, match="several architectures where one model is wanted"):
        export(whole)


def test_both_names_are_a_fault(job_file):
    path = job_file(more="def models():\n    return {}")
    with pytest.raises(JobError) as told:
        open_job(str(path))
    assert [(fault.where, fault.cause) for fault in told.value.faults] == [
        ("models", "stands beside model: give one of them")
    ]
    assert open_job(f"{path}:model").models is None, "a name in the source says which"


@pytest.mark.parametrize("text", ["models = 3", "def models(width):\n    return {}"])
def test_what_is_no_function_without_arguments_is_told_when_the_file_is_read(job_file, text):
    path = job_file(("def model():", "def _unused():"), more=text)
    with pytest.raises(JobError) as told:
        open_job(str(path))
    assert [fault.where for fault in told.value.faults] == ["models"]


@pytest.mark.parametrize("given", [None, [nn.Identity()], {}, nn.Identity()])
def test_what_is_no_mapping_is_refused(given):
    with pytest.raises(JobError, match="a mapping of names to modules is wanted") as told:
        architectures(job(lambda: given))
    assert told.value.where == "job.py"
    assert "def models()" in told.value.next_step


def test_all_faults_are_told_at_once():
    given = {"../up": nn.Identity(), 3: nn.Identity(), "good": "weights.pt", "Good": nn.Identity()}
    with pytest.raises(JobError) as told:
        architectures(job(lambda: given))
    assert [fault.where for fault in told.value.faults] == ["'../up'", "3", "'Good'", "'good'"]
    assert "capitals" in told.value.faults[2].cause
    assert told.value.faults[3].cause == "is a str, not an nn.Module"


def test_more_than_can_be_packed_are_refused():
    with pytest.raises(JobError) as told:
        architectures(job(lambda: {f"w{width}": nn.Identity() for width in range(17)}))
    assert "17 architectures" in told.value.faults[0].cause
    assert len(architectures(job(lambda: {f"w{width}": nn.Identity() for width in range(16)}))) == 16


NAMES = st.one_of(st.text(max_size=45), st.from_regex(r"[a-zA-Z0-9_.-]{0,42}", fullmatch=True))


@given(NAMES)
def test_a_name_that_is_taken_is_one_safe_file_name(name):
    safe = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name, re.ASCII) is not None
    try:
        (taken,) = architectures(job(lambda: {name: nn.Identity()}))
    except JobError:
        assert not safe or len(name) > 40 or name.endswith(".")
        return
    assert safe
    assert Path(taken).name == taken == name
    assert not Path(taken).is_absolute()
