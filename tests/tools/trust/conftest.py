"""A small bundle of two runtimes, written by hand; its model files are no models, but look so from outside."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from haversack.base.bundle import MANIFEST, BundleFile, Manifest, Variant
from haversack.base.candidate import Artifact, ArtifactFile
from haversack.base.graph import TensorSpec
from haversack.base.labels import to_bytes
from haversack.base.model import Port
from haversack.base.provenance import Provenance
from haversack.tools.trust.canonical import dumps

Spoil = Callable[[dict[str, bytes]], None]


def bytes_field(number: int, content: bytes) -> bytes:
    """Return a field of a message of Protocol Buffers."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def made_onnx(*locations: str) -> bytes:
    """Return a model of ONNX with a tensor in each of these files."""
    graph = b""
    for location in locations:
        entry = bytes_field(1, b"location") + bytes_field(2, location.encode())
        graph += bytes_field(5, bytes_field(13, entry) + b"\x70\x01")
    return b"\x08\x0a" + bytes_field(7, graph)


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


VECTORS = {"0|input|x": np.ones((1, 4), np.float32), "0|output|y": np.ones((1, 2), np.float32)}
ROLES = {"preprocess.json": "preprocess", "labels.txt": "labels", "licence.txt": "licence"}
ROLES |= {"provenance.json": "provenance", "encodings.safetensors": "encodings"}
PORTS = (Port("x", TensorSpec(("batch", 4), "float32")),), (Port("y", TensorSpec(("batch", 2), "float32")),)
PLAIN = {
    "litert.tflite": b"\x1c\0\0\0TFL3" + bytes(40),
    "onnxruntime.onnx": made_onnx("onnxruntime.onnx.data"),
    "onnxruntime.onnx.data": bytes(64),
    "litert.golden.npz": npz(**VECTORS),
    "onnxruntime.golden.npz": npz(**VECTORS),
    "encodings.safetensors": (2).to_bytes(8, "little") + b"{}",
    "preprocess.json": dumps([{"op": "scale", "input": 0, "factor": 0.5, "offset": 0.0}]),
    "labels.txt": to_bytes(["cat", "dog"]),
    "licence.txt": b"Do what you like.\n",
    "provenance.json": dumps(Provenance(1, "job.py", {}, {}, {}, {})),
}


def artifact(target: str, files: dict[str, bytes]) -> Artifact:
    mine = sorted((name for name in files if _role(name) in {"model", "data"} and name.startswith(target)), key=len)
    told = tuple(ArtifactFile(name, len(files[name]), 9, _sha(files[name])) for name in mine)
    return Artifact(target, told, *PORTS, "1.0")


def manifest(files: dict[str, bytes]) -> Manifest:
    entries = [BundleFile(name, _role(name), len(data), _sha(data), _owner(name)) for name, data in files.items()]
    variants = tuple(Variant(target, "1.0", exact=True) for target in ("litert", "onnxruntime"))
    return Manifest(
        1, "digits", "1.3.0", tuple(sorted(entries, key=lambda one: one.name)), variants, ("top1", "fraction")
    )


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _owner(name: str) -> str:
    return "" if name in ROLES else name.partition(".")[0]


def _role(name: str) -> str:
    endings = {"json": "artifact", "npz": "golden", "data": "data", "txt": "licence"}
    return ROLES.get(name) or endings.get(name.rpartition(".")[2], "model")


def plain() -> dict[str, bytes]:
    files = dict(PLAIN)
    for target in ("litert", "onnxruntime"):
        files[f"{target}.json"] = dumps(artifact(target, files))
    return files


@pytest.fixture
def written(tmp_path: Path):
    """A function that writes the bundle, spoiled or with another manifest, and returns its folder."""

    def write(
        spoil: Spoil | None = None, *, name: str = "digits", told: Callable[[Manifest], object] | None = None
    ) -> Path:
        files = plain()
        if spoil is not None:
            spoil(files)
        folder = tmp_path / name
        folder.mkdir()
        for one, data in files.items():
            (folder / one).write_bytes(data)
        whole = manifest(files)
        (folder / MANIFEST).write_bytes(dumps(told(whole) if told else whole))
        return folder

    return write


@pytest.fixture
def artifacts():
    """A function that changes what a target's artifact tells, in the files of a bundle."""

    def change(owner: str, **fields: object) -> Spoil:
        def spoil(files: dict[str, bytes]) -> None:
            files[f"{owner}.json"] = dumps(replace(artifact(owner, files), **fields))

        return spoil

    return change


@pytest.fixture
def retold():
    """A function that changes one file and lets the manifest name what it became."""

    def change(name: str, data: bytes) -> Spoil:
        def spoil(files: dict[str, bytes]) -> None:
            files[name] = data
            if _role(name) in {"model", "data"}:
                files[f"{_owner(name)}.json"] = dumps(artifact(_owner(name), files))

        return spoil

    return change


@pytest.fixture
def onnx():
    """A function that returns a model of ONNX with a tensor in each of the named files."""
    return made_onnx
