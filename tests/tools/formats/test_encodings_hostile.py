"""Encodings files whose fields and arrays are anything at all: each is a fault of the file, never another error."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from haversack.base.encodings import BlockAffine, Encodings
from haversack.base.errors import EXIT_USAGE, UsageError
from haversack.tools.formats.encodings_file import from_bytes, write

PLAIN = {
    "Affine": {"bits": 8, "signed": True, "axis": 0},
    "BlockAffine": {"block": 2, "bits": 4},
    "Codebook": {"bits": 1, "group": 0},
    "Dynamic": {"bits": 8},
    "Float": {"dtype": "float16"},
}
"""Kind -> its fields that are no arrays."""
ARRAYS = {
    "Affine": {"scale": np.ones(2, np.float32), "zero_point": np.zeros(2, np.int32)},
    "BlockAffine": {"scale": np.ones((2, 2), np.float32)},
    "Codebook": {"entries": np.array([-1, 1], np.float32)},
    "Dynamic": {},
    "Float": {},
}


def key_of(kind):
    return "m:linear#0:in" if kind == "Dynamic" else "m:linear#0:weight"


def whole(kind, fields, arrays, number=1):
    text = json.dumps({"format": number, "tensors": {key_of(kind): {"kind": kind, **fields}}})
    return save({f"{key_of(kind)}|{name}": array for name, array in arrays.items()}, metadata={"haversack": text})


def wrong(kind, name, *values):
    return [(kind, name, value) for value in values]


HUGE = (10**30, 10**400, -(1 << 40), "8", None, 1.5, [], {})

FIELDS = [
    *wrong("Affine", "bits", *HUGE, 0, 17, True),
    *wrong("Affine", "signed", 1, 0, "true", None, []),
    *wrong("Affine", "axis", "0", 0.0, [0], False),
    *wrong("BlockAffine", "block", *HUGE[2:], 0, -1, True),
    *wrong("BlockAffine", "bits", *HUGE, 1, 9),
    *wrong("Codebook", "bits", *HUGE, 0, 2, 9),
    *wrong("Codebook", "group", *HUGE, 1, -1),
    *wrong("Dynamic", "bits", *HUGE[3:], True),
    *wrong("Float", "dtype", 16, None, ["float16"], "float17", ""),
]


@pytest.mark.parametrize(("kind", "name", "value"), FIELDS)
def test_a_field_that_is_anything_else_is_a_fault_of_its_tensor(kind, name, value):
    assert set(from_bytes(whole(kind, PLAIN[kind], ARRAYS[kind])).tensors) == {key_of(kind)}
    with pytest.raises(UsageError) as told:
        from_bytes(whole(kind, PLAIN[kind] | {name: value}, ARRAYS[kind]), where="a/file")
    assert told.value.exit_code == EXIT_USAGE
    assert told.value.where == "a/file"
    assert [fault.where for fault in told.value.faults] == [key_of(kind)]
    assert "encodings.safetensors" in told.value.next_step


@pytest.mark.parametrize("kind", PLAIN)
def test_a_field_that_is_missing_is_named(kind):
    for name in PLAIN[kind]:
        fields = {one: value for one, value in PLAIN[kind].items() if one != name}
        with pytest.raises(UsageError) as told:
            from_bytes(whole(kind, fields, ARRAYS[kind]))
        assert told.value.faults[0].cause.endswith(f"another type: {name}")


SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)
ANY = st.tuples(SHAPES, st.sampled_from(["float32", "float16", "int8", "uint8", "int16", "int32"]), st.integers(-2, 2))


@settings(max_examples=50)
@given(
    st.sampled_from(sorted(PLAIN)),
    st.dictionaries(
        st.sampled_from(["scale", "zero_point", "minimum", "scale_of_scales", "entries", "integers"]), ANY, max_size=4
    ),
)
def test_arrays_of_any_shape_and_type_are_encodings_or_faults(kind, changes):
    made = {name: np.full(shape, value).astype(dtype) for name, (shape, dtype, value) in changes.items()}
    try:
        found = from_bytes(whole(kind, PLAIN[kind], ARRAYS[kind] | made))
    except UsageError as error:
        assert {fault.where for fault in error.faults} <= {
            key_of(kind),
            "",
            *(f"{key_of(kind)}|{name}" for name in made),
        }
        return
    assert type(found.tensors[key_of(kind)]).__name__ == kind
    assert set(found.integers) == ({key_of(kind)} if "integers" in made else set())


@pytest.mark.parametrize("number", [True, 1.0, "1", None, [1], 0, -1, 2, 10**30])
def test_a_format_that_only_looks_like_one_is_refused(number):
    with pytest.raises(UsageError, match="this version reads format 1"):
        from_bytes(whole("Dynamic", {"bits": 8}, {}, number))


def test_the_least_integer_of_all_is_no_code_of_a_block():
    """Its absolute value is itself in int32, so that a check of sizes alone would let it pass."""
    codes = np.array([[-(2**31), 1]], np.int32)
    with pytest.raises(ValueError, match=r"leave the codes \[-7, 7\]"):
        Encodings({"m:linear#0:weight": BlockAffine(2, 4, np.ones((1, 1), np.float32))}, {"m:linear#0:weight": codes})


def test_a_file_that_was_there_stays_where_writing_fails(tmp_path):
    path = tmp_path / "encodings.safetensors"
    path.write_bytes(b"before")
    (tmp_path / "encodings.safetensors.part").mkdir()
    with pytest.raises(OSError, match="part"):
        write(Encodings.none(), path)
    assert path.read_bytes() == b"before"
