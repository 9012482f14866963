"""A process that is ready reads no new kind of record when it opens a model, and opens it without torch."""

from __future__ import annotations

import builtins
import contextlib
import subprocess
import sys

import numpy as np
import pytest

import haversack
from haversack.base import recipe
from haversack.base.errors import Refused, VerificationError
from haversack.run import opening
from haversack.run.opening import load, open_model, ready
from haversack.run.source import found

WITHOUT = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnx_ir", "onnxscript", "scipy", "jinja2", "zstandard"}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
import numpy as np
import haversack
for target in ("onnxruntime", "litert"):
    with haversack.open_model(sys.argv[1], target=target) as model:
        print(model(np.ones((1, 1, 8, 8), np.float32)).top(1)[0][0].label)
"""


def test_it_runs_where_torch_cannot_be_imported(bundle, environment):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(bundle)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()
    assert first == second
    assert first in {"across", "down", "up", "aslant"}


def test_the_public_name(bundle):
    assert haversack.open_model is open_model
    with haversack.open_model(str(bundle)) as model:
        assert model(np.ones((1, 1, 8, 8), np.float32)).version == "1.0.0"


def test_a_process_that_is_ready_makes_no_readers_later(bundle, monkeypatch):
    recipe._converter.cache_clear()
    ready()
    made, compiles = [], compile

    def counted(source, name, *more, **named):
        made.append(str(name))
        return compiles(source, name, *more, **named)

    monkeypatch.setattr(builtins, "compile", counted)
    found(bundle, "litert", verified=True)
    assert [name for name in made if "cattrs" in name] == []
    recipe._converter.cache_clear()
    found(bundle, "litert", verified=True)
    assert [name for name in made if "cattrs" in name] != []


def test_one_converter_serves_all():
    assert recipe._converter() is recipe._converter()


def test_preprocessing_that_cannot_be_read_is_refused(bundle, monkeypatch):
    from dataclasses import replace

    source = found(bundle, "litert")
    strange = replace(source, bundle=replace(source.bundle, preprocess=({"op": "scale", "input": 0, "by": "much"},)))
    with pytest.raises(Refused, match=r"preprocess\[0\]"):
        load(strange)


def test_threads_that_are_asked_for(bundle):
    with open_model(bundle, threads=2) as model:
        assert model.setting == opening.Setting(2)


def test_the_first_answer_is_told_once(bundle):
    events = []
    with open_model(bundle, target="onnxruntime", sink=events.append) as model:
        assert events == []
        for _ in range(3):
            model(np.ones((1, 1, 8, 8), np.float32))
    (first,) = [event for event in events if event.data.get("first_answer")]
    assert first.text.endswith(" 1.0.0 gave its first answer")
    assert first.data["seconds"] > 0


def test_an_answer_of_the_release_before_is_no_first_answer(bundle, monkeypatch):
    """What ends with the first answer, marks of crashes among it, waits for the release's own."""
    events, trials = [], []

    @contextlib.contextmanager
    def first():
        trials.append("begun")
        yield
        trials.append("answered")

    before = load(found(bundle, "litert"))
    loaded = load(found(bundle, "onnxruntime"), previous=lambda: before, sink=events.append, first=first)
    given = [{loaded.inputs[0].name: np.ones((1, 1, 8, 8), np.float32)}]
    monkeypatch.setattr(loaded, "_computed", failing)
    loaded.answers(given)
    assert (trials, [event for event in events if event.data.get("first_answer")]) == (["begun"], [])
    monkeypatch.undo()
    loaded.answers(given)
    assert trials == ["begun", "begun", "answered"]
    assert len([event for event in events if event.data.get("first_answer")]) == 1
    loaded.retire()


def failing(_):
    raise VerificationError("2 values are NaN")


def test_only_what_was_tried_is_opened_as_proven(bundle, monkeypatch):
    """A stranger's file is read whole by us before a runtime opens it; one that was installed is not read again."""
    from haversack.targets.contract import Target

    seen = []
    monkeypatch.setattr(Target, "_open_proven", lambda self, *rest: seen.append("proven") or self._open(*rest))
    with open_model(bundle, target="litert"):
        assert seen == []
    load(found(bundle, "litert", verified=True)).retire()
    assert seen == ["proven"]


def test_ready_imports_what_opens_files_and_no_runtime(environment):
    code = (
        "import sys\nfrom haversack.run.opening import ready\nready(targets=('litert', 'onnxruntime', 'nobody'))\n"
        "print('haversack.targets.litert.session' in sys.modules, 'onnxruntime' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]
