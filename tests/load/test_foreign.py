"""Files that are not read: each is refused with what it is and the exact way to a file that is."""

import ast
import re

import pytest

from haversack.base.errors import ConversionError, JobError
from haversack.load import foreign, open_job


@pytest.fixture
def saved_model(tmp_path):
    folder = tmp_path / "exported"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    return folder


def refused(source: str) -> ConversionError:
    with pytest.raises(ConversionError) as caught:
        open_job(source)
    assert caught.value.exit_code == 4
    assert caught.value.tried == "nothing of it was read"
    return caught.value


@pytest.mark.parametrize("name", ["net.onnx", "NET.ONNX"])
@pytest.mark.parametrize("behind", ["", "@job.py", "@package.module:build"])
def test_an_onnx_file(tmp_path, name, behind):
    (tmp_path / name).write_bytes(b"\x08\x07")
    error = refused(f"{tmp_path / name}{behind}")
    assert error.where == str(tmp_path / name)
    assert "onnx2torch" in error.cause
    assert "torchvision" in error.cause
    assert "haversack pack net.pt2@job.py" in error.next_step


@pytest.mark.parametrize("inner", ["", "/", "/saved_model.pb"])
@pytest.mark.parametrize("behind", ["", "@job.py"])
def test_a_saved_model_by_its_folder_or_its_file(saved_model, inner, behind):
    error = refused(f"{saved_model}{inner}{behind}")
    assert "SavedModel" in error.cause
    assert "model.save('net.keras')" in error.next_step


@pytest.mark.parametrize("text", ["net.onnx", "exported"])
def test_a_job_file_that_names_one_relative_to_itself(saved_model, job_file, tmp_path, text):
    (tmp_path / "net.onnx").write_bytes(b"")
    path = job_file(("def model():", f"model = {text!r}\n\n\ndef build():"))
    assert refused(str(path)).where == str(tmp_path / text)


@pytest.mark.parametrize("name", ["net.onnx", "none/saved_model.pb"])
def test_one_that_is_not_there_is_only_that(tmp_path, name):
    with pytest.raises(JobError, match="there is no file") as caught:
        open_job(f"{tmp_path / name}@job.py")
    assert str(tmp_path / name) in str(caught.value)


def test_a_folder_without_a_model_is_told_as_before(tmp_path):
    with pytest.raises(JobError, match="it is a folder: name the file in it"):
        open_job(str(tmp_path))


@pytest.mark.parametrize("kind", [foreign.ONNX, foreign.SAVED_MODEL], ids=["onnx", "saved_model"])
def test_the_line_to_type_is_python_that_exports(kind, tmp_path, monkeypatch):
    """The line in the message runs as it stands, and what it writes is a program that is read."""
    import torch

    line = re.search(r"torch\.export\.save\(.*'net\.pt2'\)", kind.next_step)
    assert line is not None
    ast.parse(line[0])
    monkeypatch.chdir(tmp_path)
    exec(line[0], {"torch": torch, "model": torch.nn.Linear(2, 2), "example": torch.ones(2, 2)})
    from haversack.load import exported

    assert len(list(exported.module_of(tmp_path / "net.pt2", allow_pickle=False).parameters())) == 2
