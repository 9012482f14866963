from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from haversack.tools.worker.protocol import VERSION, Frame, read_frame
from haversack.tools.worker.serve import _answer


@pytest.fixture
def ask(worker_folder, monkeypatch):
    """A function that asks the child's loop in this process and reads its answer as the parent would."""
    monkeypatch.syspath_prepend(str(worker_folder))
    methods = {}

    def call(method, data=None, arrays=None, **more):
        request = Frame({"id": 7, "method": method, "data": data or {}, **more}, arrays or {})
        answer = read_frame(io.BytesIO(b"".join(_answer("served:methods", methods, request))))
        assert answer.data["id"] == 7
        return answer

    yield call
    sys.modules.pop("served", None)


def test_before_the_handshake_there_is_no_method(ask):
    answer = ask("echo")
    assert answer.data["ok"] is False
    assert answer.data["error"]["type"] == "LookupError"


def test_the_handshake_tells_version_and_methods(ask):
    data = ask("hello", {"version": VERSION}).data["data"]
    assert data["version"] == VERSION
    assert {"echo", "add", "fail"} <= set(data["methods"])


def test_another_version_gets_no_methods(ask):
    assert "speaks version 0" in ask("hello", {"version": 0}).data["error"]["text"]
    assert ask("echo").data["ok"] is False


def test_an_answer_carries_data_and_arrays(ask):
    ask("hello", {"version": VERSION})
    answer = ask("add", {"a": 1, "b": 2}, {"a": np.ones(2), "b": np.ones(2)})
    assert answer.data == {"id": 7, "ok": True, "data": {"sum": 3}}
    assert answer.arrays["sum"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("method", "data", "kind"),
    [
        ("fail", {"text": "words"}, "ValueError"),
        ("fail", {}, "KeyError"),
        ("unsendable", {}, "TypeError"),
        ("hello", {}, "KeyError"),
        (["echo"], {}, "TypeError"),
    ],
)
def test_every_exception_is_an_answer_with_type_text_and_traceback(ask, method, data, kind):
    ask("hello", {"version": VERSION})
    error = ask(method, data).data["error"]
    assert error["type"] == kind
    assert kind in error["traceback"]
    assert "serve.py" in error["traceback"]


def test_an_error_of_a_package_is_named_with_its_module(tmp_path, monkeypatch):
    lines = [
        "from haversack.base.errors import UsageError",
        "def factory():",
        "    raise UsageError('no', where='here')",
    ]
    (tmp_path / "refusing.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    hello = Frame({"id": 1, "method": "hello", "data": {"version": VERSION}})
    answer = read_frame(io.BytesIO(b"".join(_answer("refusing:factory", {}, hello))))
    assert answer.data["error"]["type"] == "haversack.base.errors.UsageError"
    assert answer.data["error"]["text"] == "here: no"


def test_a_request_without_a_method_is_an_error_and_not_the_end(ask):
    answer = read_frame(io.BytesIO(b"".join(_answer("served:methods", {}, Frame({"id": 3})))))
    assert answer.data["error"]["type"] == "KeyError"
    assert answer.data["id"] == 3
