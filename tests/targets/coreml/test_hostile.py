"""Numbers of any kind through a Core ML package and back, and packages that somebody changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from haversack.base.encodings import Codebook, Encodings
from haversack.base.errors import VerificationError
from haversack.targets.coreml import package as packages
from haversack.targets.coreml.blob import ALIGNMENT, BadBlob, BlobReader, BlobWriter
from haversack.targets.coreml.protos import messages
from haversack.targets.coreml.read import _Reader
from haversack.targets.coreml.sheet import TYPES, Sheet, filed, identifier
from haversack.targets.coreml.write import PALETTE_BITS
from haversack.tools.graph.injection import Content, differences

KINDS = {"fp16": np.float16, "fp32": np.float32, "int8": np.int8, "uint8": np.uint8}
FILED = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: arrays.arrays(KINDS[kind], arrays.array_shapes(max_dims=3, min_side=0, max_side=9))
)


@given(st.lists(FILED, min_size=1, max_size=6))
def test_every_array_of_a_weights_file_is_read_as_it_was_written(several):
    writer = BlobWriter()
    offsets = [writer.add(array) for array in several]
    data = writer.finish()
    assert len(data) % ALIGNMENT == 0
    assert int.from_bytes(data[:4], "little") == len({(one.dtype.str, one.tobytes()) for one in several})
    reader = BlobReader(data)
    for array, offset in zip(several, offsets, strict=True):
        found = reader.read(offset, str(array.dtype), array.size)
        assert found.tobytes() == array.tobytes()


@given(FILED, st.data())
def test_a_weights_file_cut_anywhere_gives_nothing_that_is_not_whole(array, data):
    writer = BlobWriter()
    offset = writer.add(array)
    whole = writer.finish()
    cut = data.draw(st.integers(0, len(whole) - 1))
    needed = offset + ALIGNMENT + array.nbytes
    try:
        found = BlobReader(whole[:cut]).read(offset, str(array.dtype), array.size)
    except BadBlob:
        assert cut < max(needed, offset + ALIGNMENT)
    else:
        assert cut >= needed
        assert found.tobytes() == array.tobytes()


@given(
    st.binary(max_size=3 * ALIGNMENT), st.integers(-64, 4 * ALIGNMENT), st.sampled_from(sorted(KINDS.values(), key=str))
)
def test_noise_is_no_weights_file(noise, offset, kind):
    with pytest.raises(BadBlob):
        BlobReader(noise).read(offset, np.dtype(kind).name, 1)


NUMBERS = {
    "fp32": st.floats(width=32),
    "fp16": st.floats(width=16),
    "int32": st.integers(-(1 << 31), (1 << 31) - 1),
    "int8": st.integers(-128, 127),
    "uint8": st.integers(0, 255),
    "uint32": st.integers(0, (1 << 32) - 1),
    "bool": st.booleans(),
}


@pytest.mark.parametrize("kind", NUMBERS)
@given(data=st.data())
@settings(max_examples=25)
def test_a_constant_of_any_type_and_shape_is_read_as_it_was_written(kind, data):
    """Small ones stand in the program, others in the weights file: the border is at ten values."""
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5))
    array = data.draw(arrays.arrays(TYPES[kind][1], shape, elements=NUMBERS[kind]))
    sheet = Sheet()
    message = sheet.literal(array, kind)
    model = messages().Model_pb2.Model()
    model.mlProgram.SetInParent()
    found = _Reader(model, BlobReader(sheet.blobs.finish()), Content()).array(message)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes() or np.isnan(array).any()
    assert message.HasField("blobFileValue") == (array.size >= 10 and kind in KINDS)
    np.testing.assert_array_equal(found, array)


@given(arrays.arrays(np.float32, (6,), elements=st.floats(width=32, allow_nan=False)))
def test_what_float16_cannot_hold_becomes_its_largest_and_infinities_stay(values):
    with np.errstate(over="ignore"):
        plain = values.astype(np.float16)
    held = filed(values, "fp16")
    np.testing.assert_array_equal(np.isinf(held), np.isinf(values))
    within = np.abs(values) <= np.finfo(np.float16).max
    np.testing.assert_array_equal(held[within], plain[within])
    finite = np.isfinite(values)
    np.testing.assert_array_equal(np.abs(held[~within & finite]), np.float16(65504))


@pytest.mark.parametrize("value, held", [(1 << 40, (1 << 31) - 1), (-(1 << 63), -(1 << 31)), (7, 7)])
def test_whole_numbers_beyond_32_bits_become_the_nearest(value, held):
    assert filed(np.array([value]), "int32").tolist() == [held]


@given(st.lists(st.text(max_size=6), max_size=12))
def test_names_are_ones_that_the_language_takes_and_no_two_are_alike(hints):
    sheet = Sheet()
    found = [sheet.unique(hint) for hint in hints]
    assert len(set(found)) == len(found)
    for name in (*found, *map(identifier, hints)):
        assert name.isascii()
        assert name.replace("_", "a").isalnum()
        assert name[0].isalpha()


def test_names_that_look_like_numbered_ones_are_not_given_twice():
    sheet = Sheet()
    assert [sheet.unique(hint) for hint in ("a", "a", "a_x1", "a_x1", "a", "1", "_")] == [
        "a", "a_x1", "a_x1_x1", "a_x1_x2", "a_x2", "n1", "value",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def narrow(exported):
    """A layer whose weight has 35 values: no number of bits but 8 fills its bytes."""
    import torch
    from torch import nn

    torch.manual_seed(11)
    return exported(nn.Linear(5, 7), np.zeros((2, 5), np.float32), names=("x",))


@pytest.mark.parametrize("bits", PALETTE_BITS)
def test_indices_of_any_width_are_packed_without_gaps_and_mean_their_entries(narrow, lowered, bits):
    rng = np.random.default_rng(bits)
    entries = np.sort(rng.normal(size=1 << bits)).astype(np.float16).astype(np.float32)
    indices = rng.integers(0, 1 << bits, (7, 5)).astype(np.int32)
    (node,) = [one for one in narrow.graph.nodes if one.weight]
    key = f"{node.key}:weight"
    made = lowered(narrow, Encodings({key: Codebook(bits, entries)}, {key: indices}))
    assert differences(made.encodings, made.read()) == (1 + 35, ())
    x = rng.normal(size=(1, 5)).astype(np.float32)
    wanted = x @ entries[indices].T + narrow.weights[node.bias]
    np.testing.assert_allclose(made.run(x)[0], wanted, atol=2e-3)


@pytest.fixture(scope="module")
def written(mobile, stored, tmp_path_factory):
    """Precision -> (package of the convolutional network, a function that reads it: its faults)."""
    from tests.targets.coreml.conftest import Lowered

    made = {
        precision: Lowered(mobile, stored(mobile, precision, **settings), tmp_path_factory.mktemp(precision))
        for precision, settings in (("int8_weights", {}), ("palette", {"bits": 2}), ("float16", {}))
    }

    def told(precision):
        one = made[precision]
        try:
            return differences(one.encodings, one.read())[1]
        except VerificationError as error:
            assert str(one.package) in error.where
            return error.faults or (error,)

    return made, told


@pytest.mark.parametrize("precision", ["int8_weights", "palette", "float16"])
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_of_the_program_may_be_anything(written, precision, data):
    made, told = written
    path = made[precision].path
    whole = path.read_bytes()
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(changed))
    try:
        assert isinstance(told(precision), tuple)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("precision", ["int8_weights", "palette"])
@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_files_cut_anywhere_are_refused(written, precision, data):
    made, told = written
    path = made[precision].path
    for file in (path, path.parent / "weights" / "weight.bin"):
        whole = file.read_bytes()
        file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1 - ALIGNMENT))])
        try:
            assert told(precision)
        finally:
            file.write_bytes(whole)
    assert told(precision) == ()


def compressed(model):
    """Yield (name of the tensor, name of the attribute, its message) of all that is computed when it is loaded."""
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    for operation in block.operations:
        if operation.type.startswith("constexpr_"):
            for name, value in operation.attributes.items():
                if name != "name":
                    yield operation.outputs[0].name, name, value


@pytest.mark.parametrize("precision", ["int8_weights", "palette"])
def test_no_part_of_a_stored_weight_may_have_another_type_or_length(written, precision):
    made, told = written
    path = made[precision].path
    whole = path.read_bytes()
    count = len(list(compressed(messages().Model_pb2.Model.FromString(whole))))
    assert count > 8
    try:
        for place in range(count):
            for kind in ("STRING", "BOOL", "FLOAT32", "INT32", "FLOAT64"):
                model = messages().Model_pb2.Model.FromString(whole)
                where, name, value = list(compressed(model))[place]
                value.type.tensorType.dataType = messages().MIL_pb2.DataType.Value(kind)
                path.write_bytes(model.SerializeToString())
                same = kind == "INT32" and name == "axis"
                assert bool(told(precision)) is not same, f"{name} of {where} as {kind}"
            model = messages().Model_pb2.Model.FromString(whole)
            where, name, value = list(compressed(model))[place]
            value.type.tensorType.dimensions.add().constant.size = 2
            path.write_bytes(model.SerializeToString())
            assert told(precision), f"{name} of {where} with one more axis"
    finally:
        path.write_bytes(whole)
    assert told(precision) == ()


@pytest.mark.parametrize("which, limit", [("_LARGEST_MODEL", 100), ("_LARGEST_WEIGHTS", 200)])
def test_files_larger_than_any_of_ours_are_not_read(written, monkeypatch, which, limit):
    _, told = written
    monkeypatch.setattr(packages, which, limit)
    (fault,) = told("float16")
    assert f"more than {limit} bytes" in fault.cause
