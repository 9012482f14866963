"""Palettes in ONNX files: what is stored, what is read back, and that the look-up is folded into float kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from haversack.base.encodings import Codebook, Encodings
from haversack.base.errors import VerificationError
from haversack.base.plan import Plan, Step
from haversack.compress.encode import encode
from haversack.compress.plans import uniform
from haversack.targets.onnxruntime import OnnxRuntime
from haversack.targets.onnxruntime.session import options, start
from haversack.targets.reference import Reference

TARGET = OnnxRuntime()
NAMES = ("residual", "depthwise", "branches", "sequence", "words")


def palettes(model, bits=4, part="kmeans", **settings):
    """Return encodings in which every layer and table has a palette."""
    layers = uniform(model.graph, "palette", weights=Step(part, {"bits": bits, **settings}))
    return encode(model, Plan("onnxruntime", layers), {}, TARGET.constraints(model.graph))[0]


def operators(artifact, folder):
    """Return the operators that ONNX Runtime leaves after its own optimisation."""
    chosen = options(artifact.session_options, 1)
    chosen.optimized_model_filepath = str(folder / "optimised.onnx")
    start(str(folder / "model.onnx"), chosen, "")
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def ran(artifact, folder, model, sample):
    session = TARGET.open_session(folder / "model.onnx", artifact.session_options)
    found = session.run({port.name: array for port, array in zip(model.inputs, sample, strict=True)})
    return found[model.outputs[0].name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_all_widths_read_back_and_compute_what_the_reference_does(zoo, tmp_path, name, bits):
    model, sample = zoo[name]
    encodings = palettes(model, bits)
    artifact = TARGET.lower(model, encodings, tmp_path)
    assert artifact.injected == artifact.read_back == sum(a.size + 1 for a in encodings.integers.values())
    assert TARGET.read(tmp_path / "model.onnx", artifact).digest == encodings.digest
    wanted = Reference().run(model, encodings, sample)[0]
    np.testing.assert_allclose(ran(artifact, tmp_path, model, sample), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("bits", "group"), [(4, 1), (4, 2), (6, 1), (3, 1)])
@pytest.mark.parametrize("part", ["kmeans", "log"])
def test_groups_of_channels_have_their_own(zoo, tmp_path, part, bits, group):
    model, sample = zoo["branches"] if group == 1 else zoo["depthwise"]
    encodings = palettes(model, bits, part, group=group)
    books = [book for book in encodings.tensors.values() if isinstance(book, Codebook)]
    assert books
    assert all(book.group == group for book in books)
    artifact = TARGET.lower(model, encodings, tmp_path)
    assert TARGET.read(tmp_path / "model.onnx", artifact).digest == encodings.digest
    wanted = Reference().run(model, encodings, sample)[0]
    np.testing.assert_allclose(ran(artifact, tmp_path, model, sample), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("name", "bits", "group"), [("depthwise", 4, 0), ("depthwise", 6, 2), ("residual", 6, 0)])
def test_the_look_up_is_folded_when_the_file_is_opened(zoo, tmp_path, name, bits, group):
    model, _ = zoo[name]
    plain = TARGET.lower(model, Encodings.none(), tmp_path / "float")
    small = TARGET.lower(model, palettes(model, bits, group=group) if group else palettes(model, bits), tmp_path)
    written = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert written & {"Gather", "GatherElements"}
    assert sorted(operators(small, tmp_path)) == sorted(operators(plain, tmp_path / "float"))


def test_a_table_stays_indices_and_only_its_rows_become_float(zoo, tmp_path):
    model, _ = zoo["words"]
    artifact = TARGET.lower(model, palettes(model, 4), tmp_path)
    assert operators(artifact, tmp_path)[:3] == ["Gather", "Cast", "Gather"]


@pytest.mark.parametrize(("bits", "bytes_each"), [(1, 0.5), (4, 0.5), (5, 1.0), (8, 1.0)])
def test_indices_take_half_a_byte_or_one(exported, tmp_path, bits, bytes_each):
    from torch import nn

    model = exported(nn.Linear(128, 64, bias=False), np.zeros((2, 128), np.float32))
    whole = TARGET.lower(model, Encodings.none(), tmp_path / "float").bytes
    small = TARGET.lower(model, palettes(model, bits), tmp_path / "small").bytes
    saved = 64 * 128 * (4 - bytes_each) - 4 * (1 << bits)
    assert whole - small == pytest.approx(saved, abs=500)


def test_only_packed_indices_ask_for_a_newer_runtime(zoo, tmp_path):
    model, _ = zoo["residual"]
    found = [TARGET.lower(model, palettes(model, bits), tmp_path / str(bits)).runtime_version for bits in (4, 5)]
    assert found == ["1.23", "1.18"]


def test_a_palette_between_integer_layers_computes_in_float(zoo, encoded, tmp_path):
    """ONNX Runtime would quantize a float weight between codes by itself; ours it leaves alone."""
    model, sample = zoo["depthwise"]
    whole = encoded(model, [sample])
    key = "deep:conv2d#0:weight"
    books = palettes(model, 4)
    mixed = Encodings({**whole.tensors, key: books.tensors[key]}, {**whole.integers, key: books.integers[key]})
    artifact = TARGET.lower(model, mixed, tmp_path)
    left = operators(artifact, tmp_path)
    assert "QLinearConv" in left
    assert {"Conv", "FusedConv"} & set(left)
    assert not {"Gather", "GatherElements"} & set(left)
    wanted = Reference().run(model, mixed, sample)[0]
    np.testing.assert_allclose(ran(artifact, tmp_path, model, sample), wanted, rtol=1e-3, atol=1e-3)


def spoiled(path, change):
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)


def _other_entry(graph):
    entries = next(one for one in graph.initializer if one.name == "one:conv2d#0:weight/palette")
    numbers = np.frombuffer(entries.raw_data, np.float32).copy()
    numbers[3] += 1
    entries.raw_data = numbers.tobytes()


def _other_index(graph):
    codes = next(one for one in graph.initializer if one.name == "one:conv2d#0:weight/codes")
    codes.raw_data = bytes([codes.raw_data[0] ^ 1]) + codes.raw_data[1:]


def test_a_changed_entry_or_index_is_another_encoding(zoo, tmp_path):
    model, _ = zoo["residual"]
    for change in (_other_entry, _other_index):
        artifact = TARGET.lower(model, palettes(model, 5), tmp_path)
        before = TARGET.read(tmp_path / "model.onnx", artifact).digest
        spoiled(tmp_path / "model.onnx", change)
        assert TARGET.read(tmp_path / "model.onnx", artifact).digest != before


def _axis(graph):
    next(node for node in graph.node if node.op_type == "GatherElements").attribute[0].i = 0


def _shape(graph):
    shape = next(one for one in graph.initializer if one.name.endswith("weight/shape"))
    numbers = np.frombuffer(shape.raw_data, np.int64).copy()
    shape.raw_data = np.array([numbers[0] * 2, *numbers[1:]], np.int64).tobytes()


def _entries(graph):
    entries = next(one for one in graph.initializer if one.name.endswith("weight/palette"))
    rows, count = entries.dims
    numbers = np.frombuffer(entries.raw_data, np.float32).reshape(rows, count)[:, : count - 1]
    entries.raw_data = np.ascontiguousarray(numbers).tobytes()
    entries.dims[1] = count - 1


def _large(graph):
    codes = next(one for one in graph.initializer if one.name.endswith("weight/codes"))
    codes.raw_data = bytes([255]) + codes.raw_data[1:]


@pytest.mark.parametrize("change", [_axis, _shape, _entries, _large])
def test_what_we_do_not_write_is_refused(zoo, tmp_path, change):
    model, _ = zoo["depthwise"]
    artifact = TARGET.lower(model, palettes(model, 5, group=2), tmp_path)
    spoiled(tmp_path / "model.onnx", change)
    with pytest.raises(VerificationError, match="not an ONNX file that we have written"):
        TARGET.read(tmp_path / "model.onnx", artifact)


def test_a_file_of_mapped_weights_holds_them(zoo, tmp_path):
    model, sample = zoo["residual"]
    target = replace(TARGET, mapped_from=0)
    encodings = palettes(model, 4)
    artifact = target.lower(model, encodings, tmp_path)
    assert target.read(tmp_path / "model.onnx", artifact).digest == encodings.digest
    wanted = Reference().run(model, encodings, sample)[0]
    np.testing.assert_allclose(ran(artifact, tmp_path, model, sample), wanted, rtol=2e-5, atol=2e-6)
