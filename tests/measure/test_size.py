from __future__ import annotations

import builtins
import hashlib
import os

import numpy as np
import pytest
import zstandard

from haversack.base.errors import EnvironmentFault, MissingExtra
from haversack.measure.size import in_folder, of_files


@pytest.fixture
def artefact(tmp_path):
    folder = tmp_path / "best" / "onnxruntime"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph" * 1000)
    (folder / "model.onnx.data").write_bytes(np.random.default_rng(0).bytes(1_100_000))
    (folder / "deeper").mkdir()
    (folder / "deeper" / "more.data").write_bytes(b"")
    return folder


def test_each_file_tells_its_size_its_download_and_its_digest(artefact, tmp_path):
    main, data = of_files([artefact / "model.onnx", artefact / "model.onnx.data"], tmp_path)
    assert main.path == "best/onnxruntime/model.onnx"
    assert main.bytes == 5000
    assert main.sha256 == hashlib.sha256(b"graph" * 1000).hexdigest()
    assert main.download_bytes < 100  # it repeats itself
    assert data.bytes == 1_100_000
    assert 1_100_000 <= data.download_bytes < 1_101_000  # noise cannot be compressed


def test_the_download_is_what_level_19_makes_of_it(artefact, tmp_path):
    path = artefact / "model.onnx"
    path.write_bytes(np.random.default_rng(1).integers(0, 9, 400_000, np.uint8).cumsum(dtype=np.uint8).tobytes() * 2)
    (file,) = of_files([path], tmp_path)
    whole = len(zstandard.ZstdCompressor(level=19).compress(path.read_bytes()))
    assert file.download_bytes == pytest.approx(whole, rel=0.001)
    weak = len(zstandard.ZstdCompressor(level=1).compress(path.read_bytes()))
    assert file.download_bytes < 0.9 * weak


def test_external_data_in_the_folder_count(artefact, tmp_path):
    files = in_folder(artefact / "model.onnx", tmp_path)
    names = ["model.onnx", "deeper/more.data", "model.onnx.data"]
    assert [file.path for file in files] == [f"best/onnxruntime/{name}" for name in names]
    assert sum(file.bytes for file in files) == 1_105_000
    assert files[1].sha256 == hashlib.sha256(b"").hexdigest()
    assert 0 < files[1].download_bytes < 20


def test_the_same_file_is_measured_the_same_twice(artefact, tmp_path):
    assert in_folder(artefact / "model.onnx", tmp_path) == in_folder(artefact / "model.onnx", tmp_path)


@pytest.mark.parametrize("plant", ["missing", "folder", "link", "pipe"])
def test_what_is_no_regular_file_is_no_artefact(artefact, tmp_path, plant):
    path = artefact / "odd"
    if plant == "folder":
        path.mkdir()
    elif plant == "link":
        path.symlink_to(artefact / "model.onnx")
    elif plant == "pipe":
        os.mkfifo(path)
    with pytest.raises(EnvironmentFault, match="no regular file") as caught:
        of_files([path], tmp_path)
    assert caught.value.where == str(path)


def test_a_file_outside_the_output_folder_is_told(artefact, tmp_path):
    (tmp_path / "outside").write_bytes(b"x")
    with pytest.raises(EnvironmentFault, match="lies outside"):
        of_files([tmp_path / "outside"], artefact)


def test_a_missing_package_names_its_extra(artefact, tmp_path, monkeypatch):
    real = builtins.__import__

    def without_zstandard(name, *arguments):
        if name == "zstandard":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_zstandard)
    with pytest.raises(MissingExtra, match=r"haversack\[pack\]"):
        of_files([artefact / "model.onnx"], tmp_path)
