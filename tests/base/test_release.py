"""A release and its blobs: what cannot be fetched is refused when the record is made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack.base.release import MOST_DELTAS, Blob, Encryption, Release, ReleaseFile

SHA, OTHER = "ab" * 32, "cd" * 32
WHOLE, DELTA = Blob(SHA, 10, "download"), Blob(OTHER, 3, "hvd1", base=SHA)
MANIFEST = ReleaseFile("manifest.json", "manifest", 5, SHA, (Blob(SHA, 5, "plain"),))
MODEL = ReleaseFile("litert.tflite", "model", 20, SHA, (WHOLE, DELTA), "litert")
RELEASE = Release(1, "digits", "1.3.0", 7, (MODEL, MANIFEST))


def test_a_blob_lies_under_its_digest():
    assert WHOLE.path == "blobs/ab/" + "ab" * 31


@pytest.mark.parametrize(
    "blob",
    [
        ("AB" * 32, 1, "plain"),
        (SHA, -1, "plain"),
        (SHA, 10**400, "plain"),  # no float holds it, and a forecast of seconds is one
        (SHA, 1, "hvd1"),
        (SHA, 1, "bsdiff", "short"),
        (SHA, 1, "plain", OTHER),
        (SHA, 1, "download", "short"),
    ],
)
def test_what_no_blob_is(blob):
    with pytest.raises(ValueError, match="a blob"):
        Blob(*blob)


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "../litert.tflite"},
        {"bytes": -1},
        {"bytes": (1 << 40) + 1},
        {"sha256": "x"},
        {"blobs": ()},
        {"blobs": (DELTA,)},
        {"blobs": (WHOLE, WHOLE)},
        {"blobs": (WHOLE, *[DELTA] * (MOST_DELTAS + 1))},
    ],
)
def test_files_that_cannot_be_fetched(changed):
    with pytest.raises(ValueError, match=r"is no file|not the whole file"):
        replace(MODEL, **changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"line": "a/b"},
        {"version": "1"},
        {"sequence": 0},
        {"sequence": 1 << 53},
        {"files": (MANIFEST, MODEL)},
        {"files": (MODEL,)},
        {"files": (MODEL, MODEL, MANIFEST)},
    ],
)
def test_releases_that_are_none(changed):
    with pytest.raises(ValueError, match=r"names no release|not ordered by name"):
        replace(RELEASE, **changed)


def test_a_device_fetches_its_own_files_and_those_of_all():
    codes = ReleaseFile("encodings.safetensors", "encodings", 5, SHA, (WHOLE,))
    other = ReleaseFile("onnxruntime.onnx", "model", 5, SHA, (WHOLE,), "onnxruntime")
    release = replace(RELEASE, files=(codes, MODEL, MANIFEST, other), encryption=Encryption("aes-256-gcm-stream", SHA))
    assert release.of("litert") == (MODEL, MANIFEST)
    assert release.of("onnxruntime") == (MANIFEST, other)
