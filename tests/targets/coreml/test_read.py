"""Packages that somebody spoiled: each planted fault is found, and told where it is."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.errors import EnvironmentFault, VerificationError
from haversack.targets.coreml import protos
from haversack.targets.coreml.blob import ALIGNMENT, BadBlob, BlobReader, BlobWriter
from haversack.targets.coreml.protos import messages
from haversack.tools.graph.injection import differences

STEM = "stem:conv2d#0:weight"


@pytest.fixture
def package(mobile, stored, lowered):
    return lowered(mobile, stored(mobile, "int8_weights"))


@pytest.fixture
def palettes(mobile, stored, lowered):
    return lowered(mobile, stored(mobile, "palette", bits=4))


def weights_of(made):
    return made.path.parent / "weights" / "weight.bin"


def program(made, edit):
    """Edit the program's message on disk."""
    model = messages().Model_pb2.Model.FromString(made.path.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    edit(model, block)
    made.path.write_bytes(model.SerializeToString())


def offset_of(made, part, where="stem"):
    model = messages().Model_pb2.Model.FromString(made.path.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    found = next(one for one in block.operations if part in one.attributes and where in one.outputs[0].name)
    return found.attributes[part].blobFileValue.offset


def flipped(made, part, *, byte=0, mask=1):
    path = weights_of(made)
    data = bytearray(path.read_bytes())
    data[offset_of(made, part) + ALIGNMENT + byte] ^= mask
    path.write_bytes(data)


def test_a_flipped_code_is_found_in_its_layer(package):
    flipped(package, "quantized_data", byte=7)
    _, faults = differences(package.encodings, package.read())
    assert [(fault.where, fault.cause) for fault in faults] == [(STEM, "1 of 216 integers differ")]


@pytest.mark.parametrize("part, cause", [("indices", "integers differ"), ("lut", "palette")])
def test_a_flipped_bit_of_a_palette_is_found_in_its_layer(palettes, part, cause):
    flipped(palettes, part)
    _, faults = differences(palettes.encodings, palettes.read())
    assert [fault.where for fault in faults] == [STEM]
    assert cause in faults[0].cause


def test_the_lowest_code_is_none_of_ours(package):
    path = weights_of(package)
    data = bytearray(path.read_bytes())
    data[offset_of(package, "quantized_data") + ALIGNMENT] = 0x80
    path.write_bytes(data)
    with pytest.raises(VerificationError) as caught:
        package.read()
    assert [(fault.where, fault.cause) for fault in caught.value.faults] == [
        (STEM, "it holds -128, which no weight has")
    ]


def scale(model, block):
    found = next(one for one in block.operations if "scale" in one.attributes and "down" in one.outputs[0].name)
    found.attributes["scale"].immediateValue.tensor.bytes.values = np.full(8, 0.5, np.float16).tobytes()


def test_another_scale_is_found_in_its_layer(package):
    program(package, scale)
    _, faults = differences(package.encodings, package.read())
    assert [fault.where for fault in faults] == ["down:conv2d#0:weight"]
    assert "scale [0.5 0.5 0.5 0.5] instead of" in faults[0].cause


def shifted(model, block):
    found = next(one for one in block.operations if "zero_point" in one.attributes)
    found.attributes["zero_point"].immediateValue.tensor.bytes.values = b"\x01"


def stray(model, block):
    found = next(one for one in block.operations if one.type.startswith("constexpr"))
    copy = block.operations.add()
    copy.CopyFrom(found)
    copy.outputs[0].name = "nobody"


def unmade(model, block):
    found = next(one for one in block.operations if one.type == "conv")
    found.inputs["x"].arguments[0].name = "nothing"


def elsewhere(model, block):
    found = next(one for one in block.operations if "quantized_data" in one.attributes)
    found.attributes["quantized_data"].blobFileValue.fileName = "/etc/passwd"


def outside(model, block):
    found = next(one for one in block.operations if "quantized_data" in one.attributes)
    found.attributes["quantized_data"].blobFileValue.offset = 1 << 40


def vast(model, block):
    found = next(one for one in block.operations if "quantized_data" in one.attributes)
    found.attributes["quantized_data"].type.tensorType.dimensions[0].constant.size = 1 << 50


def renamed(model, block):
    model.description.input[0].name = "picture"


def retyped(model, block):
    found = next(one for one in block.operations if one.type == "const" and "stem" in one.outputs[0].name)
    found.outputs[0].type.tensorType.dataType = 2


def unheard(model, block):
    found = next(one for one in block.operations if "quantized_data" in one.attributes)
    found.attributes["scale"].type.tensorType.dataType = 77


def newer(model, block):
    model.specificationVersion = 9


def lost(model, block):
    block.outputs[0] = "gone"


@pytest.mark.parametrize(
    "edit, where, cause",
    [
        (shifted, STEM, "not symmetric int8"),
        (stray, "nobody", "that no layer reads"),
        (unmade, "stem_conv2d_0", "what nothing makes before it"),
        (elsewhere, "stem_conv2d_0_weight", "/etc/passwd"),
        (outside, "stem_conv2d_0_weight", "no blob can lie at byte"),
        (vast, "stem_conv2d_0_weight", "a type of rank"),
        (renamed, "main", "interface"),
        (retyped, "stem", "said to be something else"),
        (unheard, "stem_conv2d_0_weight", "a constant of type 77"),
        (newer, "model.mlmodel", "specification 7"),
        (lost, "gone", "nothing makes"),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_structure_that_is_not_ours(package, edit, where, cause):
    program(package, edit)
    with pytest.raises(VerificationError) as caught:
        package.read()
    assert any(fault.where.startswith(where) and cause in fault.cause for fault in caught.value.faults), caught.value


def test_files_that_are_none(package):
    weights_of(package).write_bytes(b"no weights")
    with pytest.raises(VerificationError, match="header of version 2"):
        package.read()
    weights_of(package).unlink()
    with pytest.raises(VerificationError, match="cannot be read"):
        package.read()
    package.path.write_bytes(b"\xff" * 100)
    weights_of(package).write_bytes(bytes(64))
    with pytest.raises(VerificationError, match="no Core ML model"):
        package.read()


def test_a_weights_file_as_apple_reads_it(tmp_path):
    from interpreter import blob_reader

    writer = BlobWriter()
    arrays = [np.arange(300, dtype=np.float32), np.arange(-5, 6, dtype=np.int8), np.arange(70, dtype=np.uint8)]
    offsets = [writer.add(array) for array in (*arrays, arrays[0])]
    assert offsets[3] == offsets[0]
    path = tmp_path / "weight.bin"
    path.write_bytes(writer.finish())
    apple = blob_reader(path)
    for array, offset, kind in zip(arrays, offsets, ("float", "int8", "uint8"), strict=False):
        assert np.array_equal(getattr(apple, f"read_{kind}_data")(offset), array)
        assert np.array_equal(BlobReader(path.read_bytes()).read(offset, str(array.dtype), array.size), array)


@pytest.mark.parametrize(
    "offset, dtype, elements, cause",
    [
        (64, "int8", 12, "11 bytes int8, not 12 bytes int8"),
        (64, "uint8", 11, "11 bytes int8, not 11 bytes uint8"),
        (128, "int8", 11, "no blob lies at byte 128"),
        (65, "int8", 11, "no blob can lie at byte 65"),
        (0, "int8", 11, "no blob can lie at byte 0"),
        (1 << 20, "int8", 11, "no blob can lie at byte 1048576 of 192"),
    ],
)
def test_blobs_that_are_not_there(offset, dtype, elements, cause):
    writer = BlobWriter()
    writer.add(np.arange(-5, 6, dtype=np.int8))
    with pytest.raises(BadBlob, match=cause):
        BlobReader(writer.finish()).read(offset, dtype, elements)


def test_a_blob_that_leaves_its_file():
    writer = BlobWriter()
    writer.add(np.zeros(100, np.int8))
    with pytest.raises(BadBlob, match="leaves the file"):
        BlobReader(writer.finish()[:-64]).read(64, "int8", 100)


def test_without_coremltools_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(protos, "PACKAGE", "haversack_no_such_package")
    monkeypatch.setattr(protos, "_OURS", "haversack_not_loaded_yet")
    with pytest.raises(EnvironmentFault, match=r"haversack\[coreml\]"):
        protos.messages()
