"""Packages of small networks: what they hold, what they compute, and that Apple's own reader takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from haversack.base.encodings import Affine, Codebook, Encodings, Float
from haversack.base.errors import ConversionError
from haversack.targets.coreml import CoreML
from haversack.targets.coreml.protos import messages
from haversack.targets.reference import Reference
from haversack.tools.graph.execute import Executor
from haversack.tools.graph.injection import count, differences
from haversack.tools.numerics import affine

PLANS = {
    "float16": ("float16", {}),
    "int8_weights": ("int8_weights", {}),
    "palette of 64": ("palette", {"bits": 6}),
    "palette of 4": ("palette", {"bits": 2}),
}
KINDS = {"float16": Float, "int8_weights": Affine, "palette": Codebook}


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).normal(size=(1, 3, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def sentence():
    ids = np.zeros((1, 128), np.int32)
    mask = np.zeros((1, 128), np.int32)
    ids[0, :7], mask[0, :7] = np.arange(7) * 3, 1
    return ids, mask


@pytest.mark.parametrize("name", PLANS)
def test_every_number_is_read_back_and_means_what_the_reference_says(mobile, stored, lowered, image, name):
    precision, settings = PLANS[name]
    made = lowered(mobile, stored(mobile, precision, **settings))
    assert {type(one) for one in made.encodings.tensors.values()} == {KINDS[precision]}
    assert made.artifact.injected == made.artifact.read_back == count(made.encodings) > 6
    assert differences(made.encodings, made.read()) == (count(made.encodings), ())
    (found,) = made.run(image)
    (wanted,) = Reference().run(mobile, made.encodings, (image,))
    (exact,) = Executor(mobile).run((image,))
    assert found.dtype == np.float32
    # Biases and norms are float16 numbers there: the rest of the difference to float is the weights'.
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert np.abs(found - exact).max() > 0


def test_the_float_file_is_float32_and_computes_what_pytorch_does(mobile, lowered, image):
    made = lowered(mobile, Encodings.none())
    np.testing.assert_allclose(made.run(image)[0], Executor(mobile).run((image,))[0], rtol=1e-4, atol=1e-5)
    model = messages().Model_pb2.Model.FromString(made.path.read_bytes())
    types = {output.type.tensorType.dataType for one in operations(model) for output in one.outputs}
    assert messages().MIL_pb2.DataType.Value("FLOAT16") not in types


def test_words_of_a_fixed_length_with_a_mask(words, stored, lowered, sentence):
    made = lowered(words, stored(words, "int8_weights"))
    (found,) = made.run(*sentence)
    (wanted,) = Reference().run(words, made.encodings, tuple(one.astype(np.int64) for one in sentence))
    np.testing.assert_allclose(found, wanted, atol=5e-3)
    (short,) = Reference().run(words, made.encodings, tuple(one[:, :7].astype(np.int64) for one in sentence))
    np.testing.assert_allclose(found, short, atol=5e-3)


def test_a_layer_without_an_encoding_stays_in_float32_between_casts(mobile, stored, lowered, image):
    whole = stored(mobile, "float16")
    key = next(key for key in whole.tensors if "head" in key)
    part = Encodings({name: one for name, one in whole.tensors.items() if name != key})
    made = lowered(mobile, part)
    assert key not in made.read().tensors
    model = messages().Model_pb2.Model.FromString(made.path.read_bytes())
    (linear,) = [one for one in operations(model) if one.type == "linear"]
    assert linear.outputs[0].type.tensorType.dataType == messages().MIL_pb2.DataType.Value("FLOAT32")
    np.testing.assert_allclose(made.run(image)[0], Executor(mobile).run((image,))[0], atol=2e-3)


def operations(model):
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    return block.operations


def test_the_package_is_what_xcode_expects(mobile, stored, lowered):
    made = lowered(mobile, stored(mobile, "int8_weights"))
    manifest = json.loads((made.package / "Manifest.json").read_text())
    entries = manifest["itemInfoEntries"]
    assert {one["path"] for one in entries.values()} == {"com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights"}
    assert entries[manifest["rootModelIdentifier"]]["name"] == "model.mlmodel"
    assert all((made.package / "Data" / one["path"]).exists() for one in entries.values())
    model = messages().Model_pb2.Model.FromString(made.path.read_bytes())
    assert model.specificationVersion == 7
    assert [(one.name, list(one.type.multiArrayType.shape)) for one in model.description.input] == [
        ("image", [1, 3, 12, 12])
    ]
    sizes = {file.path: file.bytes for file in made.artifact.files}
    assert sum(sizes.values()) == made.artifact.bytes
    assert set(sizes) == {
        f"model.mlpackage/{path.relative_to(made.package)}" for path in made.package.rglob("*") if path.is_file()
    }


def test_the_same_model_gives_the_same_bytes_and_other_weights_other_identities(mobile, stored, lowered):
    one, two = (lowered(mobile, stored(mobile, "palette", bits=4)) for _ in range(2))
    other = lowered(mobile, stored(mobile, "palette", bits=6))
    assert [file.sha256 for file in one.artifact.files] == [file.sha256 for file in two.artifact.files]
    assert other.artifact.files[2].sha256 != one.artifact.files[2].sha256


def test_apples_own_reader_infers_the_types_and_shapes_that_the_program_says(mobile, words, stored, lowered):
    packages = [
        lowered(model, stored(model, precision, **settings)).package
        for model, precision, settings in (
            (mobile, "int8_weights", {}),
            (mobile, "palette", {"bits": 4}),
            (words, "int8_weights", {}),
        )
    ]
    command = [sys.executable, str(Path(__file__).with_name("typed_by_apple.py")), *map(str, packages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [line.split(maxsplit=2) for line in done.stdout.splitlines() if line.endswith("}")]
    assert [int(number) > 50 for _, number, _ in answers] == [True] * 3
    assert [wrong for _, _, wrong in answers] == ["{}"] * 3


def test_all_encodings_that_have_no_place_are_told_together(mobile, tmp_path):
    weights = {node.op: f"{node.key}:weight" for node in mobile.graph.nodes if node.weight}
    head, conv = weights["linear"], weights["conv2d"]
    shapes = {key: mobile.weights[mobile.graph.by_key[key.rpartition(":")[0]].weight].shape for key in (head, conv)}
    odd = affine.symmetric(np.full(shapes[head][0], 0.1, np.float32), 8, 0)
    four = affine.symmetric(np.full(shapes[conv][0], 0.5, np.float32), 4, 0)
    image = Affine(8, False, None, np.array(1.0, np.float32), np.array(3, np.int32))
    encodings = Encodings(
        {head: odd, conv: four, "image:input#0:out": image},
        {key: np.zeros(shape, np.int32) for key, shape in shapes.items()},
    )
    with pytest.raises(ConversionError) as caught:
        CoreML().lower(mobile, encodings, tmp_path)
    told = {fault.where: fault.cause for fault in caught.value.faults}
    assert set(told) == {head, conv, "image:input#0:out"}
    assert "no float16 numbers" in told[head]
    assert "symmetric int8" in told[conv]
    assert "without codes" in told["image:input#0:out"]
    assert list(tmp_path.iterdir()) == []


def test_two_ports_of_one_name_there(exported, tmp_path):
    from torch import nn

    model = exported(nn.ReLU(), np.zeros((2, 3), np.float32), names=("relu.0",))
    assert CoreML().refusals(model) == ()
    renamed = exported(nn.ReLU(), np.zeros((2, 3), np.float32), names=("a_b",))
    from dataclasses import replace

    outputs = (replace(renamed.outputs[0], name="a.b"),)
    (fault,) = CoreML().refusals(replace(renamed, outputs=outputs))
    assert "one name" in fault.cause
