"""Two bundles compared: files that travel, layers that changed, and by how much."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from haversack.base.encodings import Affine, Codebook, Encodings, Float
from haversack.bundle.changes import LayerChange, compare
from haversack.bundle.contents import of
from haversack.bundle.variant import Piece

CODES = np.arange(-3, 5, dtype=np.int32).reshape(2, 4)
KEY = "fc:linear#0"


def affine(scale=0.5, *, bits=8, signed=True, zero=0):
    return Affine(bits, signed, None, np.array(scale, np.float32), np.array(zero, np.int32))


def encoded(codes=CODES, weight=None, out=None, **more):
    tensors = {f"{KEY}:weight": weight or affine(), f"{KEY}:out": out or affine(0.1, signed=False, zero=3), **more}
    integers = {} if codes is None else {f"{KEY}:weight": np.asarray(codes, np.int32)}
    return Encodings(tensors, integers)


@pytest.fixture
def changed(made):
    """A function that returns what changed between a bundle and one with other encodings."""

    def between(encodings, content=b"\x1c\0\0\0TFL3" + bytes(41)):
        old = made("old", encodings=encoded())
        return compare(old, made("new", encodings=encodings, content=content))

    return between


def test_a_bundle_and_itself(made):
    found = compare(made(), made())
    assert found.same
    assert found.travels("litert") == 0
    assert found.layers == {"": ()}
    assert found.unchanged == {"": 1}
    assert found.lines()[-1] == "they are the same, byte for byte"


def test_integers_that_moved(changed):
    codes = CODES.copy()
    codes[0, 0] += 2
    codes[1, 3] -= 5
    (layer,) = changed(encoded(codes)).layers[""]
    assert (layer.layer, layer.how, layer.integers, layer.changed, layer.step) == (KEY, "changed", 8, 2, 5)
    assert layer.weight == pytest.approx(np.sqrt(4 + 25) / np.linalg.norm(CODES))
    assert layer.scale == 0
    assert "weight moved by" in layer.told()
    assert "2 of 8 integers, by up to 5" in layer.told()


def test_scales_that_moved(changed):
    (layer,) = changed(encoded(weight=affine(0.6))).layers[""]
    assert (layer.changed, layer.text) == (0, "")
    assert layer.weight == pytest.approx(0.2, rel=1e-6)
    assert layer.scale == pytest.approx(0.2, rel=1e-6)


def test_a_scale_of_what_a_layer_leaves(changed):
    (layer,) = changed(encoded(out=affine(0.05, signed=False, zero=3))).layers[""]
    assert layer.weight == 0
    assert layer.scale == pytest.approx(0.5, rel=1e-6)
    assert layer.told() == f"{KEY}: weight moved by 0.00%; a scale by 50.00%"


@pytest.mark.parametrize(
    "encodings, text",
    [
        (encoded(weight=affine(bits=4)), "weight: bits 4 instead of 8"),
        (encoded(out=affine(0.1, signed=False, zero=4)), "out: another zero-point"),
        (encoded(None, Float("float16")), "weight: Float instead of Affine; weight: of another shape"),
        (encoded(CODES + 3, Codebook(3, np.arange(8, dtype=np.float32))), "weight: Codebook instead of Affine"),
        (encoded(CODES.reshape(4, 2)), "weight: of another shape"),
    ],
)
def test_what_else_may_be_another(changed, encodings, text):
    (layer,) = changed(encodings).layers[""]
    assert layer.how == "changed"
    assert layer.text.startswith(text)
    assert text in layer.told()


def test_layers_that_came_and_went(changed, made):
    found = changed(encoded(**{"head:linear#0:out": affine()}))
    assert found.layers[""] == (LayerChange("head:linear#0", "new"),)
    assert found.unchanged == {"": 1}
    back = compare(made("newer", encodings=encoded(**{"head:linear#0:out": affine()})), made("older"))
    assert back.layers[""][0].told() == "head:linear#0: gone"


def test_files_that_travel_and_those_that_stay(made):
    labels = Piece("labels.txt", "labels", b"a\nb\n")
    old = made("old", more=(labels,))
    new = made("new", content=b"\x1c\0\0\0TFL3" + bytes(41), more=(Piece("licence.txt", "licence", b"free\n"),))
    found = compare(old, new)
    how = {file.name: (file.how, file.travels > 0) for file in found.files}
    assert how == {
        "encodings.safetensors": ("same", False),
        "labels.txt": ("gone", False),
        "licence.txt": ("new", True),
        "litert.golden.npz": ("same", False),
        "litert.json": ("changed", True),
        "litert.tflite": ("changed", True),
        "second.golden.npz": ("same", False),
        "second.json": ("changed", True),
        "second.tflite": ("changed", True),
    }
    travels = {file.name: file.travels for file in found.files}
    assert travels["litert.tflite"] == 9, "as it was measured when it was made"
    assert found.travels("litert") == sum(travels[name] for name in ("licence.txt", "litert.json", "litert.tflite"))
    assert found.targets == ("litert", "second")
    assert "gone     labels.txt" in "\n".join(found.lines())
    assert "litert.golden.npz" not in "\n".join(found.lines())


def test_a_file_that_a_device_has_under_another_name_does_not_travel(made):
    old = made("old", more=(Piece("labels.txt", "labels", b"a\nb\n"),))
    new = made("new", more=(Piece("licence.txt", "licence", b"a\nb\n"),))
    assert {file.name: file.travels for file in compare(old, new).files}["licence.txt"] == 0


def test_what_a_variant_asks_of_a_device_is_told_where_it_is_more(made):
    """An update that needs a newer runtime leaves devices behind, and no file's name says so."""
    old, new = made("old"), made("new")
    assert compare(old, new).demands == {}
    first, second = new.manifest.variants
    raised = replace(first, runtime_version="9.1", cpu_features=("avx512_vnni",))
    new = replace(new, manifest=replace(new.manifest, variants=(raised, second)), sha256="0" * 64)
    found = compare(old, new)
    needs = ("litert 2.0", "litert 9.1 with avx512_vnni")
    assert found.demands == {"litert": needs}
    assert "litert: needs litert 9.1 with avx512_vnni, where the old one needs litert 2.0" in found.lines()
    assert found.data()["demands"] == {"litert": {"old": needs[0], "new": needs[1]}}


def test_it_is_told_as_json(changed):
    data = json.loads(json.dumps(changed(encoded(CODES + 1)).data(), allow_nan=False))
    assert data["old"]["version"] == data["new"]["version"] == "1.0.0"
    assert data["layers"][""][0]["changed"] == 8
    assert data["unchanged_layers"] == {"": 0}
    assert data["same"] is False


def test_contents_of_a_bundle(made):
    licence = Piece("licence.txt", "licence", b"\n  Apache License\nVersion 2.0\n")
    found = of(made(more=(Piece("labels.txt", "labels", b"a\nb\n"), licence)), {"litert": 4})
    assert found.licences == {"licence.txt": "Apache License"}
    assert found.travels["encodings.safetensors"] == 0
    assert found.fetched("litert") == sum(
        bytes_ for name, bytes_ in found.travels.items() if not name.startswith("second") and "encodings" not in name
    )
    text = "\n".join(found.lines())
    assert "digits 1.0.0" in text
    assert "litert 2.0: 4 golden vectors, bit for bit on any processor" in text
    assert "second 2.0: no golden vectors" in text
    assert "2 labels: a, b" in text
    data = json.loads(json.dumps(found.data()))
    assert data["targets"]["litert"]["golden_vectors"] == 4
    assert data["files"][0]["name"] == "encodings.safetensors"
