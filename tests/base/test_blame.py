"""Whose line it was: the user's, not ours and not a library's."""

from __future__ import annotations

import json

import pytest

from haversack.base import blame, budget


def raised(call):
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


def test_the_deepest_line_of_the_user():
    def outer():
        inner()

    def inner():
        raise ValueError("first line\nsecond line")

    error = raised(outer)
    line = inner.__code__.co_firstlineno + 1
    assert blame.place(error) == f"{__file__}:{line}"
    assert blame.sentence(error) == "ValueError: first line"


def test_libraries_and_our_own_code_are_not_blamed():
    for call in (lambda: json.loads("{"), lambda: budget.parse("bogus=1")):
        assert blame.place(raised(call)) == f"{__file__}:{call.__code__.co_firstlineno}"


def test_an_error_without_frames_has_no_place():
    assert blame.place(ValueError("x")) == ""
    assert blame.sentence(KeyError()) == "KeyError"


def test_a_syntax_error_has_its_own_place():
    error = raised(lambda: compile("a = (\n", "job.py", "exec"))
    assert blame.place(error) == "job.py:1"
