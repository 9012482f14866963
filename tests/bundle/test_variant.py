"""Which files of a run go into a bundle, under which names, and what is demanded of golden outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haversack.base.candidate import ArtifactFile
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.bundle.variant import encodings, exact, misfit, pieces, unbundled


def test_files_are_named_by_their_runtime(left):
    one = left("litert")
    found = {piece.name: piece for piece in pieces(one)}
    assert {name: piece.role for name, piece in found.items()} == {
        "litert.tflite": "model", "litert.json": "artifact", "litert.golden.npz": "golden"
    }  # fmt: skip
    assert all(piece.target == "litert" for piece in found.values())
    assert found["litert.tflite"].content == one.folder / "model.tflite"


def test_weights_beside_a_model_keep_their_name_which_stands_in_the_model(left):
    one = left("onnxruntime")
    files = (replace(one.artifact.files[0], path="model.onnx"), ArtifactFile("model.onnx.data", 9, 9, "0" * 64))
    found = list(pieces(replace(one, artifact=replace(one.artifact, files=files))))
    assert [(piece.name, piece.role) for piece in found[:2]] == [
        ("onnxruntime.onnx", "model"),
        ("model.onnx.data", "data"),
    ]
    assert found[1].content == one.folder / "model.onnx.data"


def test_a_device_is_told_the_layouts_of_the_interface_alone(left):
    from haversack.base.candidate import Artifact
    from haversack.tools.trust import canonical

    one = left("litert")
    layouts = {"x": "NHWC", "fc:linear#0:out": "NHWC"}
    told = next(
        piece
        for piece in pieces(replace(one, artifact=replace(one.artifact, layouts=layouts)))
        if piece.role == "artifact"
    )
    found = canonical.loads(told.content, Artifact, where="x", limit=1 << 20, formats=None)
    assert found.layouts == {"x": "NHWC"}
    assert found.inputs == one.artifact.inputs


def test_encodings_are_one_file_where_runtimes_have_the_same_numbers(left):
    lefts = [left("litert"), left("second")]
    assert [(piece.name, piece.target) for piece in encodings(lefts)] == [("encodings.safetensors", "")]
    lefts[1] = replace(lefts[1], encodings=("encodings.safetensors", "1" * 64))
    assert [(piece.name, piece.target) for piece in encodings(lefts)] == [
        ("litert.encodings.safetensors", "litert"), ("second.encodings.safetensors", "second")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "names, runs_here, said",
    [
        (["model.tflite"], True, ""),
        (["model.onnx", "model.onnx.data"], True, ""),
        (["model.onnx"], False, "not run"),
        (["model.mlpackage"], True, "of another kind"),
        (["model.param", "model.bin"], True, "of another kind"),
        (["model.onnx", "data/weights.bin"], True, "data/weights.bin beside its model"),
        ([], True, "of another kind"),
    ],
)
def test_what_has_no_place_in_a_bundle(names, runs_here, said):
    found = unbundled(names, runs_here=runs_here)
    assert said in found
    assert bool(found) == bool(said)


def port(*shape, dtype="float32"):
    return Port("y", TensorSpec(shape, dtype))


@pytest.mark.parametrize(
    "outputs, fits",
    [
        ((port("batch", 3),), True),
        ((port("batch", 4),), False),
        ((port(1, 4), port(1, 3)), True),
        ((port("batch", 3, 32, 32),), True),
        ((port("batch", 32, 32, 4),), False),
        ((port("batch", "length", 4),), True),
        ((port("batch", 1, dtype="int64"),), True),
        ((port(3, 4),), False),
    ],
)
def test_labels_are_as_many_as_classes(left, outputs, fits):
    artifact = replace(left("litert").artifact, outputs=outputs)
    found = misfit(["a", "b", "c"], {"litert": artifact})
    assert (not found) == fits
    if not fits:
        assert "there are 3 labels, and a sample's outputs have the shape" in found[0].cause


def test_codes_have_classes_too(left):
    artifact = replace(left("litert").artifact, outputs=(port(1, 4, dtype="int8"),), grids={"y": (0.5, 0)})
    assert misfit(["a", "b", "c"], {"litert": artifact})


@pytest.mark.parametrize(
    "findings, whole, differing, compared, demanded",
    [
        ((), True, 0, 512, True),
        (("slower-than-float", "noisy"), True, 0, 512, True),
        ((), False, 0, 512, False),
        ((), True, 1, 512, False),
        ((), True, 0, 0, False),
        ((), True, -1, 0, False),
        (("float-rounding",), True, 0, 512, False),
        (("joined-in-float",), True, 0, 512, False),
        (("nondeterministic",), True, 0, 512, False),
    ],
)
def test_when_every_bit_counts(findings, whole, differing, compared, demanded):
    assert exact(findings, whole=whole, differing=differing, compared=compared) == demanded
