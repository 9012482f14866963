"""Errors: what a user reads, and the exit code that a script reads."""

from __future__ import annotations

import inspect
import re

import pytest

from haversack.base import errors
from haversack.base.errors import ConversionError, Fault, HaversackError, JobError, MissingExtra, UsageError, grouped

CODES = {
    "HaversackError": 1,
    "UsageError": 2,
    "JobError": 2,
    "BudgetMissed": 3,
    "ConversionError": 4,
    "VerificationError": 5,
    "EnvironmentFault": 6,
    "MissingExtra": 6,
    "Refused": 7,
    "Interrupted": 130,
}


def every_error():
    return {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}


def test_the_tree_is_complete_and_all_of_it_is_ours():
    assert set(every_error()) == set(CODES)
    assert all(issubclass(kind, HaversackError) for kind in every_error().values())


@pytest.mark.parametrize("name, code", CODES.items())
def test_exit_codes(name, code):
    assert every_error()[name].exit_code == code


def test_the_drawing_shows_the_tree():
    drawn = dict(re.findall(r"([A-Z]\w+)\s+exit (\d+)", errors.__doc__))
    assert drawn == {name: str(code) for name, code in CODES.items() if name != "HaversackError"}


def test_the_drawing_shows_who_inherits_from_whom():
    depth = {
        name: len(line.split(name)[0]) for line in errors.__doc__.splitlines() for name in CODES if f" {name}" in line
    }
    assert depth["JobError"] > depth["UsageError"] > depth["HaversackError"]
    assert issubclass(errors.JobError, errors.UsageError)
    assert depth["MissingExtra"] > depth["EnvironmentFault"]
    assert issubclass(errors.MissingExtra, errors.EnvironmentFault)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({}, "it broke"),
        ({"where": "job.py:3"}, "job.py:3: it broke"),
        ({"tried": "twice"}, "it broke\n  tried: twice"),
        ({"next_step": "haversack doctor"}, "it broke\n  next: haversack doctor"),
        ({"faults": (Fault("a", "is b"), Fault("", "no place"))}, "it broke\n  - a: is b\n  - no place"),
        (
            {"where": "x", "tried": "t", "next_step": "n", "faults": (Fault("a", "is b"),)},
            "x: it broke\n  - a: is b\n  tried: t\n  next: n",
        ),
    ],
)
def test_what_a_person_reads(arguments, expected):
    assert str(HaversackError("it broke", **arguments)) == expected


def test_the_parts_can_be_read_apart():
    faults = (Fault("line 3", "is wrong"),)
    error = UsageError("cause", where="here", tried="this", next_step="that", faults=faults)
    assert (error.cause, error.where, error.tried, error.next_step, error.faults) == (
        "cause",
        "here",
        "this",
        "that",
        faults,
    )
    assert error.args == ("cause",)


def test_a_missing_extra_names_the_command_that_adds_it():
    error = MissingExtra("torch", "pack", purpose="haversack pack")
    assert (error.package, error.extra, error.exit_code) == ("torch", "pack", 6)
    assert str(error) == (
        "haversack pack needs the package torch, which is not installed\n  next: pip install 'haversack[pack]'"
    )


def test_all_are_caught_by_the_root():
    for kind in every_error().values():
        made = kind("a", "b", purpose="c") if kind is MissingExtra else kind("a")
        with pytest.raises(HaversackError):
            raise made


def test_faults_of_one_cause_are_one_line_with_their_number_and_first_places():
    faults = [Fault(f"rnn:getitem#{count}", "no getitem here") for count in range(650)]
    faults += [Fault("rnn:zeros#0", "no zeros here"), Fault("", "no place"), Fault("rnn:zeros#1", "no zeros here")]
    assert grouped(faults) == [
        "650 times (rnn:getitem#0, rnn:getitem#1, rnn:getitem#2, …): no getitem here",
        "rnn:zeros#0: no zeros here",
        "rnn:zeros#1: no zeros here",
        "no place",
    ]
    assert grouped(faults[:3]) == [str(fault) for fault in faults[:3]], "a few are told one by one"
    assert grouped(faults, 1)[1:] == ["and 3 more faults, all of them with --json"]
    assert grouped(faults, 3)[3:] == ["and 1 more fault, all of them with --json"]
    assert grouped([Fault("", "alone")] * 5) == ["5 times: alone"]


def test_what_cannot_be_converted_is_told_in_few_lines_and_all_of_it_as_data():
    faults = tuple(Fault(f"layer{count}", f"reason {count}") for count in range(30))
    error = ConversionError("no", faults=faults)
    assert str(error).count("  - ") == 9
    assert str(error).endswith("  - and 22 more faults, all of them with --json")
    assert len(error.data()["faults"]) == 30
    assert str(UsageError("no", faults=faults)).count("  - ") == 30, "all faults of a file"


def test_an_error_as_data():
    error = JobError("no data", where="job.py:3", faults=(Fault("x", "NaN"),), tried="looking", next_step="mend it")
    assert error.data() == {
        "kind": "JobError",
        "cause": "no data",
        "where": "job.py:3",
        "faults": [{"where": "x", "cause": "NaN"}],
        "tried": "looking",
        "next": "mend it",
    }
