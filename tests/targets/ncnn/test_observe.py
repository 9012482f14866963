"""Looking into open files: tensors are those of the reference, layers have times, detours are told."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError, UsageError
from haversack.targets.ncnn.observe import layer_seconds, tensors
from haversack.targets.reference import Reference


@pytest.fixture(scope="module")
def residual(lowered, zoo):
    return lowered("residual"), zoo["residual"][1]


def meant(one, sample):
    """Return tensor key -> its values as the reference computes them."""
    found = {}
    Reference(arithmetic="symmetric").run(
        one.model, one.encodings, sample, observe=lambda key, v: found.update({key: v})
    )
    return found


def test_tensors_are_the_codes_of_the_reference(residual):
    one, sample = residual
    found = one.target.tensors(one.path, one.artifact, sample, list(one.artifact.tensor_names))
    wanted = meant(one, sample)
    assert len(found) > 6
    for key, codes in found.items():
        encoding = one.encodings.affine(key)
        values = np.asarray(wanted[key.removesuffix(":out")] if key not in wanted else wanted[key])
        assert codes.dtype == np.uint8
        np.testing.assert_array_equal(codes, np.rint(values / encoding.scale).astype(int) + 128)


def test_asking_for_some_gives_some(residual):
    one, sample = residual
    assert one.target.tensors(one.path, one.artifact, sample, []) == {}
    found = one.target.tensors(one.path, one.artifact, sample, [":add#0:out", "nobody:add#0:out"])
    assert set(found) == {":add#0:out"}
    assert found[":add#0:out"].shape[0] == len(sample[0])


def test_looking_changes_nothing(residual):
    one, sample = residual
    before = one.file(*sample)[0]
    one.target.tensors(one.path, one.artifact, sample, list(one.artifact.tensor_names))
    np.testing.assert_array_equal(one.file(*sample)[0], before)


def test_float_tensors_are_floats(exported, picture, lower):
    import torch
    from torch import nn

    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 2, 1))
    x = picture(1, 2, 3, 6, 6)
    one = lower(exported(net, x), Encodings.none())
    found = one.target.tensors(one.path, one.artifact, (x,), ["1:sigmoid#0:out"])["1:sigmoid#0:out"]
    with torch.no_grad():
        np.testing.assert_allclose(found, net[:2](torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["residual", "moves", "line", "clamped"])
def test_every_layer_has_a_time(lowered, zoo, name):
    one, (model, sample) = lowered(name), zoo[name]
    found = one.target.layer_seconds(one.path, one.artifact, sample, 2)
    layers = {node.key for node in model.graph.nodes if node.weight}
    assert layers <= set(found) <= {node.key for node in model.graph.nodes}
    assert all(0 < seconds < 1 for key, seconds in found.items() if key in layers)


def test_a_layer_that_ncnn_refuses_is_told(lowered, zoo, tmp_path):
    import shutil

    from haversack.targets.ncnn.read import beside

    one = lowered("line")
    path = tmp_path / "model.param"
    shutil.copyfile(beside(one.path), beside(path))
    text = one.path.read_text()
    assert "Permute :permute#0 1 1 :relu#0:out/whole :permute#0:out/whole 0=1" in text
    path.write_text(text.replace(":permute#0:out/whole 0=1", ":permute#0:out/whole 0=77"))
    with pytest.raises(ConversionError, match="ncnn does not open it"):
        layer_seconds(path, {one.model.inputs[0].name: zoo["line"][1][0]}, 1)


def test_a_blob_that_is_not_there_is_told(residual):
    one, sample = residual
    with pytest.raises(UsageError, match="ncnn does not compute gone"):
        tensors(one.path, {"any": "gone"}, {one.model.inputs[0].name: sample[0]})


def test_fallbacks_are_what_passes_as_whole_numbers(lowered):
    one = lowered("residual")
    found = one.target.findings(one.path, one.artifact)
    assert [fault.layer for fault in found] == ["wise:conv2d#0", ":add#0", ":mean#0"]
    assert all("no exact int8 kernel" in fault.text for fault in found)
    assert one.target.unfused(one.path, one.artifact) == ()
    stored = lowered("residual", "int8_weights")
    assert stored.target.findings(stored.path, stored.artifact) == ()
    assert not any(
        isinstance(encoding, Affine) for key, encoding in stored.encodings.tensors.items() if key.endswith(":out")
    )
