"""Planted faults: one number of a written file is changed, and the key it belongs to is told."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest

from haversack.base.errors import VerificationError
from haversack.targets.executorch import ExecuTorch, parse
from haversack.tools.formats.flat import root
from haversack.tools.graph.injection import derived, differences
from haversack.verify.location import locate

TARGET = ExecuTorch()
LAYOUTS = {"Conv2d": (0, 2, 3, 1), "DepthwiseConv2d": (1, 2, 3, 0)}


class File:
    """A written file, its copy, and where its layers stand."""

    def __init__(self, made, path):
        self.model, self.sample, self.encodings, self.artifact, source = made
        self.path, self.data = path, source.read_bytes()
        (self.delegate,) = parse.parse(source).delegates
        self.owners = {int(place.partition("/")[2]): key for place, key in parse.parse(source).about["layers"].items()}
        self.path.write_bytes(self.data)

    def step(self, key):
        """Return the node of a layer."""
        kinds = ("Conv2d", "DepthwiseConv2d", "FullyConnected")
        steps = enumerate(self.delegate.steps)
        (found,) = [step for index, step in steps if self.owners.get(index) == key and step.kind in kinds]
        return found

    def plant(self, old, new, count=1):
        """Replace bytes; they stand in the file as often as is said."""
        assert self.data.count(old) == count
        self.path.write_bytes(self.data.replace(old, new))

    def biases(self):
        return derived(self.model, self.encodings, TARGET.constraints(self.model.graph).integer_ops)

    def located(self):
        return locate(self.model, self.encodings, TARGET.read(self.path, self.artifact), self.sample)


@pytest.fixture(params=["resnet", "padded"])
def file(request, lowered, tmp_path):
    return File(lowered(request.param), tmp_path / "model.pte")


def layers(file):
    return [key for key in file.artifact.bias_digests if f"{key}:weight" in file.encodings.integers]


def test_nothing_planted_nothing_found(file):
    assert file.located() is None
    assert differences(file.encodings, TARGET.read(file.path, file.artifact))[1] == ()


def test_one_scale_doubled(file):
    """Every activation in turn: what shares an encoding by a tie is told at the first tensor in order."""
    for key in file.artifact.tensor_names:
        scale = file.encodings.affine(key).scale
        count = file.data.count(scale.tobytes())
        file.plant(scale.tobytes(), (scale * np.float32(2)).tobytes(), count)
        found = file.located()
        assert found.kind == "scale-changed"
        told = file.encodings.affine(found.layer).scale
        assert told == scale, f"{key} was changed, {found.layer} told"
        assert "instead of" in found.text


def zero_points(file):
    """Yield (tensor key, position of its zero-point in the file), where the file does not leave a zero out."""
    blob = file.data.index(b"XH00") - 4
    start, size = (int.from_bytes(file.data[blob + at : blob + at + 4], "little") for at in (10, 14))
    values = root(file.data[blob + start : blob + start + size], b"XN01").tables(2)
    for key, name in file.artifact.tensor_names.items():
        at = values[parse.place(name)[1]].table(1).table(2)._slot(1)
        if at:
            yield key, blob + start + at


def test_one_zero_point_moved(file):
    places = list(zero_points(file))
    told = 0
    for key, at in places:
        before = int(file.encodings.affine(key).zero_point) - 128
        assert struct.unpack_from("<i", file.data, at) == (before,)
        moved = before + (1 if before < 127 else -1)
        file.path.write_bytes(file.data[:at] + struct.pack("<i", moved) + file.data[at + 4 :])
        try:
            _, faults = differences(file.encodings, TARGET.read(file.path, file.artifact))
        except VerificationError as error:  # other codes on the way have the old encoding: they are strays now
            assert {fault.cause for fault in error.faults} == {"codes that were not asked for"}
            continue
        assert key in {fault.where for fault in faults}
        found = file.located()
        assert found.kind == "scale-changed"
        assert f"zero-point [{moved + 128}]" in found.text
        told += 1
    assert told >= 1


def test_one_weight_flipped_in_every_layer(file):
    rng = np.random.default_rng(0)
    for key in layers(file):
        constant = bytes(file.delegate.constants[file.delegate.values[file.step(key).filter].constant])
        changed = bytearray(constant)
        at = int(rng.integers(0, len(changed)))
        changed[at] = (changed[at] ^ 1) if changed[at] not in (0x80, 0x81) else 0
        file.plant(constant, bytes(changed))
        found = file.located()
        assert (found.kind, found.layer) == ("weight-changed", f"{key}:weight")
        assert "1 of" in found.text


def test_the_place_of_a_flipped_weight_is_the_models(file):
    """Codes lie channels last in the file; the index told is the one of the model's weight."""
    key = next(key for key in layers(file) if file.step(key).kind in LAYOUTS)
    constant = bytearray(file.delegate.constants[file.delegate.values[file.step(key).filter].constant])
    codes = file.encodings.integers[f"{key}:weight"]
    where = tuple(size - 1 for size in codes.shape)
    turned = np.zeros(codes.shape, np.int8)
    turned[where] = 1
    at = int(turned.transpose(LAYOUTS[file.step(key).kind]).argmax())
    assert np.int8(constant[at].to_bytes(1, "little")[0] - 256 * (constant[at] > 127)) == codes[where]
    changed = bytes(constant[:at]) + bytes([5 if constant[at] != 5 else 6]) + bytes(constant[at + 1 :])
    file.plant(bytes(constant), changed)
    assert f"the first at {list(where)}" in file.located().text


def test_one_scale_of_one_channel_changed(file):
    for key in layers(file):
        scale = file.encodings.tensors[f"{key}:weight"].scale
        changed = scale.copy()
        changed[-1] *= np.float32(1.5)
        file.plant(scale.tobytes(), changed.tobytes())
        found = file.located()
        assert (found.kind, found.layer) == ("scale-changed", f"{key}:weight")


def test_one_bias_changed_in_every_layer(file):
    for key, (codes, _) in file.biases().items():
        if file.data.count(codes.tobytes()) != 1:
            continue
        changed = codes.copy()
        changed[0] += 1
        file.plant(codes.tobytes(), changed.tobytes())
        with pytest.raises(VerificationError, match="biases are not those") as caught:
            TARGET.read(file.path, file.artifact)
        assert [fault.where for fault in caught.value.faults] == [key]


def test_the_scale_of_a_bias_changed(file):
    for key, (_, scale) in file.biases().items():
        file.plant(scale.tobytes(), (scale * np.float32(2)).tobytes())
        with pytest.raises(VerificationError) as caught:
            TARGET.read(file.path, file.artifact)
        assert [fault.where for fault in caught.value.faults] == [key]


def test_two_layers_that_have_changed_places(file):
    """The owners that the file tells are swapped: integers then stand under the other's key, in the other's shape."""
    pairs = itertools.combinations(layers(file), 2)
    one, two = next(pair for pair in pairs if len(pair[0]) == len(pair[1]))
    data = file.data.replace(one.encode(), b"?" * len(one)).replace(two.encode(), one.encode())
    file.path.write_bytes(data.replace(b"?" * len(one), two.encode()))
    with pytest.raises(VerificationError, match="biases are not those"):
        TARGET.read(file.path, file.artifact)
