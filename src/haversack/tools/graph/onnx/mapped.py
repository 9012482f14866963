"""Weights in a file of their own: ONNX Runtime maps it, instead of reading it into the message and copying it out.

A message of protobuf is read whole, and its numbers are copied into tensors while it is still there: a file holds its
weights twice while it opens. Numbers in another file (ONNX calls them external data) are mapped where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from haversack.tools.store import atomic

if TYPE_CHECKING:
    import onnx_ir as ir

SUFFIX = ".data"
LEAST = 32_000_000
"""Bytes of a file from which on its weights are worth a second file."""
_SMALL = 1024
"""Bytes of a tensor that stays in the message: shapes, scales and zero-points are looked at while the file opens."""
_ALIGNED = 64


class Misplaced(ValueError):
    """Numbers that lie where we put none."""


@contextmanager
def parted(data: bytes, path: Path, *, whole: bool) -> Iterator[tuple[bytes, tuple[Path, ...]]]:
    """Yield (the message, paths of what lies beside it): nothing if ``whole``, else a file with the large tensors.

    What an earlier artefact left beside goes; so does what was written, when the block fails.

    Args:
        data: an ONNX model, serialised.
        path: where the message will be written.
        whole: whether it keeps its tensors.

    Raises:
        EnvironmentFault: the folder cannot be written.
    """
    beside = path.with_name(f"{path.name}{SUFFIX}")
    if whole:
        beside.unlink(missing_ok=True)
        yield data, ()
        return
    message, held = split(data, beside.name)
    atomic.write_bytes(beside, held)
    kept = False
    try:
        yield message, (beside,)
        kept = True
    finally:
        if not kept:
            beside.unlink(missing_ok=True)


def split(data: bytes, location: str) -> tuple[bytes, bytes]:
    """Return (the message without its large tensors, these tensors one behind the other, each at a multiple of 64).

    Args:
        data: an ONNX model, serialised.
        location: the file that will hold the tensors, in the message's folder.
    """
    import onnx

    model = onnx.ModelProto.FromString(data)
    held = bytearray()
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < _SMALL:
            continue
        held += bytes(-len(held) % _ALIGNED)
        told = {"location": location, "offset": str(len(held)), "length": str(len(tensor.raw_data))}
        held += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in told.items():
            tensor.external_data.add(key=key, value=value)
    return model.SerializeToString(deterministic=True), bytes(held)


def check(tensor: ir.ExternalTensor) -> None:
    """See that a tensor lies whole in a plain file beside the message.

    Raises:
        Misplaced: it names another folder, a link, a file of another kind, or a place that the file does not have.
    """
    name, path = str(tensor.location), Path(tensor.path)
    flat = "\0" not in name and name.endswith(SUFFIX) and PurePosixPath(name).name == name
    if not flat or path.is_symlink() or not path.is_file():
        raise Misplaced(f"{tensor.name}: its numbers are said to be in {name!r}, which is no file of ours")
    offset, size = tensor.offset or 0, path.stat().st_size
    if tensor.length is None or offset < 0 or tensor.length != tensor.nbytes or offset + tensor.length > size:
        raise Misplaced(f"{tensor.name}: its numbers do not lie within the {size} bytes of {name}")
