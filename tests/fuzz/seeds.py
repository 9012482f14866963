"""Good files to begin from, made here: small, of every kind, each taken by its reader."""

from __future__ import annotations

import importlib.util
import io
import struct
import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "tools" / place) for place in ("formats", "codec")] + [str(TESTS / "deliver")]

from flat_tables import buffer, scalar, vector  # noqa: E402
from pairs import changed, drawn, filed  # noqa: E402


def by_path(place: str):
    """Return a module of the tests by its file."""
    spec = importlib.util.spec_from_file_location(place.replace("/", "_"), TESTS / f"{place}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pair():
    """Return an old and a new file of weights, and where both have them."""
    arrays = drawn()
    return filed(arrays), filed(changed(arrays))


def tflite() -> bytes:
    scales = {0: vector("f", [-1.0]), 1: vector("f", [1.0]), 2: vector("f", [0.5, 0.25]), 3: vector("q", [3, -4])}
    weights = {0: vector("i", [2, 2]), 1: scalar("b", 9), 2: scalar("I", 1), 3: "w", 4: scales}
    biases = {0: vector("i", [2]), 1: scalar("b", 2), 2: scalar("I", 2), 3: "b"}
    held = [{}, {0: b"abcd"}, {0: bytes(8)}, {1: scalar("Q", 40), 2: scalar("Q", 6)}]
    return buffer({0: scalar("I", 3), 2: [{0: [weights, biases]}], 4: held}, b"TFL3")


def pte() -> bytes:
    """Return a program with constants inside and an inline graph of XNNPACK with scales."""
    quantized = {0: {0: scalar("h", 6), 2: vector("I", [2, 4]), 3: scalar("I", 1)}, 1: scalar("B", 1)}
    quantized[2] = {0: vector("f", [0.5, 0.25]), 2: scalar("I", 0)}
    plain = {0: scalar("h", 1), 2: vector("I", [2]), 3: scalar("I", 2)}
    values = [{0: scalar("B", 2), 1: quantized}, {0: scalar("B", 1), 1: plain}]
    entries = [{}, {0: scalar("Q", 0), 1: scalar("Q", 8)}, {0: scalar("Q", 8), 1: scalar("Q", 8)}]
    graph = buffer({2: values, 8: entries}, b"XN01")
    at, constants = 32, 32 + len(graph)
    blob = struct.pack("<4s4sHIIII", bytes(4), b"XH00", 30, at, len(graph), constants, 16).ljust(at, b"\0")
    blob += graph + bytes(range(16))
    tensor = {0: scalar("b", 6), 2: vector("i", [2]), 4: scalar("I", 1)}
    delegate = {0: "XnnpackBackend", 1: {0: scalar("b", 0), 1: scalar("I", 0)}}
    plan = {0: "forward", 2: [{0: scalar("B", 5), 1: tensor}], 7: [delegate]}
    constants = [{0: b""}, {0: struct.pack("<2f", 1, 2)}]
    return buffer({1: [plan], 2: constants, 3: [{0: blob}]}, b"ET12")


def gguf() -> bytes:
    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    pairs = [
        text(b"general.alignment") + struct.pack("<II", 4, 32),
        text(b"name") + struct.pack("<I", 8) + text(b"small"),
        text(b"words") + struct.pack("<IIQ", 9, 8, 2) + text(b"one") + text(b"two"),
        text(b"lists") + struct.pack("<IIQIQ2B", 9, 9, 1, 7, 2, 0, 1),
    ]
    tensors = [text(b"floats") + struct.pack("<I2QIQ", 2, 3, 2, 0, 0)]
    tensors.append(text(b"blocks") + struct.pack("<I2QIQ", 2, 32, 2, 8, 32))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs + tensors)
    return head + bytes(-len(head) % 32) + bytes(32) + bytes(range(68))


def onnx() -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    inner = helper.make_graph([], "inner", [], [], [helper.make_tensor("deep", TensorProto.FLOAT, [2], [1.5, -2.0])])
    far = TensorProto(name="far", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    far.external_data.add(key="location", value="m.data")
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Constant", [], ["k"], value=TensorProto(data_type=1, dims=[1], raw_data=b"abcd")),
    ]
    weights = numpy_helper.from_array(np.arange(6, dtype=np.int8).reshape(2, 3), "w")
    graph = helper.make_graph(nodes, "g", [], [], [weights, far])
    return bytes(helper.make_model(graph).SerializeToString())


def safetensors() -> bytes:
    from safetensors.numpy import save

    return save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.int8([1, 2])}, {"of": "a test"})


def golden() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{"0|input|x": np.ones((1, 4), np.float32), "0|output|y": np.int64([3, 4])})
    return stream.getvalue()
