# ruff: noqa: E501 - a table of job files
"""Jobs that cannot be packed: the cause, the place, the next step, the right exit code, and nothing half-written."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys

import pytest

from haversack.cli import main

HEAD = """
import numpy as np
import torch
from torch import nn
metric = "top1"
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(3, 2)
    def forward(self, x):
        return self.classify(x)
def model():
    return Net().eval()
def calibration():
    yield (np.ones((4, 3), np.float32),)
def evaluation():
    yield (np.ones((4, 3), np.float32),), np.zeros(4, np.int64)
"""

BRANCH = """
class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(3, 2)
    def forward(self, x):
        if x.sum() > 0:
            return self.classify(x)
        return -self.classify(x)
class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Branch()
    def forward(self, x):
        return self.inner(x)
def model():
    return Outer().eval()
"""

SCORED = "# refused when the float model is scored\n"
NEVER = "def model():\n    torch.manual_seed(0)\n    net = Net().eval()\n    nn.init.constant_(net.classify.weight, 0)\n    net.classify.bias.data = torch.tensor([0.0, 1.0])\n    return net\n"
LATER = "def calibration():\n    for bad in (0, np.nan):\n        x = np.ones((4, 3), np.float32)\n        x[2, 1] += bad\n        yield (x,)\n"
MINE = "def metric(outputs, expected):\n    return outputs[0].argmax(1) == expected\n"

# (name, what is added to or replaces the job file, exit code, what must be said)
CASES = [
    ("a syntax error", "def model(:\n", 2, ["job.py:1", "invalid syntax"]),
    ("a missing name", HEAD.replace("def calibration", "def callibration"), 2, ["calibration", "job.py"]),
    ("an error on import", HEAD + "raise OSError('no such disk')\n", 2, ["no such disk", r"job\.py:\d+"]),
    ("a missing module", HEAD + "import nowhere_at_all\n", 6, ["nowhere_at_all"]),
    ("training mode", HEAD.replace("Net().eval()", "Net().train()"), 2, ["train", "eval()"]),
    ("no module", HEAD + "def model():\n    return 3\n", 2, ["model()", "int"]),
    ("a model that raises", HEAD + "def model():\n    raise ValueError('no weights')\n", 2, ["no weights", r"job\.py:\d+"]),
    ("an empty calibration set", HEAD + "def calibration():\n    return []\n", 2, ["calibration()", "no"]),
    ("an empty evaluation set", HEAD + "def evaluation():\n    return []\n", 2, ["evaluation()"]),
    ("a wrong shape", HEAD + "def calibration():\n    yield (np.ones((4, 5), np.float32),)\n", 2, [r"5"]),
    (
        "a wrong shape later",
        HEAD + "def calibration():\n    yield (np.ones((4, 3), np.float32),)\n    yield (np.ones((4, 5), np.float32),)\n",
        2,
        ["calibration()", "5"],
    ),
    (
        "a wrong dtype in evaluation",
        HEAD + "def evaluation():\n    yield (np.ones((4, 3), np.int64),), np.zeros(4, np.int64)\n",
        2,
        ["evaluation()", "int64"],
    ),
    ("NaN in data", HEAD + "def calibration():\n    yield (np.full((4, 3), np.nan, np.float32),)\n", 2, ["calibration()", "NaN"]),
    (
        "a forgotten comma",
        HEAD + "def calibration():\n    yield (np.ones((4, 3), np.float32))\n",
        2,
        ["calibration(): batch 0", r"an array, not a tuple of arrays: write \(x,\), with the comma"],
    ),
    (
        "inputs of evaluation that are no tuple",
        HEAD + "def evaluation():\n    yield np.ones((4, 3), np.float32), np.zeros(4, np.int64)\n",
        2,
        ["evaluation(): batch 0", r"an array, not a tuple of arrays: write \(x,\), with the comma"],
    ),
    (
        "inputs without expected values",
        HEAD + "def evaluation():\n    yield np.ones((4, 3), np.float32)\n",
        2,
        ["evaluation(): batch 0", "not a pair"],
    ),
    (
        "labels from 1",
        HEAD + "def evaluation():\n    yield (np.ones((4, 3), np.float32),), np.array([1, 2, 1, 2])\n",
        2,
        ["labels from 1 to 2 for 2 classes", "labels - 1", "next: .*integers from 0"],
    ),
    (
        "labels that are names",
        HEAD + "def evaluation():\n    yield (np.ones((4, 3), np.float32),), np.array(['a', 'b', 'a', 'b'])\n",
        2,
        ["dtype <U1", "next: .*classes.index"],
    ),
    (
        "NaN in a later batch",
        HEAD + LATER,
        2,
        ["calibration(): batch 1", "input 0: 1 of 12 values are NaN or infinite, the first in row 2, at .2, 1."],
    ),
    (
        "NaN in evaluation",
        HEAD + "def evaluation():\n    yield (np.full((4, 3), np.nan, np.float32),), np.zeros(4, np.int64)\n",
        2,
        ["evaluation()", "NaN"],
    ),
    (
        "NaN in weights",
        HEAD + "def model():\n    net = Net().eval()\n    nn.init.constant_(net.classify.weight, float('nan'))\n    return net\n",
        2,
        ["classify.weight", "NaN|finite"],
    ),
    ("an unknown metric", HEAD.replace('"top1"', '"topp1"'), 2, ["topp1", "did you mean top1"]),
    (
        "a metric that raises",
        HEAD + "def metric(outputs, expected):\n    raise KeyError('colour')\n",
        2,
        ["metric", "colour", r"job\.py:\d+"],
    ),
    (
        "a metric that gives NaN",
        HEAD + "def metric(outputs, expected):\n    return np.full(len(expected), np.nan)\n",
        2,
        ["metric", "NaN|finite"],
    ),
    ("an unknown operation", HEAD + "preprocess = [{'op': 'resise', 'height': 3}]\n", 2, ["resise", "did you mean resize"]),
    ("labels of another length", HEAD + "def evaluation():\n    yield (np.ones((4, 3), np.float32),), np.zeros(3, np.int64)\n", 2, ["evaluation()"]),
    ("a baseline in percent", HEAD + "baseline = 95\n", 2, ["baseline", r"baseline = 0\.95"]),
    ("a baseline that is not reached", HEAD + NEVER + "baseline = 0.5\n" + SCORED, 2, ["baseline", r"0\.5000"]),
    ("a callable's baseline in percent", HEAD + MINE + NEVER + "baseline = 95\n" + SCORED, 2, ["baseline", r"baseline = 0\.95"]),
    ("data-dependent control flow", HEAD + BRANCH, 4, ["inner", r"job\.py:\d+"]),
]  # fmt: skip


@pytest.mark.parametrize("text, code, said", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_job_that_cannot_be_packed(tmp_path, monkeypatch, capfd, text, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(text)
    found = main(["pack", "job.py", "--budget", "size=1MB", "--out", "out"])
    told = capfd.readouterr().err
    assert found == code, told
    assert "Traceback" not in told
    for one in said:
        assert re.search(one.replace("()", r"\(\)"), told, re.IGNORECASE), f"{one!r} is not in:\n{told}"
    assert not list((tmp_path / "out").glob("best/**/*"))
    # Only the float model's score can be looked at after its file was made.
    assert (tmp_path / "out").exists() == text.endswith(SCORED)
    assert not list((tmp_path / "out").rglob("*.part"))


_DRY = {
    "a metric that raises",
    "a metric that gives NaN",
    "labels from 1",
    "labels that are names",
    "NaN in evaluation",
}
DRY = [case for case in CASES if case[0] in _DRY]


@pytest.mark.parametrize("text, code, said", [case[1:] for case in DRY], ids=[case[0] for case in DRY])
def test_a_dry_run_refuses_what_pack_refuses(tmp_path, monkeypatch, capfd, text, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(text)
    assert main(["pack", "job.py", "--dry-run"]) == code
    told = capfd.readouterr().err
    for one in said:
        assert re.search(one.replace("()", r"\(\)"), told, re.IGNORECASE), f"{one!r} is not in:\n{told}"


def test_after_a_failed_attempt_another_job_may_have_the_folder(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(HEAD + "def metric(outputs, expected):\n    raise KeyError('colour')\n")
    (tmp_path / "other.py").write_text(HEAD + "def evaluation():\n    return []\n")
    assert main(["pack", "job.py", "--out", "out"]) == 2
    assert main(["pack", "other.py", "--out", "out"]) == 2
    assert "another job" not in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name == "out"] == []


@pytest.mark.parametrize("text, code, said", [case[1:] for case in CASES[-4:]], ids=[case[0] for case in CASES[-4:]])
def test_after_it_is_mended_the_same_folder_is_taken(tmp_path, monkeypatch, capfd, text, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(text)
    assert main(["pack", "job.py", "--out", "out"]) == code
    (tmp_path / "job.py").write_text("def model(:\n")
    assert main(["pack", "job.py", "--out", "out"]) == 2
    told = capfd.readouterr().err
    assert "invalid syntax" in told
    assert "not a folder that haversack made" not in told


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "model.pth", "model.bin"])
def test_a_pickle_is_refused_with_exit_code_7_and_not_run(tmp_path, monkeypatch, capfd, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Payload(str(tmp_path / "ran"))))
    code = main(["pack", name, "--out", "out"])
    told = capfd.readouterr().err
    assert code == 7, told
    assert "--allow-pickle" in told
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.pt2", "model.safetensors", "nothing.py"])
def test_a_missing_truncated_or_foreign_file(tmp_path, monkeypatch, capfd, name):
    monkeypatch.chdir(tmp_path)
    if name != "nothing.py":
        (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing that belongs there")
    code = main(["pack", name, "--out", "out"])
    told = capfd.readouterr().err
    assert code == 2, told
    assert name in told
    assert "next:" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package, extra", [("onnx_ir", "pack"), ("torch", "pack"), ("onnxruntime", "pack")])
def test_a_missing_extra_is_named_with_the_command_that_adds_it(tmp_path, environment, package, extra):
    (tmp_path / "job.py").write_text(HEAD)
    script = (
        "import sys, importlib.abc, importlib.metadata\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {package!r}:\n"
        "            raise ModuleNotFoundError('No module named ' + repr(name), name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "version = importlib.metadata.version\n"
        "def told(name):\n"
        f"    if name.replace('-', '_') == {package!r}:\n"
        "        raise importlib.metadata.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "importlib.metadata.version = told\n"
        "from haversack.cli import main\n"
        "sys.exit(main(['pack', 'job.py', '--budget', 'size=1MB', '--out', 'out']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 6, done.stderr
    assert package.replace("_", "-") in done.stderr or package in done.stderr
    assert f"pip install 'haversack[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
