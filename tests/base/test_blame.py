"""Blame: the user's own line, not ours and not a library's."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from haversack.base import blame, digest
from haversack.base.blame import place, sentence


def caught(path, text, call="f"):
    """Run a user's file and return the error that it ends with."""
    path.write_text(text)
    names = {"np": np, "json": json, "digest": digest}
    try:
        exec(compile(text, str(path), "exec"), names)
        names[call]()
    except Exception as error:
        return error
    return None


def test_the_deepest_line_of_the_user_s_file(tmp_path):
    path = tmp_path / "job.py"
    error = caught(path, "def g():\n    return 1 / 0\n\ndef f():\n    return g()\n")
    assert place(error) == f"{path}:2"


@pytest.mark.parametrize(
    "line", ["json.loads('{')", "np.zeros(3).reshape(2, 2)", "digest.of_data(object())", "np.concatenate([])"]
)
def test_libraries_and_ours_are_not_blamed(tmp_path, line):
    path = tmp_path / "job.py"
    error = caught(path, f"def f():\n    x = 1\n    {line}\n")
    assert place(error) == f"{path}:3"


def test_a_user_s_folder_may_be_named_like_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(blame, "_PACKAGE", f"{tmp_path}{os.sep}haversack{os.sep}")
    path = tmp_path / "haversack_jobs.py"
    assert place(caught(path, "def f():\n    1 / 0\n")) == f"{path}:2"


def test_a_syntax_error_is_where_it_is(tmp_path):
    path = tmp_path / "job.py"
    error = caught(path, "x = 1\ny = (\n")
    assert isinstance(error, SyntaxError)
    assert place(error) == f"{path}:2"


def test_nobody_is_blamed_for_an_error_without_a_place():
    assert place(ValueError("never raised")) == ""


@pytest.mark.parametrize(
    "error, text",
    [
        (ValueError("shapes do not match"), "ValueError: shapes do not match"),
        (ValueError("first\nsecond"), "ValueError: first"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (RuntimeError("  \n "), "RuntimeError"),
    ],
)
def test_a_sentence(error, text):
    assert sentence(error) == text
