"""The stage: by a target's name, from a model to an artifact that opens."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings, Float
from haversack.base.errors import ConversionError, EnvironmentFault, UsageError
from haversack.lower.emit import emit
from haversack.targets.contract import SHELF
from haversack.targets.onnxruntime import session
from haversack.tools.graph import canonical


@pytest.fixture(scope="module")
def model():
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    program = torch.export.export(net, (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return canonical.to_model(program, "small", input_names=["x"], output_names=["y"])


def test_it_writes_opens_and_reads(model, tmp_path):
    encodings = Encodings({"0:linear#0:weight": Float("float16")})
    artifact = emit(model, encodings, "onnxruntime", tmp_path / "out")
    path = tmp_path / "out" / artifact.files[0].path
    assert (artifact.target, artifact.injected, artifact.read_back) == ("onnxruntime", 1, 1)
    target = SHELF.build("onnxruntime")
    y = target.open_session(path).run({"x": np.ones((3, 4), np.float32)})["y"]
    assert y.shape == (3, 2)
    assert target.read(path, artifact).tensors == encodings.tensors


def test_the_nearest_target_is_shown(model, tmp_path):
    with pytest.raises(UsageError, match="did you mean onnxruntime") as caught:
        emit(model, Encodings.none(), "onnxruntme", tmp_path)
    assert caught.value.exit_code == 2


def test_the_reference_writes_no_files(model, tmp_path):
    with pytest.raises(UsageError, match="no target named 'reference'"):
        emit(model, Encodings.none(), "reference", tmp_path)


def test_what_does_not_open_names_its_layer(model, tmp_path, monkeypatch):
    """A planted refusal of the runtime: the file is written with an operator that it does not know."""
    from haversack.tools.graph.onnx import sheet

    real = sheet.Sheet.finish

    def odd(self, weights):
        for node in self.graph:
            if node.name == "2:linear#0":
                node.op_type = "Gemmm"
        return real(self, weights)

    monkeypatch.setattr(sheet.Sheet, "finish", odd)
    with pytest.raises(ConversionError) as caught:
        emit(model, Encodings.none(), "onnxruntime", tmp_path)
    assert caught.value.where == "2:linear#0"
    assert caught.value.exit_code == 4
    assert "does not open" in caught.value.cause
    assert "just written" in caught.value.tried
    assert caught.value.next_step == "keep this layer in float32"
    assert list(tmp_path.iterdir()) == [], "what does not open is not left behind"


def test_a_place_that_is_taken_is_the_machines_fault(model, tmp_path):
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(EnvironmentFault, match="it is a folder, not a file") as caught:
        emit(model, Encodings.none(), "onnxruntime", tmp_path)
    assert (caught.value.exit_code, caught.value.where) == (6, str(tmp_path / "model.onnx"))
    assert [path.name for path in tmp_path.rglob("*")] == ["model.onnx"]


def test_a_folder_that_cannot_be_made_is_the_machines_fault(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="not a folder") as caught:
        emit(model, Encodings.none(), "onnxruntime", tmp_path / "file" / "below")
    assert caught.value.exit_code == 6
    assert "--out" in caught.value.next_step


def test_every_artifact_was_opened(model, tmp_path, monkeypatch):
    opened = []
    real = session.OrtSession

    class Watched(real):
        def __init__(self, path, *rest):
            opened.append(path)
            super().__init__(path, *rest)

    monkeypatch.setattr(session, "OrtSession", Watched)
    emit(model, Encodings.none(), "onnxruntime", tmp_path)
    assert [path.parent for path in opened] == [tmp_path]
