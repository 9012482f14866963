"""The sheet that ONNX files are written on, evaluated by the standard's own evaluator at every step of an edit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError
from haversack.tools.graph.onnx.held import held
from haversack.tools.graph.onnx.sheet import Sheet
from haversack.tools.graph.onnx.skeleton import PARAMETER, skeleton

FIRST, LAST = "one:conv2d#0", "head:linear#0"


class Net(nn.Module):
    """A pad that the layer does itself, a sum, a mean, and a dropout that leaves the graph."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(9)
        self.one, self.two = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 1, bias=False)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.tanh(self.one(functional.pad(x, (1, 1, 1, 1))))
        x = functional.dropout(x + self.two(x), 0.5, training=self.training)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    from haversack.tools.graph.canonical import to_model

    free = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(Net().eval(), (torch.zeros(2, 3, 5, 7),), dynamic_shapes=free)
    return to_model(program, "net", input_names=("x",), output_names=("y",))


@pytest.fixture
def x():
    return np.random.default_rng(4).normal(size=(2, 3, 5, 7)).astype(np.float32)


def evaluated(data, x, *names):
    """Return what ONNX's evaluator makes of a file: its output, or tensors by name."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    file = onnx.ModelProto.FromString(data)
    onnx.checker.check_model(file, full_check=True)
    for name in names:
        file.graph.output.append(onnx.helper.make_value_info(name, onnx.TypeProto()))
    found = ReferenceEvaluator(file).run(None, {"x": x})
    return found[-len(names) :] if names else found[0]


def pytorchs(network, x, weights=None):
    """Return node key -> what PyTorch computes."""
    from haversack.tools.graph.execute import Executor

    seen = {}
    Executor(network, weights).run((x,), observe=lambda node, value: seen.update({node.key: value.numpy().copy()}))
    return seen


def test_an_unedited_sheet_computes_what_pytorch_does_at_every_key(network, x):
    frame = skeleton(network)
    sheet, wanted = Sheet(frame, network), pytorchs(network, x)
    keys = [key for key in frame.names if key not in network.graph.inputs and key not in network.graph.outputs]
    data = sheet.finish(network.weights)
    assert FIRST in keys
    for key, found in zip(keys, evaluated(data, x, *(frame.names[key] for key in keys)), strict=True):
        np.testing.assert_allclose(found, wanted[key], rtol=1e-5, atol=1e-6, err_msg=key)
    np.testing.assert_allclose(evaluated(data, x), wanted[LAST], rtol=1e-5, atol=1e-6)


def test_other_weights_make_another_file_of_the_same_frame(network, x):
    frame = skeleton(network)
    other = {name: value * np.float32(1.5) for name, value in network.weights.items()}
    one, two = (Sheet(frame, network).finish(weights) for weights in (network.weights, other))
    np.testing.assert_allclose(evaluated(two, x), pytorchs(network, x, other)[LAST], rtol=1e-5, atol=1e-6)
    assert evaluated(one, x).tobytes() != evaluated(two, x).tobytes()
    assert one == Sheet(frame, network).finish(network.weights), "and the same weights the same bytes"


def test_what_is_put_between_two_nodes_is_read_by_all_but_the_named_ones(network, x):
    sheet = Sheet(skeleton(network), network)
    old = sheet.floats[FIRST]
    half = sheet.constant("half", np.array(0.5, np.float32))
    new = sheet.node("Mul", [old, half], f"{FIRST}/Mul", f"{FIRST}:out/value")
    sheet.replace(old, new, but={f"{FIRST}/Mul"})
    wanted = pytorchs(
        network, x, {"one.weight": network.weights["one.weight"] / 2, "one.bias": network.weights["one.bias"] / 2}
    )
    np.testing.assert_allclose(evaluated(sheet.finish(network.weights), x), wanted[LAST], rtol=1e-5, atol=1e-6)


def test_an_output_that_is_replaced_keeps_its_name(network, x):
    import onnx

    sheet = Sheet(skeleton(network), network)
    new = sheet.node("Neg", [sheet.floats[LAST]], "minus")
    sheet.replace(sheet.floats[LAST], new, but={"minus"})
    data = sheet.finish(network.weights)
    assert [one.name for one in onnx.ModelProto.FromString(data).graph.output] == ["y"]
    np.testing.assert_allclose(evaluated(data, x), -pytorchs(network, x)[LAST], rtol=1e-5, atol=1e-6)


def test_what_nobody_reads_is_not_in_the_file(network):
    import onnx

    sheet = Sheet(skeleton(network), network)
    sheet.constant("unread", np.zeros(1000, np.float32))
    sheet.node("Neg", [sheet.floats[FIRST]], "idle")
    (reader,) = [node for node in sheet.nodes[FIRST] if node.op_type == "Conv"]
    reader.replace_input_with(1, sheet.constant("other", np.zeros((5, 3, 3, 3), np.float32)))
    graph = onnx.ModelProto.FromString(sheet.finish(network.weights)).graph
    assert {"unread", "one.weight"}.isdisjoint(one.name for one in graph.initializer)
    assert "other" in {one.name for one in graph.initializer}
    assert "idle" not in {node.name for node in graph.node}
    assert [one.name for one in graph.input] == ["x"], "parameters are no inputs any more"
    assert not any(one.name.startswith(PARAMETER) for one in graph.initializer)


@pytest.mark.parametrize("bits, opset", [(8, None), (4, 21)])
def test_integers_of_a_weight_are_held_in_as_many_bits_and_read_as_int8(network, x, bits, opset):
    import onnx

    sheet = Sheet(skeleton(network), network)
    before = sheet.opset
    codes = np.random.default_rng(bits).integers(-(1 << bits - 1) + 1, 1 << bits - 1, (5, 3, 3, 3))
    value = sheet.integers(f"{FIRST}:weight", codes, bits)
    weight = sheet.node("Cast", [value], "widened", to=onnx.TensorProto.FLOAT)
    (reader,) = [node for node in sheet.nodes[FIRST] if node.op_type == "Conv"]
    reader.replace_input_with(1, weight)
    data = sheet.finish(network.weights)
    file = onnx.ModelProto.FromString(data)
    (stored,) = [one for one in file.graph.initializer if one.name == f"{FIRST}:weight/codes"]
    assert stored.data_type == (onnx.TensorProto.INT4 if bits == 4 else onnx.TensorProto.INT8)
    assert len(stored.raw_data) == -(-codes.size * bits // 8)
    assert file.opset_import[0].version == (before if opset is None else max(before, opset))
    wanted = pytorchs(network, x, {"one.weight": codes.astype(np.float32)})
    np.testing.assert_allclose(evaluated(data, x), wanted[LAST], rtol=1e-4, atol=1e-4)


def test_an_operator_that_is_not_there_once_is_told_with_what_is(network):
    sheet = Sheet(skeleton(network), network)
    assert sheet.only(FIRST, "Conv").name == FIRST
    for key, op, seen in ((FIRST, "Gemm", "exported as Conv"), ("gone:add#0", "Add", "exported as nothing")):
        with pytest.raises(ConversionError, match=seen) as caught:
            sheet.only(key, op)
        assert caught.value.where == key


def grid(scale):
    return Affine(8, False, None, np.array(scale, np.float32), np.array(9, np.int32))


def test_a_tensor_that_left_the_file_has_its_sources_encoding_or_a_fault(network):
    """The pad is the convolution's, the dropout is nobody's: what is asked of them must be what their sources have."""
    frame = skeleton(network)
    pad, drop, total = ":pad#0:out", ":dropout#0:out", ":add#0:out"
    gone = [node.out for node in network.graph.nodes if node.key not in frame.names]
    assert {pad, drop} <= set(gone)
    same = held(frame, network, Encodings({"x:input#0:out": grid(0.5), pad: grid(0.5)}))
    assert (dict(same.absorbed), same.faults) == ({pad: "x:input#0"}, ())
    assert set(same.encodings) == {"x:input#0"}
    (fault,) = held(frame, network, Encodings({"x:input#0:out": grid(0.5), pad: grid(0.25)})).faults
    assert (fault.where, "one tensor with x:input#0:out" in fault.cause) == (pad, True)
    moved = held(frame, network, Encodings({drop: grid(0.5)}))
    assert (dict(moved.absorbed), moved.faults) == ({drop: ":add#0"}, ())
    assert float(moved.encodings[":add#0"].scale) == 0.5, "nobody else reads the sum: it has what was asked of the drop"
    plain = held(frame, network, Encodings({total: grid(0.5)}))
    assert (set(plain.encodings), dict(plain.absorbed), plain.faults) == ({":add#0"}, {}, ())
