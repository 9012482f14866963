"""The checks that the contract makes around every author's methods."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from haversack.base.candidate import Artifact
from haversack.base.constraints import Constraints, Ratio
from haversack.base.encodings import Affine, Encodings, Float
from haversack.base.errors import ConversionError, EnvironmentFault, UsageError, VerificationError
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.targets.contract import Target, artifact_file, encoding_faults, opened_first
from haversack.tools.codec import download
from haversack.tools.formats.index import index
from haversack.tools.graph.injection import count, differences

KEY = "m:linear#0:weight"
NOTHING = Constraints()


def weight(scale=1.0, axis=None):
    shape = () if axis is None else (2,)
    return Affine(8, True, axis, np.full(shape, scale, np.float32), np.zeros(shape, np.int32))


def codes(*values):
    return np.array(values, np.int32).reshape(1, -1)


@dataclass(frozen=True)
class Small:
    """As much of a model as the contract's checks read."""

    name: str
    graph: Graph
    weights: dict


@pytest.fixture
def model():
    spec = TensorSpec((1, 2), "float32")
    nodes = (
        Node("x:input#0", "input", "x", (), spec),
        Node("m:linear#0", "linear", "linear", ("x:input#0",), spec, "m.weight"),
        Node(":relu#0", "relu", "relu", ("m:linear#0",), spec),
    )
    return Small("small", Graph(nodes, ("x:input#0",), (":relu#0",)), {"m.weight": np.zeros((1, 3), np.float32)})


@dataclass(frozen=True)
class Planted(Target):
    """A target that does as it is told."""

    demands: Constraints = NOTHING
    injected: int = 0
    read_back: int = 0
    error: int = 0

    def _constraints(self, graph):
        return self.demands

    def _lower(self, model, encodings, folder):
        if self.error:
            raise OSError(self.error, "No space left on device")
        return Artifact("planted", (), (), (), "1", injected=self.injected, read_back=self.read_back)


@pytest.mark.parametrize(
    ("asked", "found", "causes", "same"),
    [
        (Encodings(), Encodings(), [], 0),
        (Encodings({KEY: Float("float16")}), Encodings({KEY: Float("float16")}), [], 1),
        (Encodings({KEY: Float("float16")}), Encodings(), ["does not encode it"], 0),
        (Encodings(), Encodings({KEY: Float("float16")}), ["nobody asked for"], 0),
        (Encodings({KEY: Float("float16")}), Encodings({KEY: weight()}), ["Affine instead of Float"], 0),
        (Encodings({KEY: weight()}), Encodings({KEY: weight()}), [], 1),
        (Encodings({KEY: weight()}), Encodings({KEY: weight(2.0)}), ["scale"], 0),
        (Encodings({KEY: weight()}), Encodings({KEY: weight(1.0, 0)}), ["scale"], 0),
        (Encodings({KEY: weight()}), Encodings({KEY: replace(weight(), signed=False)}), ["form differs"], 0),
        (
            Encodings({KEY: weight()}, {KEY: codes(1, 2, 3)}),
            Encodings({KEY: weight()}, {KEY: codes(1, 2, 3)}),
            [],
            4,
        ),
        (
            Encodings({KEY: weight()}, {KEY: codes(1, 2, 3)}),
            Encodings({KEY: weight()}, {KEY: codes(1, 9, 8)}),
            ["2 of 3 integers differ"],
            2,
        ),
        (
            Encodings({KEY: weight()}, {KEY: codes(1, 2, 3)}),
            Encodings({KEY: weight()}, {KEY: codes(1, 2)}),
            ["another shape"],
            1,
        ),
        (Encodings({KEY: weight()}, {KEY: codes(1)}), Encodings({KEY: weight()}), ["missing"], 1),
    ],
)
def test_differences(asked, found, causes, same):
    equal, faults = differences(asked, found)
    assert equal == same
    assert len(faults) == len(causes)
    assert all(cause in fault.cause and fault.where == KEY for cause, fault in zip(causes, faults, strict=True))


def test_the_next_float_after_a_scale_is_another_scale():
    close = np.nextafter(np.float32(1), np.float32(2))
    _, faults = differences(Encodings({KEY: weight()}), Encodings({KEY: weight(close)}))
    assert len(faults) == 1


def test_counting():
    assert count(Encodings()) == 0
    assert count(Encodings({KEY: weight(), "x:input#0:out": Float("float16")}, {KEY: codes(1, 2, 3)})) == 5


@pytest.mark.parametrize(
    ("encodings", "faults"),
    [
        (Encodings({KEY: weight()}, {KEY: codes(1, 2, 3)}), {}),
        (Encodings({KEY: weight()}), {KEY: "its integers are missing"}),
        (Encodings({KEY: weight()}, {KEY: codes(1)}), {KEY: "integers of shape (1, 1) for a weight of shape (1, 3)"}),
        (Encodings({"a:b#0:out": Float("float16")}), {"a:b#0:out": "the model has no such node"}),
        (Encodings({":relu#0:weight": Float("float16")}), {":relu#0:weight": "relu has no weight"}),
        (
            Encodings({"a:b#0:out": Float("float16"), KEY: weight()}),
            {"a:b#0:out": "the model has no such node", KEY: "its integers are missing"},
        ),
    ],
)
def test_encodings_that_do_not_fit(model, encodings, faults):
    assert {fault.where: fault.cause for fault in encoding_faults(model, encodings)} == faults


def test_lowering_checks_first(model, tmp_path):
    with pytest.raises(ConversionError, match="its integers are missing"):
        Planted().lower(model, Encodings({KEY: weight()}), tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_lowering_checks_what_was_read_back(model, tmp_path):
    with pytest.raises(VerificationError, match="3 of 10 values do not read back"):
        Planted(injected=10, read_back=7).lower(model, Encodings(), tmp_path)
    assert Planted(injected=10, read_back=10).lower(model, Encodings(), tmp_path).injected == 10


def test_a_full_disk(model, tmp_path):
    with pytest.raises(EnvironmentFault, match="the disk is full") as caught:
        Planted(error=28).lower(model, Encodings(), tmp_path)
    assert caught.value.where == str(tmp_path)


@pytest.mark.parametrize(
    "demands",
    [
        Constraints(ties=(frozenset({"gone:view#0:out", ":relu#0:out"}),)),
        Constraints(bounds={"gone:view#0:out": (0.0, 6.0)}),
        Constraints(fixed={"gone:view#0:out": (1 / 256, 0)}),
        Constraints(ratios=(Ratio("gone:view#0:out", ":relu#0:out"),)),
        Constraints(floats=frozenset({"gone:view#0:out"})),
    ],
)
def test_constraints_on_what_is_not_there(model, demands):
    with pytest.raises(ConversionError, match="gone:view#0:out"):
        Planted(demands).constraints(model.graph)


def test_what_an_author_left_out_is_told(model, tmp_path):
    bare = Target()
    artifact = Artifact("bare", (), (), (), "1", tensor_names={":relu#0:out": "y"})
    for call in (
        lambda: bare.constraints(model.graph),
        lambda: bare.refusals(model),
        lambda: bare.lower(model, Encodings(), tmp_path),
        lambda: bare.read(tmp_path, artifact),
        lambda: bare.open_session(tmp_path),
        lambda: bare.tensors(tmp_path, artifact, (), [":relu#0:out"]),
        lambda: bare.layer_seconds(tmp_path, artifact, (), 1),
        lambda: bare.unfused(tmp_path, artifact),
    ):
        with pytest.raises(UsageError, match="Target"):
            call()


def test_within_the_block_a_file_is_opened_elsewhere_first(tmp_path):
    seen = []

    @dataclass(frozen=True)
    class Opens(Target):
        def _open(self, path, options, threads):
            seen.append("here")

    def elsewhere(path, options, threads):
        seen.append((path.name, options, threads))
        if path.name == "deadly":
            raise RuntimeError("it died")

    with opened_first(elsewhere):
        Opens().open_session(tmp_path / "file", {"a": "b"}, 2)
        with pytest.raises(RuntimeError, match="it died"):
            Opens().open_session(tmp_path / "deadly")
    Opens().open_session(tmp_path / "deadly")
    assert seen == [("file", {"a": "b"}, 2), "here", ("deadly", {}, 1), "here"]


def test_only_tensors_of_the_file_are_asked_for(tmp_path):
    asked = []

    @dataclass(frozen=True)
    class Shows(Target):
        def _tensors(self, path, artifact, inputs, keys):
            asked.extend(keys)
            return {}

    artifact = Artifact("shows", (), (), (), "1", tensor_names={"a:b#0:out": "y"})
    assert Shows().tensors(tmp_path, artifact, (), ["a:b#0:out", "c:d#0:out"]) == {}
    assert asked == ["a:b#0:out"]


def test_a_files_record(tmp_path):
    import hashlib

    path = tmp_path / "inner" / "model.bin"
    path.parent.mkdir()
    path.write_bytes(b"abc" * 1000)
    found = artifact_file(path, tmp_path)
    assert (found.path, found.bytes) == ("inner/model.bin", 3000)
    assert found.sha256 == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert found.download_bytes < 100


def test_a_files_record_counts_the_download_as_it_is_published(tmp_path):
    """Rows and columns of unlike spread: the form must know where they are, which only the file's index tells."""
    from safetensors.numpy import save

    random = np.random.default_rng(0)
    spread = random.permutation(np.geomspace(1, 40, 512)) * random.permutation(np.geomspace(0.5, 2, 256))[:, None]
    data = save({"w": np.rint(random.normal(0, 1, (256, 512)) * spread).clip(-127, 127).astype(np.int8)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    found = artifact_file(path, tmp_path)
    assert found.download_bytes == len(download.pack(data, index(data)))
    assert found.download_bytes < 0.97 * len(download.pack(data))
