"""Linear layers in float with integer weights: 8 and 4 bits, rows of odd length, inputs quantized at run time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.encodings import Dynamic, Encodings
from haversack.base.errors import ConversionError
from haversack.targets.executorch import ExecuTorch, parse
from haversack.targets.executorch.integers import _packed
from haversack.targets.executorch.parse import QCINT4, Delegate, Value
from haversack.targets.reference import Reference
from haversack.tools.numerics import affine

TARGET = ExecuTorch()
SIZES = ((24, 7), (25, 7), (1, 3), (2, 1), (63, 32), (130, 5))
"""(inputs, outputs): odd rows are padded in 4 bits."""


@pytest.fixture(scope="module")
def model(exported):
    import torch
    from torch import nn

    torch.manual_seed(4)

    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.with_bias = nn.ModuleList([nn.Linear(*size) for size in SIZES])
            self.without = nn.ModuleList([nn.Linear(*size, bias=False) for size in SIZES])
            self.last = nn.Linear(7, 4)

        def forward(self, x):
            found = [layer(x[:, : size[0]]) for size, layer in zip(SIZES, self.with_bias, strict=True)]
            found += [layer(x[:, : size[0]]) for size, layer in zip(SIZES, self.without, strict=True)]
            return (*found, self.last(torch.relu(found[0])))

    return exported(Rows(), np.zeros((3, 130), np.float32))


def taken(encodings, bits):
    """Return encodings without inputs that are refused: quantized at run time, rows of odd length, 4 bits."""
    odd = [key.removesuffix(":weight") + ":in" for key, codes in encodings.integers.items() if codes.shape[1] % 2 == 1]
    tensors = {key: one for key, one in encodings.tensors.items() if bits != 4 or key not in odd}
    return Encodings(tensors, encodings.integers)


@pytest.fixture(scope="module")
def results(model, stored_weights, tmp_path_factory):
    """bits, dynamic -> (path, encodings, what the file gives, what the reference gives, input)."""
    made = {}

    def make(bits, dynamic=False):
        if (bits, dynamic) not in made:
            folder = tmp_path_factory.mktemp(f"{bits}-{dynamic}")
            encodings = taken(stored_weights(model, bits=bits, dynamic=dynamic), bits)
            artifact = TARGET.lower(model, encodings, folder)
            assert TARGET.read(folder / "model.pte", artifact).digest == encodings.digest
            x = np.random.default_rng(9).normal(size=(3, 130)).astype(np.float32)
            found = TARGET.open_session(folder / "model.pte").run({model.inputs[0].name: x})
            made[bits, dynamic] = (
                folder / "model.pte",
                encodings,
                [found[port.name] for port in model.outputs],
                Reference().run(model, encodings, (x,)),
                x,
            )
        return made[bits, dynamic]

    return make


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_alone_cost_no_more_than_rounding(results, bits):
    _, _, found, wanted, _ = results(bits)
    assert len(found) == 2 * len(SIZES) + 1
    for one, other in zip(found, wanted, strict=True):
        assert float(np.abs(one - other).max()) <= 2e-5


@pytest.mark.parametrize("bits", [8, 4])
def test_an_input_quantized_at_run_time_is_off_by_half_a_step_at_most(model, results, bits):
    """Each row has a grid of 256 codes over its own range; the absolute sum of the weights bounds the error."""
    _, encodings, found, _, x = results(bits, True)
    nodes = [node for node in model.graph.nodes if node.op == "linear"][: 2 * len(SIZES)]
    for node, one, size in zip(nodes, found, SIZES * 2, strict=False):
        part = x[:, : size[0]]
        key = f"{node.key}:weight"
        weight = affine.dequantize(encodings.integers[key], encodings.affine(key))
        exact = part @ weight.T + (model.weights[node.bias] if node.bias else 0)
        step = (np.maximum(part.max(1), 0) - np.minimum(part.min(1), 0)) / 255
        bound = step[:, None] * np.abs(weight).sum(1)[None] + 1e-5
        assert (np.abs(one - exact) <= bound).all(), node.key


@pytest.mark.parametrize(("bits", "datatype"), [(8, parse.QCINT8), (4, parse.QCINT4)])
def test_the_file_has_the_datatypes_that_were_asked_for(results, bits, datatype):
    for dynamic in (False, True):
        (delegate,) = parse.parse(results(bits, dynamic)[0]).delegates
        steps = [step for step in delegate.steps if step.kind == "FullyConnected"]
        assert len(steps) == 2 * len(SIZES) + 1
        assert {delegate.values[step.filter].datatype for step in steps} == {datatype}
        wanted = {parse.QDINT8} if dynamic else {parse.FLOAT32}
        wanted |= {parse.FLOAT32} if bits == 4 else set()  # rows of odd length
        assert {delegate.values[step.inputs[0]].datatype for step in steps} == wanted


def test_four_bits_take_half_of_the_room(results):
    sizes = [results(bits)[0].stat().st_size for bits in (8, 4)]
    weights = 2 * sum(inputs * outputs for inputs, outputs in SIZES) + 28
    assert 0.4 * weights < sizes[0] - sizes[1] < 0.55 * weights


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_four_bits_are_packed_and_found_again(rows, columns, seed):
    integers = np.random.default_rng(seed).integers(-8, 8, (rows, columns)).astype(np.int32)
    packed = _packed(integers)
    assert packed.shape == (rows, -(-columns // 2))
    delegate = Delegate((), (), (memoryview(b""), memoryview(packed.tobytes())))
    np.testing.assert_array_equal(delegate.integers(Value(QCINT4, (rows, columns), 1)), integers)


def test_dynamic_needs_a_scale_for_each_row(model, stored_weights, tmp_path):
    encodings = stored_weights(model)
    key = "last:linear#0"
    whole = affine.symmetric(np.array(0.01, np.float32), 8, None)
    tensors = {f"{key}:weight": whole, f"{key}:in": Dynamic()}
    wrong = Encodings(tensors, {f"{key}:weight": encodings.integers[f"{key}:weight"]})
    with pytest.raises(ConversionError) as caught:
        TARGET.lower(model, wrong, tmp_path)
    assert [(fault.where, "a scale for each row" in fault.cause) for fault in caught.value.faults] == [
        (f"{key}:in", True)
    ]


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_dynamic_inputs_have_eight_bits(model, stored_weights, bits, tmp_path):
    encodings = stored_weights(model, dynamic=True)
    if bits != 8:
        wrong = Encodings({**encodings.tensors, "last:linear#0:in": Dynamic(bits)}, encodings.integers)
        with pytest.raises(ConversionError) as caught:
            TARGET.lower(model, wrong, tmp_path)
        assert [fault.where for fault in caught.value.faults] == ["last:linear#0:in"]
        assert "to 8 bits" in caught.value.faults[0].cause


@pytest.mark.parametrize("bits", [2, 3, 5, 16])
def test_weights_of_other_sizes_are_refused_by_key(model, stored_weights, bits, tmp_path):
    encodings = stored_weights(model, bits=bits)
    with pytest.raises(ConversionError) as caught:
        TARGET.lower(model, encodings, tmp_path)
    assert {fault.where for fault in caught.value.faults} == set(encodings.integers)
    assert {fault.cause for fault in caught.value.faults} == {"a weight is held as symmetric int8 or int4"}
