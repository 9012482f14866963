"""Sessions: the interface, errors with a next step, and no torch anywhere near."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError, MissingExtra, UsageError
from haversack.base.graph import TensorSpec
from haversack.targets.onnxruntime import OnnxRuntime

TARGET = OnnxRuntime()


@pytest.fixture(scope="module")
def opened(zoo, encoded, tmp_path_factory):
    model, sample = zoo["residual"]
    folder = tmp_path_factory.mktemp("session")
    artifact = TARGET.lower(model, encoded(model, [sample]), folder)
    return folder / "model.onnx", artifact, sample[0]


def test_the_interface(opened):
    path, artifact, x = opened
    session = TARGET.open_session(path, artifact.session_options)
    assert [(p.name, p.spec) for p in session.inputs] == [("x", TensorSpec(("batch", 3, 8, 8), "float32"))]
    assert [(p.name, p.spec) for p in session.outputs] == [("output", TensorSpec(("batch", 5), "float32"))]
    found = session.run({"x": x})
    assert {name: (y.shape, str(y.dtype)) for name, y in found.items()} == {"output": ((4, 5), "float32")}


def test_integer_inputs_are_described(zoo, tmp_path):
    model, _ = zoo["words"]
    artifact = TARGET.lower(model, Encodings.none(), tmp_path)
    assert artifact.inputs[0].spec.dtype == "int64"


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"y": np.zeros((1, 3, 8, 8), np.float32)},
        {"x": np.zeros((1, 3, 8, 8), np.float64)},
        {"x": np.zeros((1, 3, 9, 8), np.float32)},
        {"x": np.zeros((3, 8, 8), np.float32)},
    ],
)
def test_inputs_that_do_not_fit(opened, inputs):
    path, artifact, _ = opened
    with pytest.raises(UsageError) as caught:
        TARGET.open_session(path, artifact.session_options).run(inputs)
    assert "x ['batch', 3, 8, 8] float32" in caught.value.next_step


def test_a_closed_session_runs_no_more(opened):
    path, artifact, x = opened
    session = TARGET.open_session(path, artifact.session_options)
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run({"x": x})


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_are_at_least_one(opened, threads):
    with pytest.raises(UsageError, match="at least one thread"):
        TARGET.open_session(opened[0], {}, threads)


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x0a"])
def test_a_file_that_the_runtime_refuses(tmp_path, data):
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(ConversionError) as caught:
        TARGET.open_session(path)
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 4
    assert (caught.value.tried, caught.value.next_step) == ("", ""), "nobody here wrote it"


def test_a_missing_file(tmp_path):
    with pytest.raises(ConversionError, match="does not open"):
        TARGET.open_session(tmp_path / "none.onnx")


def test_a_refused_layer_is_named(opened, tmp_path):
    import onnx

    proto = onnx.load(opened[0])
    for node in proto.graph.node:
        if node.name == "two:conv2d#0":
            node.op_type = "Convolve"
    path = tmp_path / "odd.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ConversionError) as caught:
        TARGET.open_session(path)
    assert "two:conv2d#0" in caught.value.where


def test_without_the_package_its_extra_is_named(opened, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra) as caught:
        TARGET.open_session(opened[0])
    assert "haversack[pack]" in caught.value.next_step


def test_a_session_needs_neither_torch_nor_onnx(opened):
    path, artifact, _ = opened
    program = f"""
import sys
for name in ("torch", "onnx", "onnx_ir", "onnxscript"):
    sys.modules[name] = None
import numpy as np
from pathlib import Path
from haversack.targets.contract import SHELF
session = SHELF.build("onnxruntime").open_session(Path({str(path)!r}), {dict(artifact.session_options)!r}, 1)
print(session.run({{"x": np.zeros((2, 3, 8, 8), np.float32)}})["output"].shape)
"""
    source = str(Path(sys.modules["haversack"].__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert (done.returncode, done.stdout) == (0, "(2, 5)\n"), done.stderr


def test_the_options_are_applied(opened):
    from haversack.targets.onnxruntime.session import options

    chosen = options({"session.x64quantprecision": "1"}, 2)
    assert chosen.get_session_config_entry("session.x64quantprecision") == "1"
    assert (chosen.intra_op_num_threads, chosen.inter_op_num_threads) == (2, 1)
