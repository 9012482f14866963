"""Everything that ships and runs models, in an environment in which torch and the rest of the workshop are not."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from shop import X, bundle

WORKSHOP = (
    "torch",
    "functorch",
    "torchgen",
    "executorch",
    "onnx",
    "scipy",
    "jinja2",
    "altair",
    "vl_convert",
    "ray",
    "coremltools",
)
"""What the names of packages begin with that are left out."""
KEPT = ("onnxruntime",)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return the interpreter of a virtual environment that has every package of this one but the workshop's."""
    folder = tmp_path_factory.mktemp("without") / "venv"
    venv.create(folder, symlinks=True)
    (mine,) = (Path(path) for path in sys.path if path.startswith(sys.prefix) and path.endswith("site-packages"))
    packages = next(folder.glob("lib/python*/site-packages"))
    for entry in mine.iterdir():
        name = entry.name.lower()
        wanted = name.startswith(KEPT) or not name.startswith(WORKSHOP)
        if wanted and entry.suffix != ".pth":
            (packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


@pytest.fixture
def typed(python, environment, tmp_path):
    """Return a function that types a command there, and gives what it printed."""

    def run(*words):
        done = subprocess.run(
            [python, "-m", "haversack.cli", *map(str, words)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_there_is_no_torch(python, environment):
    for name in ("torch", "onnx", "executorch"):
        done = subprocess.run(
            [python, "-c", f"import {name}"], env=environment, capture_output=True, text=True, check=False
        )
        assert f"No module named '{name}'" in done.stderr


def test_a_release_goes_to_a_device_and_back(typed, tmp_path):
    np.save(tmp_path / "x.npy", X)
    for number, value in enumerate((1.0, 2.0)):
        made = bundle(tmp_path / "bundles", f"1.{number}.0", value)
        assert "digits" in typed("inspect", made)
        assert "ok" in typed("verify", made)
    old, new = sorted((tmp_path / "bundles").iterdir())
    assert "onnxruntime" in typed("diff", old, new)
    typed("delta", "make", old / "onnxruntime.onnx", new / "onnxruntime.onnx", "model.delta")
    typed("delta", "apply", old / "onnxruntime.onnx", "model.delta", "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (new / "onnxruntime.onnx").read_bytes()
    typed("keys", "init", "keys")
    for made in (old, new):
        typed("publish", made, "--line", "digits", "--repository", "site", "--keys", "keys")
        typed("client", "update", "digits", "--repository", "site", "--root", "keys/1.root.json", "--home", "home")
        assert f"digits {made.stem.partition('-')[2]} on onnxruntime" in typed(
            "run", "digits", "x.npy", "--home", "home"
        )
    assert "way back: 1.0.0" in typed("client", "status", "--home", "home")
    typed("client", "rollback", "digits", "--home", "home")
    assert "digits 1.0.0 on onnxruntime" in typed("run", "digits", "x.npy", "--home", "home")
