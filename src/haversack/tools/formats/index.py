"""Where the tensors of a model file are, whatever its format: the first bytes say which it is."""

from __future__ import annotations

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.formats import gguf, onnx, pte, safetensors, tflite

FORMATS = {"gguf": gguf, "tflite": tflite, "pte": pte, "safetensors": safetensors, "onnx": onnx}
"""Name of a format -> its indexer, in the order in which they are asked; .onnx has no magic and comes last."""


def format_of(data: bytes | memoryview) -> str:
    """Return the name of a file's format by its first bytes; empty where it is none that we know."""
    return next((name for name, reader in FORMATS.items() if reader.matches(data)), "")


def index(data: bytes | memoryview) -> tuple[Stored, ...]:
    """Return where the tensors of a file are, in its order; none in a format that we do not know.

    Raises:
        Refused: it begins as a file of a format, and is malformed.
    """
    name = format_of(data)
    return FORMATS[name].index(data) if name else ()


def hints(data: bytes | memoryview) -> tuple[Stored, ...]:
    """Return what ``index`` does, and nothing of a malformed file: for codecs, to which any bytes are a file."""
    try:
        return index(data)
    except Refused:
        return ()
