"""Looking at a file in the runtime: what was fused, how long it takes, what flows."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import UsageError
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.onnxruntime.observe import Owners, by_call
from haversack.targets.reference import Reference
from haversack.tools.numerics import affine

TARGET = OnnxRuntime()
NAMES = ("residual", "depthwise", "branches", "words", "sequence")
UNFUSED = {"session.disable_quant_qdq": "1"}


@pytest.fixture(scope="module")
def lowered(zoo, encoded, tmp_path_factory):
    """name, precision -> (model, sample, encodings, artifact, path)."""

    def make(name, precision="int8"):
        model, sample = zoo[name]
        encodings = Encodings.none() if precision == "float32" else encoded(model, [sample], precision)
        folder = tmp_path_factory.mktemp("observe")
        artifact = TARGET.lower(model, encodings, folder)
        return model, sample, encodings, artifact, folder / "model.onnx"

    return make


@pytest.mark.parametrize("name", NAMES)
def test_codes_can_be_seen_and_are_the_references(lowered, name):
    model, sample, encodings, artifact, path = lowered(name)
    keys = [key for key in encodings.tensors if key.endswith(":out")]
    found = TARGET.tensors(path, artifact, sample, keys)
    assert set(found) == set(keys) - set(artifact.absorbed)
    wanted = {}
    Reference(at_once=0).run(model, encodings, sample, observe=lambda key, value: wanted.update({key: value.copy()}))
    for key, codes in found.items():
        assert codes.dtype == np.uint8
        assert np.array_equal(codes, affine.quantize(wanted[key], encodings.affine(key))), key


@pytest.mark.parametrize("name", NAMES)
def test_looking_changes_nothing(lowered, name, monkeypatch):
    """The outputs of the copy that shows every code are the file's own, bit for bit."""
    from haversack.targets.onnxruntime import observe

    model, sample, encodings, artifact, path = lowered(name)
    runs = []
    real = observe.start

    def spy(*arguments):
        session = real(*arguments)
        names = [out.name for out in session.get_outputs()]
        feeds = {port.name: array for port, array in zip(model.inputs, sample, strict=True)}
        runs.append(dict(zip(names, session.run(None, feeds), strict=True)))
        return session

    monkeypatch.setattr(observe, "start", spy)
    TARGET.tensors(path, artifact, sample, list(encodings.tensors))
    (shown,) = runs
    plain = TARGET.open_session(path, artifact.session_options).run(
        {port.name: array for port, array in zip(model.inputs, sample, strict=True)}
    )
    assert len(shown) > len(plain)
    assert all(shown[key].tobytes() == value.tobytes() for key, value in plain.items())


def test_float_tensors_are_not_shown_where_they_would_change_kernels(lowered):
    *_, sample, _, artifact, path = lowered("residual")
    assert "two:conv2d#0:out" in artifact.tensor_names
    floats = [key for key, name in artifact.tensor_names.items() if not name.endswith("/codes")]
    found = TARGET.tensors(path, artifact, sample, floats)
    assert all(value.dtype == np.float32 for value in found.values())
    assert set(found) <= {"x:input#0:out", "head:linear#0:out"}


def test_unknown_keys_are_left_out(lowered):
    *_, sample, _, artifact, path = lowered("residual")
    assert TARGET.tensors(path, artifact, sample, ["nobody:conv2d#0:out"]) == {}


@pytest.mark.parametrize("name", NAMES)
def test_all_that_was_meant_for_integers_is_fused(lowered, name):
    *_, artifact, path = lowered(name)
    assert TARGET.unfused(path, artifact) == ()


def test_layers_that_stay_in_float_are_told(lowered):
    """A planted cause: ONNX Runtime is told to ignore Q/DQ."""
    *_, artifact, path = lowered("residual")
    blind = dataclasses.replace(artifact, session_options=UNFUSED)
    found = TARGET.unfused(path, blind)
    assert set(found) == {"one:conv2d#0", "two:conv2d#0", ":add#0", ":mean#0", "head:linear#0"}


def test_a_float_file_has_nothing_to_fuse(lowered):
    *_, artifact, path = lowered("residual", "float32")
    assert TARGET.unfused(path, artifact) == ()


@pytest.mark.parametrize("precision", ["float32", "int8", "int8_dynamic"])
@pytest.mark.parametrize("name", NAMES)
def test_every_layer_has_its_time(lowered, name, precision):
    model, sample, _, artifact, path = lowered(name, precision)
    found = TARGET.layer_seconds(path, artifact, sample, 3)
    layers = {node.key for node in model.graph.nodes if node.op in ("conv2d", "conv1d", "linear")}
    assert layers <= set(found)
    assert set(found) <= set(model.graph.by_key) | {""}
    assert all(0 < found[key] < 1 for key in layers)


def test_times_are_of_the_right_layer(exported):
    """A layer with a thousand times the work takes most of the time."""
    import tempfile
    from pathlib import Path

    from torch import nn

    model = exported(
        nn.Sequential(nn.Linear(8, 512), nn.Linear(512, 4096), nn.Linear(4096, 2)), np.zeros((4, 8), np.float32)
    )
    with tempfile.TemporaryDirectory() as folder:
        artifact = TARGET.lower(model, Encodings.none(), Path(folder))
        x = np.ones((64, 8), np.float32)
        found = TARGET.layer_seconds(Path(folder) / "model.onnx", artifact, (x,), 7)
    assert max(found, key=found.get) == "1:linear#0"
    assert found["1:linear#0"] > 0.5 * sum(found.values())


def test_no_profile_is_left_behind(lowered, tmp_path, monkeypatch):
    *_, sample, _, artifact, path = lowered("residual")
    monkeypatch.chdir(tmp_path)
    before = sorted(path.parent.iterdir())
    TARGET.layer_seconds(path, artifact, sample, 2)
    TARGET.unfused(path, artifact)
    assert list(tmp_path.iterdir()) == []
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("runs", [0, -3])
def test_no_runs_give_no_times(lowered, runs):
    *_, sample, _, artifact, path = lowered("residual")
    with pytest.raises(UsageError, match="at least one run"):
        TARGET.layer_seconds(path, artifact, sample, runs)


def event(name, begin, duration, cat="Node", op="Conv"):
    return {"name": name, "ts": begin, "dur": duration, "cat": cat, "args": {"op_name": op}}


@pytest.fixture(scope="module")
def owners():
    """A convolution with a clamp, a second one, and their sum with another clamp."""
    from onnx import helper

    return Owners(
        [
            helper.make_node("Conv", ["x", "w"], ["a:conv2d#0:out"], "a:conv2d#0"),
            helper.make_node("Clip", ["a:conv2d#0:out"], ["a:relu6#0:out"], "a:relu6#0"),
            helper.make_node("Conv", ["a:relu6#0:out", "v"], ["b:conv2d#0:out"], "b:conv2d#0"),
            helper.make_node("Add", ["b:conv2d#0:out", "a:relu6#0:out"], [":add#0:out"], ":add#0"),
            helper.make_node("MatMul", [":add#0:out", "m"], ["c:linear#0/MatMul/0"], "c:linear#0/MatMul"),
            helper.make_node("Add", ["c:linear#0/MatMul/0", "n"], ["out"], "c:linear#0"),
        ]
    )


@pytest.mark.parametrize(
    ("kernel", "op", "key"),
    [
        ("a:conv2d#0", "Conv", "a:conv2d#0"),
        ("a:conv2d#0_nchwc", "Conv", "a:conv2d#0"),
        ("a:relu6#0:out_nchwc", "Conv", "a:conv2d#0"),
        ("a:relu6#0", "Clip", "a:relu6#0"),
        (":add#0:out_nchwc", "Conv", "b:conv2d#0"),
        (":add#0", "Add", ":add#0"),
        (":add#0", "QLinearAdd", ":add#0"),
        ("c:linear#0/MatMulAddFusion", "Gemm", "c:linear#0"),
        ("ReorderOutput_token_7", "ReorderOutput", ""),
        ("Unknown", "Conv", ""),
        ("out_nchwc", "Gemm", "c:linear#0"),
        ("out_nchwc_token_12", "Gemm", "c:linear#0"),
    ],
)
def test_whose_kernel_it_is(owners, kernel, op, key):
    assert owners.key(kernel, op) == key


def test_events_are_summed_call_by_call(owners):
    events = [
        event("model_run", 100, 50, "Session"),
        event("a:relu6#0:out_nchwc_kernel_time", 105, 10),
        event("a:conv2d#0/Cast_kernel_time", 116, 2, op="Cast"),
        event("a:conv2d#0_fence_before", 104, 40),
        event("ReorderOutput_kernel_time", 120, 5, op="ReorderOutput"),
        event("model_run", 200, 60, "Session"),
        event("fused a:conv2d#0_kernel_time", 205, 30, op="FusedConv"),
        event(":add#0_kernel_time", 240, 4, op="Add"),
        event("a:conv2d#0_kernel_time", 400, 99),
    ]
    rounded = [{key: round(value * 1e6, 3) for key, value in call.items()} for call in by_call(events, owners)]
    assert rounded == [{"a:conv2d#0": 12.0, "": 5.0}, {"a:conv2d#0": 30.0, ":add#0": 4.0}]


def test_no_events_no_calls(owners):
    assert by_call([], owners) == []
    assert by_call([event("model_run", 1, 2, "Session")], owners) == [Counter()]
