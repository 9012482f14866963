"""A transformer with free lengths: one file for all of them, attention in XNNPACK, tables of embeddings in int8."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from haversack.base.encodings import Affine, Dynamic, Encodings
from haversack.base.errors import ConversionError, UsageError, VerificationError
from haversack.targets.executorch import ExecuTorch, parse
from haversack.targets.executorch.calls import CHAR, FLOAT, Calls
from haversack.targets.executorch.skeleton import skeleton
from haversack.targets.executorch.tables import STORED, outside, read_tables
from haversack.targets.reference import Reference
from haversack.tools.formats.flat import Spoiled
from haversack.tools.graph import canonical
from haversack.tools.numerics import affine

TARGET = ExecuTorch(longest=12)
WIDTH, ROWS, HEADS = 16, 30, 2


def network():
    import torch
    from torch import nn

    class Words(nn.Module):
        """Attention with a mask, as transformers writes it."""

        def __init__(self):
            super().__init__()
            self.table, self.places, self.norm = nn.Embedding(ROWS, WIDTH), nn.Embedding(20, WIDTH), nn.LayerNorm(WIDTH)
            self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
            self.out, self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)
            self.register_buffer("unread", torch.zeros(9999))

        def heads(self, x):
            return x.view(*x.shape[:-1], -1, WIDTH // HEADS).transpose(1, 2)

        def forward(self, ids, mask):
            x = self.norm(self.table(ids) + self.places(torch.arange(ids.shape[1])))
            bias = (1.0 - mask[:, None, None, :].float()) * -1e4
            query, key, value = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
            mixed = torch.softmax(query @ key.transpose(2, 3) * 0.3 + bias, -1) @ value
            x = x + self.out(mixed.transpose(1, 2).contiguous().reshape(*ids.shape, -1))
            x = x + self.down(nn.functional.gelu(self.up(x)))
            kept = mask.unsqueeze(-1).float()
            return (x * kept).sum(1) / kept.sum(1)

    torch.manual_seed(5)
    return Words().eval()


@pytest.fixture(scope="module")
def model():
    import torch

    free = torch.export.Dim.AUTO
    sample = torch.ones(3, 7, dtype=torch.long), torch.ones(3, 7, dtype=torch.long)
    program = torch.export.export(network(), sample, dynamic_shapes=({0: free, 1: free},) * 2)
    dims = {0: "batch", 1: "length"}
    return canonical.to_model(
        program, "words", input_names=["ids", "mask"], output_names=["mean"], dims={"ids": dims, "mask": dims}
    )


@pytest.fixture(scope="module")
def encodings(model):
    """Rows of linear layers in int8, inputs quantized at run time; tables in int8."""
    tensors, integers = {}, {}
    for node in model.graph.nodes:
        if node.op in ("linear", "embedding"):
            weight, key = model.weights[node.weight], f"{node.key}:weight"
            tensors[key] = affine.symmetric(np.asarray(np.abs(weight).max(1) / 127, np.float32), 8, 0)
            integers[key] = affine.quantize(weight, tensors[key])
        if node.op == "linear":
            tensors[f"{node.key}:in"] = Dynamic()
    return Encodings(tensors, integers)


@pytest.fixture(scope="module")
def files(model, encodings, tmp_path_factory):
    """Name -> (artifact, path) of the float file and the int8 file."""
    made = {}
    for name, asked in (("float", Encodings.none()), ("int8", encodings)):
        folder = tmp_path_factory.mktemp(name)
        artifact = TARGET.lower(model, asked, folder)
        made[name] = artifact, folder / artifact.files[0].path
    return made


def batch(length, rows=3):
    rng = np.random.default_rng(length)
    mask = np.ones((rows, length), np.int64)
    mask[1, max(1, length * 2 // 3) :] = 0
    return rng.integers(0, ROWS, (rows, length)), mask


def run(path, sample):
    session = TARGET.open_session(path)
    return session.run(dict(zip(("ids", "mask"), sample, strict=True)))["mean"]


def test_one_float_file_serves_every_length(model, files):
    for length in (7, 2, 12, 5, 12, 3):
        sample = batch(length)
        expected = Reference().run(model, Encodings.none(), sample)[0]
        assert np.abs(run(files["float"][1], sample) - expected).max() < 1e-6, length


def test_the_int8_file_is_what_the_reference_says_up_to_the_range_of_a_row(model, encodings, files):
    for length in (2, 7, 12):
        sample = batch(length)
        expected = Reference().run(model, encodings, sample)[0]
        exact = Reference().run(model, Encodings.none(), sample)[0]
        found = run(files["int8"][1], sample)
        size = np.linalg.norm(exact)
        assert np.linalg.norm(found - expected) / size < 0.01, length
        assert 1e-5 < np.linalg.norm(found - exact) / size < 0.02, length


def test_lengths_beyond_the_bound_are_told(files):
    with pytest.raises(UsageError, match="ExecuTorch does not run it"):
        run(files["float"][1], batch(13))


def test_everything_is_read_back(encodings, files):
    artifact, path = files["int8"]
    assert artifact.injected == artifact.read_back
    found = TARGET.read(path, artifact)
    assert found.digest == encodings.digest
    tables = read_tables(parse.parse(path))
    assert sorted(tables) == ["places:embedding#0", "table:embedding#0"]
    assert tables["table:embedding#0"].codes.dtype == np.int8


def test_a_stored_table_is_its_codes_times_the_scale_of_the_row(model, encodings, files):
    only = Encodings(
        {key: one for key, one in encodings.tensors.items() if "embedding" in key},
        {key: one for key, one in encodings.integers.items() if "embedding" in key},
    )
    folder = files["int8"][1].parent / "tables"
    artifact = TARGET.lower(model, only, folder)
    sample = batch(7)
    expected = Reference().run(model, only, sample)[0]
    assert np.abs(run(folder / artifact.files[0].path, sample) - expected).max() < 1e-6
    assert artifact.bytes < files["float"][0].bytes - 2 * (ROWS + 20) * WIDTH


def test_neither_float_tables_nor_what_nobody_reads_stand_in_the_file(model, encodings, files):
    data = files["int8"][1].read_bytes()
    for name in ("table.weight", "places.weight"):
        assert model.weights[name].tobytes() not in data
    assert encodings.integers["table:embedding#0:weight"].astype(np.int8).tobytes() in data
    assert files["float"][0].bytes < 4 * sum(value.size for value in model.weights.values()) - 4 * 9999 + 20_000


def test_attention_runs_in_xnnpack_and_the_rest_is_told_by_module_path(files):
    artifact, path = files["int8"]
    told = {one.layer: one.text for one in TARGET.findings(path, artifact)}
    assert not any("matmul" in key or "softmax" in key or "view" in key or "reshape" in key for key in told)
    assert told["table:embedding#0"] == "embedding runs in a kernel of ExecuTorch's own, not in XNNPACK"
    assert "norm:layer_norm#0" in told
    kinds = [step.kind for delegate in parse.parse(path).delegates for step in delegate.steps]
    assert kinds.count("BatchMatrixMultiply") == 2
    assert kinds.count("FullyConnected") == 6


def test_layers_that_read_one_value_share_its_codes(files):
    delegates = parse.parse(files["int8"][1]).delegates
    codes = [
        step.inputs[0]
        for delegate in delegates
        for step in delegate.steps
        if step.kind == "FullyConnected" and delegate.values[step.inputs[0]].datatype == parse.QDINT8
    ]
    assert len(codes) == 6
    assert len(set(codes)) <= 4, "query, key and value read one"


def test_another_bound_makes_another_skeleton(model):
    one = skeleton(model, 12)
    assert skeleton(model, 12) is one
    assert one.tables == ("table:embedding#0", "places:embedding#0")
    assert "table:embedding#0" in one.alone


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 4},
        {"axis": None, "scale": np.asarray(0.1, np.float32), "zero_point": np.asarray(0, np.int32)},
    ],
)
def test_a_table_in_another_form_is_refused_by_key(model, encodings, change, tmp_path):
    key = "table:embedding#0:weight"
    other = dataclasses.replace(encodings.tensors[key], **change)
    codes = np.clip(encodings.integers[key], -7, 7)
    with pytest.raises(ConversionError) as caught:
        TARGET.lower(model, Encodings({key: other}, {key: codes}), tmp_path)
    assert [fault.where for fault in caught.value.faults] == [key]
    assert "int8 with a scale for each row" in caught.value.faults[0].cause


def patched(path, old, new, folder):
    data = path.read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    folder.mkdir(exist_ok=True)
    made = folder / "other.pte"
    made.write_bytes(data.replace(old, new))
    return made


def test_a_changed_code_of_a_table_is_found(encodings, files, tmp_path):
    artifact, path = files["int8"]
    codes = encodings.integers["table:embedding#0:weight"].astype(np.int8)
    other = codes.copy()
    other[3, 2] ^= 1
    found = TARGET.read(patched(path, codes.tobytes(), other.tobytes(), tmp_path), artifact)
    assert found.digest != encodings.digest
    assert found.integers["table:embedding#0:weight"][3, 2] == other[3, 2]


def test_a_changed_scale_of_a_table_is_found(encodings, files, tmp_path):
    artifact, path = files["int8"]
    encoding = encodings.tensors["places:embedding#0:weight"]
    other = encoding.scale.copy()
    other[0] *= 2
    found = TARGET.read(patched(path, encoding.scale.tobytes(), other.tobytes(), tmp_path), artifact)
    assert isinstance(found.tensors["places:embedding#0:weight"], Affine)
    assert found.tensors["places:embedding#0:weight"].scale[0] == other[0]


def test_a_table_that_no_embedding_owns_is_refused(files, tmp_path):
    artifact, path = files["int8"]
    made = patched(path, b'"tables":{', b'"tabler":{', tmp_path)
    with pytest.raises(VerificationError, match="belongs to no embedding"):
        TARGET.read(made, artifact)


def test_what_does_not_tell_its_kernels_is_refused(files, tmp_path):
    made = patched(files["int8"][1], b'"alone":{"', b'"alone":[["'[:10], tmp_path)
    with pytest.raises(VerificationError, match="about itself"):
        outside(made)


class Plain:
    """A value of a program, by slots."""

    def __init__(self, slots):
        self.slots = slots

    def integer(self, slot, kind="I", default=0):
        return self.slots.get(slot, default)

    def table(self, slot):
        return self.slots.get(slot)

    def numbers(self, slot, kind):
        return self.slots.get(slot, ())


def tensor(kind=CHAR, shape=(2, 3), number=1):
    return Plain({0: 5, 1: Plain({0: kind, 2: shape, 5: number})})


@pytest.mark.parametrize(
    "value, kind",
    [
        (tensor(), FLOAT),
        (tensor(shape=(2, 4)), CHAR),
        (tensor(shape=(-2, -3)), CHAR),
        (tensor(shape=(1 << 30, 1 << 30)), CHAR),
        (tensor(number=0), CHAR),
        (tensor(number=2), CHAR),
        (Plain({0: 1}), CHAR),
        (Plain({0: 5}), CHAR),
    ],
)
def test_constants_that_are_not_in_the_file_are_refused(value, kind):
    held = Calls((), (value,), (0, 2), memoryview(b"..123456"))
    with pytest.raises(Spoiled):
        held.constant(0, kind)


def test_a_constant_is_read_where_it_lies():
    held = Calls((), (tensor(), Plain({0: 1})), (0, 2), memoryview(b"..\1\2\3\4\5\6"))
    assert held.constant(0, CHAR).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert held.is_null(1)
    assert not held.is_null(0)
    with pytest.raises(Spoiled, match="no value 2"):
        held.is_null(2)


def test_the_calls_of_a_program_stand_in_order(files):
    made = parse.parse(files["int8"][1]).calls.made
    names = [name for name, _ in made]
    assert names.count(STORED) == 2
    assert "" in names, "calls of XNNPACK"
    assert "aten::embedding" not in names
