"""Digests: equal content, equal digest; any other content, another."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.base import digest

DTYPES = st.sampled_from([np.float32, np.float16, np.int8, np.uint8, np.int32, np.int64, np.bool_])
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=100))
def test_of_bytes_is_sha256(data):
    assert digest.of_bytes(data) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, digest.CHUNK_BYTES - 1, digest.CHUNK_BYTES, digest.CHUNK_BYTES + 1])
def test_of_file_reads_all_of_it(size, tmp_path):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    path = tmp_path / "blob"
    path.write_bytes(data)
    assert digest.of_file(path) == digest.of_bytes(data)


def test_of_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        digest.of_file(tmp_path / "nothing")


@given(ARRAYS)
def test_an_array_equals_its_copy(array):
    assert digest.of_array(array) == digest.of_array(array.copy())


@given(hnp.arrays(np.float32, (3, 4)))
def test_layout_in_memory_does_not_count(array):
    assert digest.of_array(np.asfortranarray(array)) == digest.of_array(array)
    assert digest.of_array(np.repeat(array, 2, axis=0)[::2]) == digest.of_array(array)


@given(ARRAYS.filter(lambda array: array.size > 0), st.data())
def test_one_changed_bit_changes_it(array, data):
    raw = bytearray(array.tobytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1
    changed = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
    assert digest.of_array(changed) != digest.of_array(array)


def test_shape_and_dtype_count():
    zeros = np.zeros(4, np.float32)
    others = [
        zeros.reshape(2, 2),
        zeros.reshape(4, 1),
        zeros.reshape(1, 4),
        zeros.view(np.int32),
        zeros.astype(np.float64),
        np.zeros(8, np.float16),
        np.zeros(4, ">f4"),
    ]
    assert len({digest.of_array(array) for array in [zeros, *others]}) == 8


def test_scalars_empty_arrays_and_dates_have_digests():
    arrays = [
        np.array(1, np.int32),
        np.array([1], np.int32),
        np.zeros((0, 3), np.float32),
        np.zeros((3, 0), np.float32),
        np.array(["2026-01-01"], "datetime64[D]"),
    ]
    assert len({digest.of_array(array) for array in arrays}) == 5


def test_a_dtype_of_an_extension_has_a_digest_of_its_own():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    one = np.array([1], np.uint16)
    assert digest.of_array(one.view(ml_dtypes.bfloat16)) != digest.of_array(one)


def test_objects_have_none():
    with pytest.raises(TypeError, match="Python objects"):
        digest.of_array(np.array([object()]))


@given(st.dictionaries(st.text(max_size=5), ARRAYS, max_size=4))
def test_named_arrays_in_any_order(arrays):
    backwards = dict(reversed(list(arrays.items())))
    assert digest.of_arrays(backwards) == digest.of_arrays(arrays)


def test_names_count_and_do_not_run_together():
    one, two = np.zeros(1, np.int8), np.ones(1, np.int8)
    sets = [{}, {"a": one}, {"b": one}, {"a": one, "b": two}, {"a": two, "b": one}, {"ab": one}, {"a": one, "": two}]
    assert len({digest.of_arrays(each) for each in sets}) == len(sets)


@given(JSON)
def test_data_equals_itself_after_a_round_trip(data):
    assert digest.of_data(json.loads(json.dumps(data))) == digest.of_data(data)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_the_order_of_keys_does_not_count(data):
    assert digest.of_data(dict(reversed(list(data.items())))) == digest.of_data(data)


def test_data_that_differs():
    values = [None, False, True, 0, 1, 1.5, "", "0", "1", [], {}, [0], ["0"], [[0]], {"0": 0}, {"a": 0}, {"a": None}]
    assert len({digest.of_data(value) for value in values}) == len(values)


def test_the_digest_of_known_data():
    text = b'{"a":[1,2.5,null],"b":"\\u00e9"}'
    assert digest.of_data({"b": "é", "a": [1, 2.5, None]}) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(ValueError):
        digest.of_data(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", np.float32(1)])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(TypeError):
        digest.of_data(value)
