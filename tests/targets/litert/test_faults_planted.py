"""Planted faults in files of several kinds: reading says which key they are at."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError, VerificationError
from haversack.targets.litert import LiteRT
from haversack.targets.litert.flat import Quantization, pack
from haversack.targets.litert.unflat import File
from haversack.targets.litert.write import write
from haversack.tools.graph.injection import differences


class Planted:
    """A lowered model whose file can be changed and read again."""

    def __init__(self, model, encodings, folder, target=None):
        self.target = target or LiteRT()
        self.model, self.encodings = model, encodings
        self.artifact = self.target.lower(model, encodings, folder)
        self.path = folder / self.artifact.files[0].path
        self.data = self.path.read_bytes()

    def open(self):
        return File(self.data)

    def told(self, file):
        """Return the places that reading a changed file tells, sorted."""
        path = self.path.with_name("planted.tflite")
        path.write_bytes(pack(file.subgraphs, file.buffers))
        try:
            _, faults = differences(self.encodings, self.target.read(path, self.artifact))
        except VerificationError as error:
            faults = error.faults
        return sorted(fault.where for fault in faults)


@pytest.fixture(scope="module")
def twins(exported):
    """Two convolutions and two linear layers of equal shapes, in a row."""
    import torch
    from torch import nn

    torch.manual_seed(2)
    net = nn.Sequential()
    for name, layer in {
        "first": nn.Conv2d(4, 4, 3, padding=1),
        "one": nn.ReLU(),
        "second": nn.Conv2d(4, 4, 3, padding=1),
        "flat": nn.Flatten(),
        "third": nn.Linear(36, 36),
        "fourth": nn.Linear(36, 36),
    }.items():
        net.add_module(name, layer)
    x = np.random.default_rng(1).normal(size=(3, 4, 3, 3)).astype(np.float32)
    return exported(net, x), x


@pytest.fixture(scope="module")
def planted(twins, encoded, tmp_path_factory):
    model, x = twins
    return Planted(model, encoded(model, [(x,)]), tmp_path_factory.mktemp("planted"))


LAYERS = ("first:conv2d#0", "second:conv2d#0", "third:linear#0", "fourth:linear#0")


def tensor(file, name, graph=0):
    return next(one for one in file.subgraphs[graph].tensors if one.name == name)


def operator(file, key, graph=0):
    """Return the place of the layer that makes a key's output."""
    found = file.subgraphs[graph]
    return next(
        place
        for place, one in enumerate(found.operators)
        if found.tensors[one.outputs[0]].name.startswith(key)
        and file.name(one) in {"CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D"}
    )


def scaled(one, factor, place=None):
    scale = one.quantization.scale.copy()
    scale[slice(None) if place is None else place] *= np.float32(factor)
    one.quantization = Quantization(scale, one.quantization.zero_point, one.quantization.axis)


def flipped(file, one, place, bit):
    data = bytearray(file.buffers[one.buffer])
    data[place] ^= 1 << bit
    file.buffers.append(bytes(data))
    one.buffer = len(file.buffers) - 1


@pytest.mark.parametrize("key", LAYERS)
def test_one_scale_of_a_weight_doubled(planted, key):
    file = planted.open()
    scaled(tensor(file, f"{key}:weight/codes"), 2, place=-1)
    assert planted.told(file) == [f"{key}:weight"]


@pytest.mark.parametrize("bit", [0, 3, 6])
@pytest.mark.parametrize("key", LAYERS)
def test_one_weight_flipped(planted, key, bit):
    file = planted.open()
    flipped(file, tensor(file, f"{key}:weight/codes"), 17, bit)
    assert planted.told(file) == [f"{key}:weight"]


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("key", LAYERS)
def test_one_bias_changed(planted, key, bit):
    file = planted.open()
    flipped(file, tensor(file, f"{key}:bias/codes"), 4, bit)
    assert planted.told(file) == [key]


@pytest.mark.parametrize("factor", [2.0, 0.5, 1 + 2.0**-22])
def test_a_scale_of_any_activation(planted, factor):
    for key, name in planted.artifact.tensor_names.items():
        file = planted.open()
        scaled(tensor(file, name), factor)
        assert key in planted.told(file) or name in planted.told(file)


@pytest.mark.parametrize("shift", [1, -1, 128])
def test_a_zero_point_of_any_activation(planted, shift):
    for key, name in planted.artifact.tensor_names.items():
        file = planted.open()
        one = tensor(file, name)
        one.quantization = Quantization(one.quantization.scale, one.quantization.zero_point + shift)
        told = planted.told(file)
        assert told, key
        assert key in told or name in told


@pytest.mark.parametrize("one, other", [LAYERS[:2], LAYERS[2:]])
def test_weights_of_two_layers_exchanged(planted, one, other):
    """Their tensors keep their names and numbers; only the operators read the other one's."""
    file = planted.open()
    graph = file.subgraphs[0]
    places = [operator(file, key) for key in (one, other)]
    exchange(graph, places, 1)
    assert {f"{one}:weight", f"{other}:weight"} <= set(planted.told(file))


@pytest.mark.parametrize("one, other", [LAYERS[:2], LAYERS[2:]])
def test_biases_of_two_layers_exchanged(planted, one, other):
    file = planted.open()
    exchange(file.subgraphs[0], [operator(file, key) for key in (one, other)], 2)
    assert planted.told(file) == sorted([one, other])


def exchange(graph, places, at):
    import dataclasses

    one, other = (graph.operators[place] for place in places)
    for place, mine, theirs in ((places[0], one, other), (places[1], other, one)):
        inputs = list(mine.inputs)
        inputs[at] = theirs.inputs[at]
        graph.operators[place] = dataclasses.replace(mine, inputs=tuple(inputs))


def test_data_of_two_weights_exchanged(planted):
    file = planted.open()
    one, other = (tensor(file, f"{key}:weight/codes") for key in LAYERS[:2])
    one.buffer, other.buffer = other.buffer, one.buffer
    assert planted.told(file) == [f"{key}:weight" for key in LAYERS[:2]]


def test_names_of_two_activations_exchanged(planted):
    """A file that says the codes of one tensor are another's."""
    names = planted.artifact.tensor_names
    file = planted.open()
    (key, one), (other_key, other) = list(names.items())[-2:]
    first, second = tensor(file, one), tensor(file, other)
    first.name, second.name = other, one
    told = " ".join(planted.told(file))
    assert key.removesuffix(":out") in told
    assert other_key.removesuffix(":out") in told


def test_a_bias_that_is_left_out(planted):
    import dataclasses

    file = planted.open()
    graph = file.subgraphs[0]
    place = operator(file, LAYERS[2])
    graph.operators[place] = dataclasses.replace(
        graph.operators[place], inputs=(*graph.operators[place].inputs[:2], -1)
    )
    assert planted.told(file) == [LAYERS[2]]


def test_a_layer_that_is_left_out(planted):
    """Its output is then made by nobody, and whoever reads it is told."""
    file = planted.open()
    del file.subgraphs[0].operators[operator(file, LAYERS[1])]
    path = planted.path.with_name("without.tflite")
    path.write_bytes(pack(file.subgraphs, file.buffers))
    with pytest.raises(VerificationError, match="made only later"):
        planted.target.read(path, planted.artifact)


@pytest.fixture(scope="module")
def lengths(exported, encoded, tmp_path_factory):
    """A linear layer on any number of rows in int8, with two signatures."""
    import torch
    from torch import nn

    torch.manual_seed(4)
    x = np.random.default_rng(1).normal(size=(3, 5, 6)).astype(np.float32)
    model = exported(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4)), x, free=(0, 1), names=("x",))
    encodings = encoded(model, [(x,)])
    return Planted(model, encodings, tmp_path_factory.mktemp("lengths"), LiteRT(lengths=(4, 8)))


@pytest.mark.parametrize("graph", [0, 1])
def test_a_bias_of_one_signature(lengths, graph):
    """Each signature has tensors of its own over shared data: a file may lie in the second only."""
    file = lengths.open()
    flipped(file, tensor(file, "0:linear#0:bias/codes", graph), 4, 2)
    assert lengths.told(file) != []


@pytest.mark.parametrize("graph", [0, 1])
@pytest.mark.parametrize("part", ["weight", "scale", "activation"])
def test_other_parts_of_one_signature(lengths, graph, part):
    file = lengths.open()
    if part == "weight":
        flipped(file, tensor(file, "2:linear#0:weight/codes", graph), 3, 1)
    else:
        name = "2:linear#0:weight/codes" if part == "scale" else lengths.artifact.tensor_names["2:linear#0:out"]
        scaled(tensor(file, name, graph), 2)
    assert lengths.told(file) != []


def test_both_signatures_agree_with_the_reference(lengths):
    from haversack.targets.reference import Reference

    session = lengths.target.open_session(lengths.path)
    for length in (1, 4, 7, 8):
        x = np.random.default_rng(length).normal(size=(2, length, 6)).astype(np.float32)
        (wanted,) = Reference().run(lengths.model, lengths.encodings, (x,))
        (found,) = session.run({"x": x}).values()
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("precision", ["float16", "int8_weights", "int8_dynamic"])
def test_stored_weights_exchanged_or_changed(twins, encoded, tmp_path, precision):
    model, _ = twins
    found = Planted(model, encoded(model, [], precision), tmp_path)
    assert found.told(found.open()) == []
    if precision == "float16":
        return
    file = found.open()
    flipped(file, tensor(file, "third:linear#0:weight/codes"), 5, 1)
    assert found.told(file) == ["third:linear#0:weight"]
    file = found.open()
    scaled(tensor(file, "fourth:linear#0:weight/codes"), 2, 0)
    assert found.told(file) == ["fourth:linear#0:weight"]


@pytest.mark.parametrize("precision", ["float16", "int8_weights"])
def test_layers_with_one_weight(exported, encoded, tmp_path, precision):
    """A layer called twice, and a table called twice: equal data are one tensor, and both keys are read back."""
    import torch
    from torch import nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table, self.layer = nn.Embedding(7, 4), nn.Linear(4, 4)

        def forward(self, one, other):
            return self.layer(torch.relu(self.layer(self.table(one)))) + self.table(other)

    ids = np.arange(6).reshape(2, 3)
    model = exported(Tied(), ids, ids)
    encodings = encoded(model, [], precision)
    assert len([key for key in encodings.tensors if key.endswith(":weight")]) == 4
    found = Planted(model, encodings, tmp_path)
    assert found.artifact.injected == found.artifact.read_back
    assert found.target.read(found.path, found.artifact).digest == encodings.digest


def test_a_float_file_holds_no_encodings(twins, tmp_path):
    found = Planted(twins[0], Encodings.none(), tmp_path)
    assert found.target.read(found.path, found.artifact).tensors == {}


def test_a_file_that_the_runtime_refuses_is_told_by_layer(planted, tmp_path):
    """Not by the path of a draft that is gone."""
    file = planted.open()
    place = operator(file, "second:conv2d#0")
    graph = file.subgraphs[0]
    graph.tensors[graph.operators[place].outputs[0]].type = file.classes.TensorType.INT64
    draft = tmp_path / ".model.tflite.part"
    draft.write_bytes(pack(file.subgraphs, file.buffers))
    keys = tuple(f"layer {index}:conv2d#0" for index in range(len(graph.operators)))
    with pytest.raises(ConversionError, match="does not open") as caught:
        planted.target._opened(draft, "net", keys)
    assert caught.value.where == keys[place]
    with pytest.raises(ConversionError) as caught:
        planted.target._opened(draft, "net", ())
    assert caught.value.where == "net"


def test_operators_know_their_layers(planted):
    written = write(planted.model, planted.encodings, planted.target._sizes(planted.model), integer_io=False)
    file = planted.open()
    assert len(written.operators) == len(file.subgraphs[0].operators)
    assert [written.operators[operator(file, key)] for key in LAYERS] == list(LAYERS)
