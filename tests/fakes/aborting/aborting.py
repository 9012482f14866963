"""A target that dies where the environment says so, on files with quantized activations: ONNX Runtime otherwise."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from haversack.targets.onnxruntime import OnnxRuntime


def dies(place, path):
    """Abort this process if it is the place and the file is no float file."""
    if os.environ.get("ABORTS_IN") == place and quantized(path):
        os.abort()


def quantized(path):
    """Say whether a file has quantized activations."""
    return b"\x0eQuantizeLinear" in path.read_bytes()


class Deadly:
    """A session of a float file whose first call is the process's last, or never ends, or is refused."""

    def __init__(self, session, how):
        self.inputs, self.outputs, self.how = session.inputs, session.outputs, how

    def run(self, inputs):
        if self.how == "float run":
            os.abort()
        while self.how == "float hang":
            time.sleep(0.1)
        raise RuntimeError("Failed to execute method forward, error: 0x12")

    def close(self):
        pass


class Hunted:
    """A session that somebody kills from outside in a call, for each file that lies in a folder."""

    def __init__(self, session, folder):
        self.session, self.inputs, self.outputs, self.folder = session, session.inputs, session.outputs, folder

    def run(self, inputs):
        for doom in self.folder.glob("doom.*"):
            doom.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.session.run(inputs)

    def close(self):
        self.session.close()


class Off:
    """A session whose outputs are off by one hundredth."""

    def __init__(self, session):
        self.session, self.inputs, self.outputs = session, session.inputs, session.outputs

    def run(self, inputs):
        return {name: array * 1.01 for name, array in self.session.run(inputs).items()}

    def close(self):
        self.session.close()


@dataclass(frozen=True)
class Aborting(OnnxRuntime):
    """Dies where it is told to."""

    runtime = "onnxruntime"

    def _lower(self, model, encodings, folder):
        return replace(super()._lower(model, encodings, folder), target="aborting")

    def _open(self, path, options, threads):
        dies("open", path)
        how = os.environ.get("ABORTS_IN", "")
        if how == "float open":
            os.abort()
        session = super()._open(path, options, threads)
        if how.startswith("float"):
            return Deadly(session, how)
        if how.startswith("hunted in ") and quantized(path):
            return Hunted(session, Path(how.removeprefix("hunted in ")))
        return Off(session) if how == "tensors" and quantized(path) else session

    def _tensors(self, path, artifact, inputs, keys):
        dies("tensors", path)
        return super()._tensors(path, artifact, inputs, keys)

    def _layer_seconds(self, path, artifact, inputs, runs):
        dies("layer_seconds", path)
        return super()._layer_seconds(path, artifact, inputs, runs)

    def _unfused(self, path, artifact):
        dies("unfused", path)
        found = super()._unfused(path, artifact)
        return ("0:conv2d#0",) if os.environ.get("ABORTS_IN") == "layer_seconds" else found
