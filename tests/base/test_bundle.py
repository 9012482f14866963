"""The manifest of a bundle: what it demands of itself, so that no reader has to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.bundle import FOLDER, LIMITS, NAME, OPERATIONS, BundleFile, Manifest, Variant
from haversack.base.labels import from_bytes, to_bytes, typed
from haversack.tools.data.preprocess import SHELF

SHA = "ab" * 32
MODEL = BundleFile("litert.tflite", "model", 5, SHA, "litert")
TOLD = BundleFile("litert.json", "artifact", 5, SHA, "litert")
CODES = BundleFile("encodings.safetensors", "encodings", 5, SHA)
LABELS = BundleFile("labels.txt", "labels", 5, SHA)
OTHERS = (BundleFile("onnxruntime.json", "artifact", 5, SHA, "onnxruntime"),)
OTHERS += (BundleFile("onnxruntime.onnx", "model", 5, SHA, "onnxruntime"),)
BOTH = Manifest(
    1, "digits", "1.3.0", (CODES, LABELS, TOLD, MODEL, *OTHERS), (Variant("litert"), Variant("onnxruntime"))
)


def test_a_device_needs_its_own_files_and_those_of_all_without_encodings():
    assert BOTH.of("litert") == (LABELS, TOLD, MODEL)
    assert BOTH.of("onnxruntime") == (LABELS, *OTHERS)
    assert BOTH.file("litert", "model") == MODEL
    assert BOTH.file("litert", "labels") == BOTH.file("onnxruntime", "labels") == LABELS
    assert BOTH.file("litert", "encodings") is None
    assert BOTH.file("litert", "golden") is None


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "../a.json", "a/b.json", "/a.json", "A.json", ".a.json", "a", "a.exe", "a.pkl", "a.json\n",
     "a..json", "a.b.c.d.json", "a\0.json", "ä.json", "a.json ", "con/../a.json", "a\\b.json", "", f"{'a' * 64}.json"],
)  # fmt: skip
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="no name of a file"):
        BundleFile(name, "artifact", 1, SHA, "litert")


@given(st.text(max_size=12))
def test_a_name_is_flat_and_of_small_letters(text):
    if NAME.fullmatch(text):
        assert text == text.lower()
        assert text.isascii()
        assert not {"/", "\\", "\0", " "} & set(text)
        assert ".." not in text
        assert not text.startswith(".")


@pytest.mark.parametrize(
    "file",
    [
        ("a.json", "artifact", -1, SHA, "litert"),
        ("a.json", "artifact", 1, SHA.upper(), "litert"),
        ("a.json", "artifact", 1, SHA + "\n", "litert"),
        ("a.json", "model", 1, SHA, "litert"),
        ("a.onnx", "data", 1, SHA, "litert"),
        ("a.npz", "labels", 1, SHA),
        ("a.json", "artifact", 1, SHA),
        ("a.txt", "labels", 1, SHA, "litert"),
        ("a.json", "artifact", LIMITS["artifact"] + 1, SHA, "litert"),
        ("a.onnx", "model", 1 << 41, SHA, "litert"),
        ("a.onnx", "model", 10**400, SHA, "litert"),
    ],
)
def test_files_that_are_none(file):
    with pytest.raises(ValueError, match=r"\w"):
        BundleFile(*file)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"name": "Digits"}, "no name and version"),
        ({"name": "a_b"}, "no name and version"),
        ({"version": "1.3"}, "no name and version"),
        ({"version": "01.3.0"}, "no name and version"),
        ({"version": "1.3.0-" + "x" * 21}, "no name and version"),
        ({"files": (MODEL, TOLD), "variants": (Variant("litert"),)}, "not ordered by name"),
        ({"files": (TOLD, MODEL, MODEL), "variants": (Variant("litert"),)}, "not ordered by name"),
        ({"variants": ()}, "not ordered by target"),
        ({"variants": (Variant("onnxruntime"), Variant("litert"))}, "not ordered by target"),
        ({"variants": (Variant("litert"),)}, "'onnxruntime', which is no variant"),
        ({"files": (TOLD,), "variants": (Variant("litert"),)}, "not one model and one artifact"),
        ({"files": (MODEL,), "variants": (Variant("litert"),)}, "not one model and one artifact"),
        ({"files": (*BOTH.files, BundleFile("z.txt", "labels", 1, SHA))}, "2 files of the role labels"),
        ({"metric": ("\x1b[2J", "")}, "metric's name"),
        ({"metric": ("a" * 201, "")}, "metric's name"),
    ],
)
def test_sets_that_are_not_closed(changed, said):
    with pytest.raises(ValueError, match=said):
        replace(BOTH, **changed)


def test_encodings_of_all_and_of_one_are_one_too_many():
    more = BundleFile("litert.encodings.safetensors", "encodings", 1, SHA, "litert")
    with pytest.raises(ValueError, match="the variant litert has 2 files of the role encodings"):
        replace(BOTH, files=tuple(sorted((*BOTH.files, more), key=lambda file: file.name)))
    alone = tuple(file for file in BOTH.files if file is not CODES)
    assert replace(BOTH, files=tuple(sorted((*alone, more), key=lambda file: file.name))).of("litert") == BOTH.of(
        "litert"
    )


@pytest.mark.parametrize(
    "variant",
    [
        {"target": "module:attribute"},
        {"target": "../x"},
        {"target": ""},
        {"tolerance": float("nan")},
        {"tolerance": -1.0},
        {"quality": {"value": float("inf")}},
        {"quality": {"speed": 1.0}},
        {"runtime_version": "\r2.0"},
        {"cpu_features": ("avx2\n",)},
    ],
)
def test_variants_that_are_none(variant):
    with pytest.raises(ValueError, match=r"\w"):
        Variant(**{"target": "litert", **variant})


@pytest.mark.parametrize(
    "folder, found",
    [
        ("digits-1.3.0.haversack", ("digits", "1.3.0")),
        ("a-b-2-0.0.1.haversack", ("a-b-2", "0.0.1")),
        ("digits-1.3.0-rc.1.haversack", ("digits", "1.3.0-rc.1")),
        ("digits.haversack", None),
        ("digits-1.3.haversack", None),
        ("Digits-1.3.0.haversack", None),
        ("digits-1.3.0", None),
    ],
)
def test_what_a_folder_is_called_tells_name_and_version(folder, found):
    match = FOLDER.fullmatch(folder)
    assert (match and (match["name"], match["version"])) == found


def test_what_a_device_can_do_is_on_the_shelf_and_draws_no_random_numbers():
    assert set(SHELF.files()) - OPERATIONS == {"noise", "missing_frames"}
    assert set(SHELF.files()) >= OPERATIONS


PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@given(st.lists(PRINTABLE, min_size=1, max_size=20))
def test_labels_are_read_as_they_were_written(labels):
    assert from_bytes(to_bytes(labels)) == typed(to_bytes(labels)) == tuple(labels)


@pytest.mark.parametrize(
    "data",
    [b"", b"one", b"one\n\n", b"\n", b"one\r\n", b" one\n", b"a\tb\n", b"\xff\n", b"\x1b[2J\n", b"x" * 201 + b"\n"],
)
def test_what_no_labels_are(data):
    with pytest.raises(ValueError, match=r"\w"):
        from_bytes(data)


def test_typed_labels_may_end_as_on_other_systems():
    assert typed("\ufeffone\r\ntwo \r\n\r\n".encode()) == ("one", "two")
    with pytest.raises(ValueError, match="label 2"):
        typed(b"one\n\ntwo\n")
    with pytest.raises(ValueError, match="none"):
        typed(b"\n\n")
