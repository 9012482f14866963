"""Artefacts to measure: a NumPy target that obeys its file, and a small real ONNX file in its real runtime."""

from __future__ import annotations

import json
import textwrap

import numpy as np
import pytest

from haversack.measure.local import LocalDevice
from haversack.tools.worker.process import Limits

OPENERS = '''
"""Two targets: one that does what its JSON file says, and ONNX Runtime."""
import ctypes, json, os, signal, sys, time
import numpy as np

class Recorded:
    def __init__(self, path, options, threads):
        self.plan = json.loads(path.read_text())
        self.ballast = np.ones(self.plan.get("megabytes", 0) << 17)
        self.calls = 0
        self.told = {"threads": threads, **{k: float(v) for k, v in options.items()}}
        if self.plan.get("load_crash"):
            os.abort()
        time.sleep(self.plan.get("load_seconds", 0))

    def run(self, inputs):
        self.calls += 1
        if self.plan.get("crash") or self.plan.get("crash_at") == self.calls:
            os.abort()
        if self.plan.get("leave_at") == self.calls:
            os._exit(7)
        if self.plan.get("kill_at") == self.calls:  # as the kernel does when memory runs out
            os.kill(os.getpid(), signal.SIGKILL)
        if self.plan.get("hang_at") == self.calls:
            time.sleep(1000)
        if self.plan.get("rubbish_at") == self.calls:
            os.write(int(sys.argv[3]), b"not a frame at all")
        time.sleep(1000 if self.plan.get("hang") else self.plan.get("rest_seconds", 0))
        seconds = self.plan.get("seconds", 0) + (self.plan.get("first_seconds", 0) if self.calls == 1 else 0)
        wall, cpu = time.perf_counter() + seconds, time.process_time() + seconds
        while time.perf_counter() < wall or time.process_time() < cpu:
            pass
        if "log" in self.plan:
            with open(self.plan["log"], "a") as log:
                log.write(self.plan["name"])
        x = next(iter(inputs.values()))
        return {"y": x * self.plan.get("factor", 1), "calls": np.array([self.calls]),
                **{k: np.array(v) for k, v in self.told.items()}}

    def close(self):
        if "log" in self.plan:
            with open(self.plan["log"], "a") as log:
                log.write("closed")

class Planned:
    """Opens what the tests plan."""

    runtime = "decimal"

    def open_session(self, path, options, threads):
        return Recorded(path, options, threads)

class Real:
    """ONNX Runtime on one small model."""

    runtime = "onnxruntime"

    def open_session(self, path, options, threads):
        import onnxruntime
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        for key, value in options.items():
            settings.add_session_config_entry(key, value)
        return Bound(onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"]))

class Bound:
    def __init__(self, session):
        self.session = session
        self.names = [output.name for output in session.get_outputs()]

    def run(self, inputs):
        return dict(zip(self.names, self.session.run(self.names, dict(inputs))))

    def close(self):
        self.session = None

planned = Planned()
real = Real()
'''


@pytest.fixture(scope="session")
def openers_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openers")
    (folder / "openers.py").write_text(textwrap.dedent(OPENERS))
    return folder


@pytest.fixture
def new_device(openers_folder):
    devices = []

    def make(**limits):
        limits = Limits(**{"call_seconds": 60.0, "start_seconds": 60.0, **limits})
        devices.append(LocalDevice(folders=[openers_folder], limits=limits))
        return devices[-1]

    yield make
    for device in devices:
        device.close()


@pytest.fixture(scope="module")
def local_device(openers_folder):
    with LocalDevice(folders=[openers_folder]) as device:
        yield device


@pytest.fixture
def planned_file(tmp_path):
    """A function that writes what a session of the planned target does."""

    def write(name="plan", **plan):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({"name": name, **plan}))
        return path

    return write


def _onnx_bytes(size, layers, hidden):
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    nodes, weights, name, width = [], [], "x", size
    for layer in range(layers):
        weight = (draw.standard_normal((width, hidden)) / np.sqrt(width)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes += [
            helper.make_node("MatMul", [name, f"w{layer}"], [f"m{layer}"]),
            helper.make_node("Relu", [f"m{layer}"], [f"r{layer}"]),
        ]
        name, width = f"r{layer}", hidden
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", hidden])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    oracle = [numpy_helper.to_array(weight) for weight in weights]
    return model.SerializeToString(), oracle


@pytest.fixture
def onnx_file(tmp_path):
    """A function that writes a chain of matrix products and ReLUs, and returns the file and the same in NumPy."""

    def write(name="small", *, size=16, layers=2, hidden=32):
        data, weights = _onnx_bytes(size, layers, hidden)
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)

        def oracle(x):
            for weight in weights:
                x = np.maximum(x @ weight, 0)
            return x

        return path, oracle

    return write
