"""What ships and how it is told: bytes of stored weights, paths below the output folder, forecasts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from haversack.base.candidate import Artifact, ArtifactFile, Candidate
from haversack.base.encodings import Affine, Encodings, Float
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.model import Model, Port
from haversack.base.plan import Plan
from haversack.flow.outputs import _beside, _copy, _forecast, _lengths, _relocated, shipped, stored_bytes

SPEC = TensorSpec(("batch", 3), "float32")
FILES = (ArtifactFile("model.onnx", 10, 5, "0" * 64), ArtifactFile("data/weights.bin", 90, 80, "1" * 64))
MADE = Candidate(Plan("onnxruntime"), Artifact("onnxruntime", FILES, (), (), "1.18"), None, None, None, None, None)


def affine(bits, channels):
    return Affine(bits, True, 0, np.ones(channels, np.float32), np.zeros(channels, np.int32))


@pytest.fixture
def model():
    """Two layers of 3 x 5 and 7 weights with a bias, one parameter outside a role, and one that nothing reads."""
    nodes = (
        Node(":input#0", "input", "x", (), SPEC),
        Node("a:linear#0", "linear", "a", (":input#0",), SPEC, weight="a.w", bias="a.b", parameters=("a.w", "a.b")),
        Node("b:linear#0", "linear", "b", ("a:linear#0",), SPEC, weight="b.w", parameters=("b.w",)),
        Node("c:mul#0", "mul", "c", ("b:linear#0",), SPEC, parameters=("c.scale",)),
    )
    weights = {
        "a.w": np.zeros((3, 5), np.float32),
        "a.b": np.zeros(3, np.float32),
        "b.w": np.zeros((7, 1), np.float32),
        "c.scale": np.zeros((), np.float32),
        "unread": np.zeros(1000, np.float32),
    }
    ports = (Port("x", SPEC),)
    return Model("net", Graph(nodes, (":input#0",), ("c:mul#0",)), None, weights, ports, ports)


OTHERS = 4 * (3 + 1)


@pytest.mark.parametrize(
    "first, second, expected",
    [
        (None, None, 4 * 15 + 4 * 7),
        (affine(8, 3), affine(8, 7), 15 + 7),
        (affine(4, 3), affine(8, 7), 8 + 7),  # fifteen codes of four bits end within a byte
        (Float("float16"), Float("float32"), 30 + 28),
        (affine(8, 3), None, 15 + 28),
    ],
)
def test_weights_take_the_bytes_of_their_encoding(model, first, second, expected):
    tensors = {"a:linear#0:weight": first, "b:linear#0:weight": second, "a:linear#0:out": affine(8, 3)}
    found = Encodings({key: value for key, value in tensors.items() if value is not None}, {})
    assert stored_bytes(model, found) == expected + OTHERS


def test_a_candidate_that_ships_is_in_best_and_another_where_it_was_made():
    other = replace(MADE, plan=Plan("onnxruntime", constrained_by=("other",)))
    ships, stays = (_relocated(one, {"onnxruntime": MADE}) for one in (MADE, other))
    assert [file.path for file in ships.artifact.files] == [
        "best/onnxruntime/model.onnx",
        "best/onnxruntime/data/weights.bin",
    ]
    assert stays.artifact.files[0].path == f".haversack/candidates/{other.id}/model.onnx"
    assert [file.bytes for file in ships.artifact.files] == [10, 90]


def test_a_candidate_without_an_artefact_moves_nowhere():
    nothing = replace(MADE, artifact=None)
    assert _relocated(nothing, {}) is nothing


def test_what_left_no_artefact_does_not_ship():
    nothing = replace(MADE, artifact=None)
    assert shipped([]) == {}
    assert shipped([nothing]) == {}
    assert shipped([nothing, MADE, replace(MADE, verdict="met")]) == {"onnxruntime": MADE}


def test_a_forecast_is_told_in_whole_bytes():
    numbers = {"bytes": 1234.6, "relative_error": 0.05, "latency_ratio": 0.5, "download_bytes": 1.0, "latency_ms": 2.0}
    found = _forecast(replace(MADE, extra={"forecast": numbers}))
    assert (found.bytes, found.relative_error, found.latency_ratio) == (1235, 0.05, 0.5)


def test_free_lengths_are_those_of_the_first_batch():
    ids, image = TensorSpec(("batch", "length"), "int64"), TensorSpec((1, 3, "side"), "float32")
    steps = SimpleNamespace(
        model=SimpleNamespace(inputs=(Port("ids", ids), Port("image", image))),
        data=SimpleNamespace(first=lambda: (np.zeros((4, 17)), np.zeros((1, 3, 9)))),
    )
    assert _lengths(steps) == {"batch": 4, "length": 17, "side": 9}


@pytest.mark.parametrize("out", ["out", "a/b/out", "."])
def test_a_job_file_is_told_as_seen_from_the_folder(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text("")
    found = _beside("job.py", Path(out))
    assert not Path(found).is_absolute()
    assert os.path.normpath(Path(out) / found) == "job.py"
    assert _beside("package.module:net", Path(out)) == "package.module:net"


def test_a_copy_takes_the_place_of_what_was_there(tmp_path):
    (tmp_path / "new").write_bytes(b"new content")
    (tmp_path / "old").write_bytes(b"old")
    _copy(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"new content"
    with pytest.raises(FileNotFoundError):
        _copy(tmp_path / "gone", tmp_path / "old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
