"""Weights in groups in an ONNX file: attributes and constants of MatMulNBits that are not as we write them are told."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine, BlockAffine, Dynamic, Encodings
from haversack.base.errors import VerificationError
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.tools.numerics import blocks

KEY = "layer:linear#0:weight"
TARGET = OnnxRuntime()


@pytest.fixture
def made(exported, tmp_path):
    """Return (artifact, path)."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(64, 6)

        def forward(self, x):
            return self.layer(x)

    model = exported(Net(), np.zeros((2, 64), np.float32))
    weight = model.weights["layer.weight"]
    peaks = np.abs(weight.reshape(6, 2, 32)).max(2)
    encoding = BlockAffine(32, 4, blocks.rounded(peaks / np.float32(7)))
    meant = Encodings({KEY: encoding, "layer:linear#0:in": Dynamic()}, {KEY: blocks.quantize(weight, encoding)})
    return TARGET.lower(model, meant, tmp_path), tmp_path / "model.onnx"


def changed(made, change):
    import onnx

    artifact, path = made
    proto = onnx.load(path)
    (node,) = [one for one in proto.graph.node if one.op_type == "MatMulNBits"]
    change(proto.graph, node)
    path.write_bytes(proto.SerializeToString())
    return TARGET.read(path, artifact)


def attribute(name, value):
    def change(_, node):
        (found,) = [one for one in node.attribute if one.name == name]
        found.i = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        attribute("K", 32),
        attribute("K", 65),
        attribute("N", 5),
        attribute("bits", 8),
        attribute("block_size", 16),
        attribute("block_size", 0),
        attribute("accuracy_level", 0),
        lambda _, node: node.attribute.pop(),
        lambda _, node: setattr(node, "domain", "elsewhere"),
        lambda _, node: node.input.append(node.input[2]),
        lambda graph, node: node.input.__setitem__(2, graph.input[0].name),
    ],
)
def test_what_is_not_as_we_write_it_is_told_by_key(made, change):
    with pytest.raises(VerificationError) as caught:
        changed(made, change)
    assert KEY in {fault.where for fault in caught.value.faults}


def test_it_is_written_out_and_not_left_to_a_fusion(made):
    import onnx

    artifact, path = made
    graph = onnx.load(path).graph
    assert [node.op_type for node in graph.node] == ["Cast", "MatMulNBits", "Add"]
    assert artifact.session_options == {}
    assert TARGET.findings(path, artifact) == ()
    assert not [one for one in TARGET.read(path, artifact).tensors.values() if isinstance(one, Affine)]
