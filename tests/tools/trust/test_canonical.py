"""The canonical form: one record, one text; what means the same in other bytes is refused, and what is no record."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.bundle import LARGEST_MANIFEST, BundleFile, Manifest, Variant
from haversack.base.errors import Refused
from haversack.tools.trust.canonical import DEEPEST, dumps, loads, parse, shown

SHA = "ab" * 32
FILES = (
    BundleFile("litert.json", "artifact", 5, SHA, "litert"),
    BundleFile("litert.tflite", "model", 5, SHA, "litert"),
)
FIGURES = st.floats(allow_nan=False, allow_infinity=False)
VARIANTS = st.builds(
    Variant,
    st.just("litert"),
    st.sampled_from(["", "2.17"]),
    st.lists(st.sampled_from(["avx2", "neon"]), max_size=2).map(tuple),
    st.booleans(),
    st.floats(0, 1e300),
    st.dictionaries(st.sampled_from(["value", "drop", "ratio"]), FIGURES),
)
MANIFESTS = st.builds(lambda one: Manifest(1, "digits", "1.3.0", FILES, (one,), ("top1", "fraction")), VARIANTS)
MANIFEST = Manifest(1, "digits", "1.3.0", FILES, (Variant("litert", tolerance=0.5, quality={"value": 1.0}),))
DATA = dumps(MANIFEST)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FIGURES | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)


def read(data: bytes, **more: Any) -> Manifest:
    return loads(data, Manifest, where="manifest.json", **{"limit": LARGEST_MANIFEST, **more})


@given(MANIFESTS)
def test_a_record_is_read_as_it_was_written_and_has_one_text(manifest):
    data = dumps(manifest)
    assert data.isascii()
    assert data.endswith(b"}\n")
    assert b" " not in data
    assert read(data) == manifest
    assert dumps(read(data)) == data


@given(JSON)
def test_data_are_read_as_they_were_written(found):
    try:
        data = dumps(found)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, UnicodeEncodeError):  # half a surrogate pair in a key
        return
    again = parse(data, where="x", limit=1 << 20)
    assert again == found
    assert dumps(again) == data


@given(MANIFESTS, st.integers(1, 8), st.booleans(), st.booleans())
def test_other_ways_to_write_the_same_record_are_refused(manifest, indent, order, late):
    data = json.loads(dumps(manifest))
    texts = {
        json.dumps(data, indent=indent, sort_keys=order).encode(),
        json.dumps(data, sort_keys=True, separators=(",", ":")).encode(),  # no line feed
        dumps(manifest) + (b"\n" if late else b" "),
        b"\xef\xbb\xbf" + dumps(manifest),
        dumps(manifest).replace(b'"digits"', b'"\\u0064igits"'),
        dumps(manifest).replace(b'"digits"', b'"\\u0064igits"').replace(b"\\u0064", b"d").replace(b"\n", b"\r\n"),
    }
    for text in texts - {dumps(manifest)}:
        with pytest.raises(Refused):
            read(text)


@pytest.mark.parametrize(
    "old, new, said",
    [
        (b'"format":1', b'"format":1,"format":1', "canonical"),
        (b'"name":"digits"', b'"name":"digits","name":"digits"', "canonical"),
        (b'"tolerance":0.5', b'"tolerance":0.50', "canonical"),
        (b'"tolerance":0.5', b'"tolerance":5e-1', "canonical"),
        (b'"tolerance":0.5', b'"tolerance":5e-01', "canonical"),
        (b'"value":1.0', b'"value":1', "canonical"),
        (b'"value":1.0', b'"value":1.0000000000000000000001', "canonical"),
        (b'"value":1.0', b'"value":NaN', "not finite"),
        (b'"value":1.0', b'"value":1e999', "not finite"),
        (b'"tolerance":0.5', b'"tolerance":-Infinity', "finite"),
        (b'"tolerance":0.5', b'"tolerance":' + b"9" * 400, "too large"),
        (b'"exact":false', b'"exact":0', "not true or false"),
        (b'"bytes":5', b'"bytes":5.0', "not a value of type int"),
        (b'"bytes":5', b'"bytes":"5"', "not a value of type int"),
        (b'"bytes":5', b'"bytes":-0', "canonical"),
        (b'"bytes":5', b'"bytes":' + b"9" * 5000, "no JSON"),
        (b'"format":1', b'"format":2', "format 2 is not one this version reads"),
        (b'"format":1', b'"format":true', "format True is not one"),
        (b'"format":1,', b"", "format None is not one"),
        (b'"name":"digits",', b"", "is missing"),
        (b'"format":1', b'"format":1,"more":2', "unknown name"),
        (b'"role":"model"', b'"role":"program"', "role"),
        (b'"metric":["",""]', b'"metric":["","",""]', "metric"),
        (b'"metric":["",""]', b'"metric":["\\ud800",""]', "no word"),
        (b'"metric":["",""]', b'"metric":["\\u001b[2J",""]', "no word"),
        (b'"metric":["",""]', b'"metric":null', "metric"),
        (b'"version":"1.3.0"', b'"version":"1.3"', "no name and version"),
        (b'{"bytes"', b'["bytes"', "no JSON"),
    ],
)  # fmt: skip
def test_what_no_manifest_is(old, new, said):
    assert old in DATA
    with pytest.raises(Refused) as caught:
        read(DATA.replace(old, new))
    assert said in str(caught.value)
    assert caught.value.where == "manifest.json"
    assert caught.value.exit_code == 7


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"[]\n", b"null\n", b"1\n", b'"x"\n', b"\xff\xfe", b"{}\n", b"\x80\x04K\x01."]
)
def test_what_no_record_is(data):
    with pytest.raises(Refused):
        read(data)


@pytest.mark.parametrize("opened", ["[", '{"a":', '[{"a":', '{"a":[[['])
@pytest.mark.parametrize("closed", [True, False])
def test_nests_of_brackets_are_refused_before_they_are_read(opened, closed, monkeypatch):
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it was read"))
    text = opened * 1000 + ("]" * 1000 if closed else "")
    with pytest.raises(Refused, match=f"deeper than {DEEPEST}"):
        parse(text.encode(), where="x", limit=1 << 20)


def test_brackets_in_texts_nest_nothing():
    data = dumps({"labels": ["[" * 100, '"[' * 100, "\\[" * 100, "{" * 100]})
    assert parse(data, where="x", limit=1 << 20)["labels"][1] == '"[' * 100


@given(st.integers(1, DEEPEST))
def test_what_is_not_too_deep_is_read(depth):
    data = b"[" * depth + b"]" * depth + b"\n"
    assert dumps(parse(data, where="x", limit=1 << 10)) == data


def test_a_text_that_is_too_long_is_not_looked_at():
    with pytest.raises(Refused, match="and 10 are allowed"):
        read(DATA, limit=10)


@pytest.mark.parametrize("text", ["\\ud800", "\\udfff", "a\\udc00b"])
def test_half_a_surrogate_pair_is_no_text(text):
    with pytest.raises(Refused, match="surrogate"):
        parse(f'["{text}"]\n'.encode(), where="x", limit=100)
    assert parse(b'["\\ud83d\\ude00"]\n', where="x", limit=100) == ["😀"]


@given(st.binary(max_size=200) | st.builds(lambda text: text.encode("utf-8", "replace"), st.text(max_size=100)))
def test_no_bytes_are_more_than_refused(data):
    for call in (lambda: read(data), lambda: parse(data, where="x", limit=1 << 20)):
        try:
            call()
        except Refused as error:
            assert str(error).isprintable() or "\n" in str(error)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_no_flipped_byte_is_more_than_refused(place, flip):
    spoiled = bytearray(DATA)
    spoiled[place] ^= flip
    try:
        found = read(bytes(spoiled))
    except Refused:
        return
    assert dumps(found) == bytes(spoiled), "another record, whole"


@given(JSON)
def test_no_json_is_more_than_refused(found):
    with pytest.raises(Refused):
        read(json.dumps(found, sort_keys=True, separators=(",", ":")).encode() + b"\n")


def test_a_strangers_words_are_told_shortly_and_escaped():
    with pytest.raises(Refused) as caught:
        read(DATA.replace(b'"format":1', b'"' + b"\\u001b" * 500 + b'":2,"format":1'))
    assert "\x1b" not in str(caught.value)
    assert max(map(len, str(caught.value).splitlines())) < 2000
    assert shown("a\x07b") == "a\\x07b"
    assert len(shown("x" * 1000)) == 201


@dataclass(frozen=True)
class Bare:
    """A record without a number of its own."""

    name: str
    more: dict[str, Any] = field(default_factory=dict)


def test_a_record_may_be_numbered_by_another():
    assert loads(dumps(Bare("x")), Bare, where="x", limit=100, formats=None) == Bare("x")
    with pytest.raises(Refused, match="format None"):
        loads(dumps(Bare("x")), Bare, where="x", limit=100)
    assert loads(dumps(replace(MANIFEST, format=2)), Manifest, where="x", limit=9999, formats=(1, 2)).format == 2


def test_numbers_that_are_not_finite_are_not_written():
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps({"x": float("nan")})
