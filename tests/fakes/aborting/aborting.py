"""A target that dies where the environment says so, on files with quantized activations: ONNX Runtime otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass

from haversack.targets.onnxruntime import OnnxRuntime


def dies(place, path):
    """Abort this process if it is the place and the file is no float file."""
    if os.environ.get("ABORTS_IN") == place and b"\x0eQuantizeLinear" in path.read_bytes():
        os.abort()


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

    def _open(self, path, options, threads):
        dies("open", path)
        session = super()._open(path, options, threads)
        return Off(session) if os.environ.get("ABORTS_IN") == "tensors" else session

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
