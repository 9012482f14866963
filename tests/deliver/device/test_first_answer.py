"""What is done from the opening of a model to its first answer, beside what its runtime does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from shop import Shop, tried_here

from haversack.flow.client import Client

AUDITED = """
import json, os, sys, numpy, onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state
from haversack.flow.client import Client
client, x, told = Client(sys.argv[1]), numpy.ones((1, 4), "f"), []
if sys.argv[2] == "again":
    client.open("digits", follow=False)(x)
before = {*sys.modules}
watched = ("open", "os.mkdir", "os.remove", "os.rename", "os.listdir", "os.scandir")
sys.addaudithook(lambda event, words: told.append((event, str(words[0]))) if event in watched else None)
client.open("digits", follow=False)(x)
print(json.dumps([sorted({*sys.modules} - before), [(event, os.path.basename(path)) for event, path in told]]))
"""
SMALL = {"manifest.json", "labels.txt", "onnxruntime.json", "tuning.json"}


@pytest.fixture
def home(tmp_path):
    made = Shop.create(tmp_path)
    made.publish("1.0.0", 1.0)
    Client(tmp_path / "home", made.url, made.root, test=tried_here, tune=None).update("digits")
    return tmp_path / "home"


def audited(home, when, environment):
    """Return which modules an opening and its first answer import, and (event, file) of what they do to files."""
    command = [sys.executable, "-c", AUDITED, str(home), when]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_a_first_opening_imports_nothing(home, environment):
    modules, _ = audited(home, "first", environment)
    assert modules == []


def test_an_opening_reads_each_file_once_and_makes_none(home, environment):
    """The mark is set twice in a file that lies there: one is made once for a release."""
    modules, told = audited(home, "again", environment)
    opened = [name for event, name in told if event == "open"]
    assert modules == []
    assert opened[:4] == ["lock", "current", "1-0", "a"]
    assert opened[-1] == "1-0"
    assert sorted(opened[4:-1]) == sorted(SMALL)
    assert [event for event, _ in told if event != "open"] == ["os.scandir", "os.scandir"]
