"""Sessions, row by row: what is refused and why, batches, threads, closing; int8 at the interface, in and out."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import UsageError
from haversack.targets.litert import LiteRT
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_model
from haversack.tools.numerics import affine


def noise(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def layered(exported, encoded):
    """(model, encodings in int8) of two linear layers over any number of rows."""
    import torch
    from torch import nn

    torch.manual_seed(6)
    x = noise(3, 5, 6)
    model = exported(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)), x, free=(0, 1), names=("x",))
    return model, encoded(model, [(x,)])


@pytest.fixture(scope="module")
def opened(layered, tmp_path_factory):
    """integer_io -> number of threads -> an open session; None opens the float file."""

    def folder(encodings, *, integer_io):
        path = tmp_path_factory.mktemp("rows")
        target = LiteRT(lengths=(4, 8), integer_io=integer_io)
        target.lower(layered[0], encodings, path)
        return lambda threads=1: target.open_session(path / "model.tflite", threads=threads)

    model_encodings = {None: Encodings.none(), False: layered[1], True: layered[1]}
    return {kind: folder(found, integer_io=bool(kind)) for kind, found in model_encodings.items()}


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"X": noise(1, 4, 6)},
        {"x": noise(1, 4, 6), "more": noise(1)},
        {"x": noise(4, 6)},
        {"x": noise(1, 1, 4, 6)},
        {"x": noise(0, 4, 6)},
        {"x": noise(1, 4, 5)},
        {"x": noise(1, 4, 7)},
        {"x": noise(1, 9, 6)},
        {"x": noise(1, 4, 6).astype(np.float16)},
        {"x": noise(1, 4, 6).astype(np.int8)},
        {"x": np.float32(1)},
    ],
)
def test_what_does_not_fit_is_told_with_what_would(opened, inputs):
    session = opened[None]()
    with pytest.raises(UsageError, match="do not fit") as caught:
        session.run(inputs)
    assert caught.value.next_step == "give x [1, up to 8, 6] float32"
    for name in inputs:
        assert name in caught.value.cause
    with pytest.raises(UsageError, match="do not fit"):
        session.signature(inputs)
    assert session.run({"x": noise(1, 4, 6)})["output"].shape == (1, 4, 3), "it goes on afterwards"


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 4, 6])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_lengths_and_threads(layered, opened, rows, length, threads):
    x = noise(rows, length, 6)
    (wanted,) = Reference().run(layered[0], layered[1], (x,))
    found = opened[False](threads).run({"x": x})["output"]
    assert found.tobytes() == wanted.tobytes()


def test_a_place_without_length_is_filled_and_cut(opened):
    """No place at all is a length like another: nothing goes in and nothing comes out."""
    assert opened[None]().run({"x": noise(2, 0, 6)})["output"].shape == (2, 0, 3)


def test_closing_twice_is_closing_once(opened):
    session, other = opened[None](), opened[None]()
    session.close()
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session.run({"x": noise(1, 4, 6)})
    assert other.run({"x": noise(1, 4, 6)})["output"].shape == (1, 4, 3)


def test_a_closed_session_has_no_signature(opened):
    session = opened[None]()
    session.close()
    with pytest.raises(UsageError):
        session.signature({"x": noise(1, 4, 6)})


@pytest.mark.parametrize("length", [4, 6, 8])
def test_codes_in_and_codes_out_are_the_references(layered, opened, length):
    model, encodings = layered
    source, out = (encodings.affine(f"{keys[0]}:out") for keys in (model.graph.inputs, model.graph.outputs))
    x = noise(2, length, 6) * 3
    codes = (affine.quantize(x, source) - 128).astype(np.int8)
    found = opened[True]().run({"x": codes})["output"]
    (wanted,) = Reference().run(model, encodings, (x,))
    assert (found.dtype, found.shape) == (np.int8, wanted.shape)
    np.testing.assert_array_equal(affine.dequantize(found.astype(np.int32) + 128, out), wanted)


def test_codes_of_both_ends_are_taken(layered, opened):
    model, encodings = layered
    source = encodings.affine(f"{model.graph.inputs[0]}:out")
    codes = np.where(noise(1, 4, 6) > 0, 127, -128).astype(np.int8)
    x = affine.dequantize(codes.astype(np.int32) + 128, source)
    (wanted,) = Reference().run(model, encodings, (x,))
    assert opened[False]().run({"x": x})["output"].tobytes() == wanted.tobytes()
    found = opened[True]().run({"x": codes})["output"].astype(np.int32) + 128
    out = encodings.affine(f"{model.graph.outputs[0]}:out")
    np.testing.assert_array_equal(affine.dequantize(found, out), wanted)


def test_a_file_of_codes_takes_no_floats(opened):
    with pytest.raises(UsageError, match="do not fit") as caught:
        opened[True]().run({"x": noise(1, 4, 6)})
    assert "int8" in caught.value.next_step


@pytest.mark.parametrize("length", [3, 6, 8])
def test_codes_are_filled_up_with_the_code_of_zero(exported, encoded, tmp_path, length):
    """A padded convolution reads zeros behind the end, whatever their code is."""
    from torch import nn

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(6, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(x.transpose(1, 2))

    x = noise(3, 5, 6) + 1
    model = exported(Line(), x, free=(0, 1), names=("x",))
    encodings = encoded(model, [(x,)])
    source, out = (encodings.affine(f"{keys[0]}:out") for keys in (model.graph.inputs, model.graph.outputs))
    target = LiteRT(lengths=(4, 8), integer_io=True)
    artifact = target.lower(model, encodings, tmp_path)
    x = noise(2, length, 6) + 1
    (wanted,) = Reference().run(model, encodings, (x,))
    codes = (affine.quantize(x, source) - 128).astype(np.int8)
    found = target.open_session(tmp_path / "model.tflite").run({"x": codes})["output"].astype(np.int32) + 128
    found = to_model(found, artifact.layouts.get("output", ""))
    np.testing.assert_array_equal(affine.dequantize(found, out), wanted)
