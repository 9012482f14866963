"""The package on disk: a folder with a manifest, the model's message and its weights file. Nothing is unpacked."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from haversack.base import digest
from haversack.base.errors import VerificationError
from haversack.targets.coreml.protos import messages
from haversack.targets.coreml.write import Written
from haversack.tools.store import atomic

VERSION = 7
"""Of the specification: iOS 16, macOS 13."""
MODEL, WEIGHTS, MANIFEST = (
    "Data/com.apple.CoreML/model.mlmodel",
    "Data/com.apple.CoreML/weights/weight.bin",
    "Manifest.json",
)
_AUTHOR = "com.apple.CoreML"
_ARRAYS = {"fp32": "FLOAT32", "int32": "INT32"}
_LARGEST_MODEL = 256 << 20
_LARGEST_WEIGHTS = 8 << 30


def files(written: Written) -> Iterator[tuple[str, bytes]]:
    """Yield (path in the package, content): the model first."""
    model = messages().Model_pb2.Model()
    model.specificationVersion = VERSION
    for features, ports in ((model.description.input, written.inputs), (model.description.output, written.outputs)):
        for name, (shape, dtype) in ports.items():
            feature = features.add()
            feature.name = name
            array = feature.type.multiArrayType
            array.shape.extend(shape)
            array.dataType = array.ArrayDataType.Value(_ARRAYS[dtype])
    model.mlProgram.CopyFrom(written.program)
    data = model.SerializeToString(deterministic=True)
    yield MODEL, data
    yield WEIGHTS, written.weights
    yield MANIFEST, _manifest(digest.of_bytes(data + written.weights))


def _manifest(content: str) -> bytes:
    """Return the manifest; identities are made from the content, so that the same model gives the same bytes."""
    entries, root = {}, ""
    for name, what, path in (
        ("weights", "CoreML Model Weights", f"{_AUTHOR}/weights"),
        ("model.mlmodel", "CoreML Model Specification", f"{_AUTHOR}/model.mlmodel"),
    ):
        root = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{content} {name}")).upper()
        entries[root] = {"author": _AUTHOR, "description": what, "name": name, "path": path}
    told = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": root}
    return json.dumps(told, indent=4, sort_keys=True).encode() + b"\n"


def save(contents: Mapping[str, bytes], package: Path) -> None:
    """Write a package's files.

    Raises:
        EnvironmentFault: the folder cannot be written.
    """
    for name, data in contents.items():
        path = package / name
        atomic.make_folder(path.parent)
        atomic.write_bytes(path, data)


def load(path: Path) -> tuple[Any, bytes]:
    """Return the model's message and the bytes of the weights file beside it.

    Args:
        path: of ``model.mlmodel`` in its package.

    Raises:
        VerificationError: a file is missing, larger than any of ours, or no message.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types

    weights = path.parent / "weights" / "weight.bin"
    model = messages().Model_pb2.Model()
    try:
        model.ParseFromString(_bounded(path, _LARGEST_MODEL))
    except DecodeError as error:
        raise VerificationError(f"it is no Core ML model: {error}", where=str(path)) from error
    return model, _bounded(weights, _LARGEST_WEIGHTS)


def _bounded(path: Path, largest: int) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(largest + 1)
    except OSError as error:
        raise VerificationError(f"it cannot be read: {error.strerror or error}", where=str(path)) from error
    if len(data) > largest:
        raise VerificationError(f"it has more than {largest} bytes", where=str(path))
    return data
