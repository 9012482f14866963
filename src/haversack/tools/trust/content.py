"""What a file of a bundle may hold, by its role: each is read within bounds, and nothing in it is run.

A runtime's own file is only looked at from outside (its mark, and for ONNX the files that it refers to): what a spoiled
one does to its runtime is seen in a child process.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from haversack.base import digest, labels
from haversack.base.bundle import LIMITS, OPERATIONS, BundleFile, Manifest
from haversack.base.candidate import Artifact
from haversack.base.errors import Fault, HaversackError
from haversack.base.provenance import Provenance
from haversack.tools.formats import npz, onnx_outside
from haversack.tools.trust import canonical

MARKS: Mapping[str, tuple[int, bytes]] = {"tflite": (4, b"TFL3"), "pte": (4, b"ET"), "gguf": (0, b"GGUF")}
"""Ending of a model -> where its mark stands, and what it is."""
LARGEST_ONNX = 1 << 31
"""Bytes; protobuf ends there."""
LAYOUTS = {"NHWC": 4, "NWC": 3}
"""Orders of axes in a file, and of how many axes they are."""
_MOST_OPERATIONS, _MOST_NAMES, _MOST_NUMBERS = 100, 200, 100_000
_CALLS = frozenset("GLOBAL STACK_GLOBAL REDUCE INST OBJ NEWOBJ NEWOBJ_EX BUILD EXT1 EXT2 EXT4".split())
_MOST_SCALE = 3e38
OTHER = "its sha256 is not the manifest's"
_ZIP = b"PK\x03\x04"


def whole(file: BundleFile, data: bytes, manifest: Manifest) -> tuple[Any, list[Fault]]:
    """Return what a file holds, and what is wrong with it; a model's file is only looked at.

    Args:
        file: of a role in ``LIMITS``, or an ONNX model.
        data: all of it.
        manifest: of the bundle.
    """

    def read() -> Any:  # noqa: ANN401 - what a file holds
        if file.role != "golden" and _calls(data):
            raise ValueError("it is a pickle, which would run code when read")
        return _READ[file.role](file, data, manifest)

    return _told(file, read)


def again(file: BundleFile, data: bytes) -> tuple[Any, list[Fault]]:
    """Return what a file holds that was looked at whole once: the manifest has its digest, which is compared.

    Args:
        file: of a role in ``SMALL``.
        data: all of it.
    """
    if digest.of_bytes(data) != file.sha256:
        return None, [Fault(file.name, OTHER)]
    return _told(file, lambda: _AGAIN[file.role](file, data))


def _told(file: BundleFile, read: Callable[[], Any]) -> tuple[Any, list[Fault]]:
    try:
        return read(), []
    except HaversackError as error:
        cause = f"{error.where}: {error.cause}" if error.where and error.where != file.name else error.cause
        inner = [Fault(f"{file.name}: {one.where}".rstrip(": "), one.cause) for one in error.faults]
        return None, inner or [Fault(file.name, canonical.shown(cause))]
    except ValueError as error:
        return None, [Fault(file.name, canonical.shown(str(error)))]


def ends(file: BundleFile, head: bytes, tail: bytes) -> list[Fault]:
    """Return what is wrong with a file by its first and last bytes; at least 16 of each, or all it has."""
    ending = file.name.rpartition(".")[2]
    if ending in MARKS:
        at, mark = MARKS[ending]
        return [] if head[at : at + len(mark)] == mark else [Fault(file.name, f"it does not begin as a .{ending} does")]
    if ending == "safetensors":
        length = int.from_bytes(head[:8], "little")
        plain = len(head) > 8 and head[8:9] == b"{" and length <= file.bytes - 8
        return [] if plain else [Fault(file.name, "it does not begin as a .safetensors does")]
    pickled = len(head) > 1 and head[0] == 0x80 and head[1] in range(2, 6) and tail.endswith(b".")
    return [Fault(file.name, "it looks like a pickle")] if pickled or head.startswith(_ZIP) else []


def agree(
    artifacts: Mapping[str, Artifact], preprocess: Sequence[Mapping[str, Any]], manifest: Manifest
) -> list[Fault]:
    """Return where the files of a bundle contradict each other."""
    faults = []
    for target, artifact in artifacts.items():
        faults += [Fault(f"{target}: {place}", cause) for place, cause in _of_artifact(target, artifact, manifest)]
        most = len(artifact.inputs)
        faults += [
            Fault(f"preprocess[{index}]", f"{target} has {most} inputs, and it is for input {step['input']}")
            for index, step in enumerate(preprocess)
            if step["input"] >= most
        ]
    return faults


def _of_artifact(target: str, artifact: Artifact, manifest: Manifest) -> Iterator[tuple[str, str]]:
    variant = next(one for one in manifest.variants if one.target == target)
    if artifact.target != target:
        yield "target", f"it is {canonical.shown(artifact.target)}"
    mine = [file for file in manifest.files if file.target == target and file.role in ("model", "data")]
    mine.sort(key=lambda file: file.role != "model")
    told = [(file.path, file.bytes, file.sha256) for file in artifact.files]
    if told[:1] + sorted(told[1:]) != [(file.name, file.bytes, file.sha256) for file in mine]:
        yield "files", "they are not those of the manifest, the model first"
    if (artifact.runtime_version, artifact.cpu_features) != (variant.runtime_version, variant.cpu_features):
        yield "runtime_version, cpu_features", "they are not those of the manifest"
    if artifact.tensor_names or artifact.absorbed or artifact.bias_digests or artifact.injected or artifact.read_back:
        yield "", "it holds what only the workshop needs"
    yield from _of_interface(artifact)


def _of_interface(artifact: Artifact) -> Iterator[tuple[str, str]]:
    ports = (*artifact.inputs, *artifact.outputs)
    names = [port.name for port in ports]
    if not artifact.inputs or not artifact.outputs or len(names) > _MOST_NAMES or not all(map(_word, names)):
        yield "inputs, outputs", f"they are not 1 to {_MOST_NAMES} names"
    if any(isinstance(size, int) and size < 0 for port in ports for size in port.spec.shape):
        yield "inputs, outputs", "a length is below 0"
    ranks = {port.name: len(port.spec.shape) for port in ports}
    if not all(LAYOUTS.get(layout, -1) == ranks.get(name) for name, layout in artifact.layouts.items()):
        yield "layouts", f"one is of no port, or no order of its axes (has: {', '.join(sorted(LAYOUTS))})"
    whole = {name for name, (scale, zero) in artifact.grids.items() if 0 < scale <= _MOST_SCALE and -128 <= zero <= 127}
    if not whole >= {*artifact.grids} or not ranks.keys() >= {*artifact.grids}:
        yield "grids", "one is of no port, or no scale and zero-point of int8"


def _artifact(file: BundleFile, data: bytes, _: Manifest | None = None, *, compared: bool = False) -> Artifact:
    where, limit = file.name, LIMITS["artifact"]
    return canonical.loads(data, Artifact, where=where, limit=limit, formats=None, compared=compared)


def _provenance(file: BundleFile, data: bytes, _: Manifest) -> Provenance:
    return canonical.loads(data, Provenance, where=file.name, limit=LIMITS["provenance"])


def _preprocess(
    file: BundleFile, data: bytes, _: Manifest | None = None, *, compared: bool = False
) -> tuple[Mapping[str, Any], ...]:
    found = canonical.parse(data, where=file.name, limit=LIMITS["preprocess"], compared=compared)
    if not isinstance(found, list) or not 1 <= len(found) <= _MOST_OPERATIONS:
        raise ValueError(f"it is no list of 1 to {_MOST_OPERATIONS} operations")
    for index, step in enumerate(found):
        if not isinstance(step, dict) or type(step.get("input")) is not int or step["input"] < 0:
            raise ValueError(f"operation {index} is no object with the index of an input")
        if step.get("op") not in OPERATIONS:
            raise ValueError(f"operation {index} is none of {', '.join(sorted(OPERATIONS))}")
        if not all(_setting(value) for value in step.values()):
            raise ValueError(f"operation {index} has a setting that is no number, word or list of numbers")
    return tuple(found)


def _labels(_: BundleFile, data: bytes, __: Manifest | None = None) -> tuple[str, ...]:
    return labels.from_bytes(data)


def _licence(_: BundleFile, data: bytes, __: Manifest) -> None:
    text = data.decode()
    if any(not one.isprintable() and one not in "\n\t\r\f" for one in text):
        raise ValueError("it holds control characters")


def _golden(file: BundleFile, data: bytes, _: Manifest) -> None:
    """Refuse outputs that nothing can be held against: beside NaN or infinity every distance is none."""
    for name, array in npz.arrays(data, where=file.name).items():
        strange = int(np.count_nonzero(~np.isfinite(array))) if "|output|" in name and array.dtype.kind == "f" else 0
        if strange:
            raise ValueError(f"{name}: {strange} of its {array.size} values are NaN or infinite, and prove nothing")


def _onnx(file: BundleFile, data: bytes, manifest: Manifest) -> None:
    beside = {one.name for one in manifest.files if one.role == "data" and one.target == file.target}
    if stray := sorted(onnx_outside.outside(data) - beside):
        raise ValueError(f"its weights lie in {canonical.shown(stray[0])!r}, which is no file of this variant")


_AGAIN: Mapping[str, Callable[[BundleFile, bytes], Any]] = {
    "artifact": partial(_artifact, compared=True),
    "preprocess": partial(_preprocess, compared=True),
    "labels": _labels,
}
SMALL = frozenset(_AGAIN)
"""Roles of what tells how a model is used."""
_READ: Mapping[str, Callable[[BundleFile, bytes, Manifest], Any]] = {
    "artifact": _artifact,
    "preprocess": _preprocess,
    "labels": _labels,
    "provenance": _provenance,
    "licence": _licence,
    "golden": _golden,
    "model": _onnx,
}


def _setting(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= _MOST_NUMBERS and all(isinstance(one, int | float) for one in value)
    return isinstance(value, str | int | float)


def _word(name: str) -> bool:
    return bool(name) and name.isprintable() and len(name) <= _MOST_NAMES


def _calls(data: bytes) -> bool:
    """Say whether all of a file is a pickle, of any protocol, that calls something when it is read."""
    called = False
    try:
        for code, _, _ in pickletools.genops(data):
            called = called or code.name in _CALLS
    except (ValueError, struct.error, OverflowError):
        return False  # no pickle, or one that ends with an error before it is whole
    return called
