"""Files of other frameworks that are not read here: what they are, and the exact way from each to a file that is.

Why each is not read stands in its row; the guide's chapter on loading says what was tried. Nothing of them is opened:
an .onnx file is known by its name, a SavedModel by the ``saved_model.pb`` in its folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from haversack.base.errors import ConversionError

_EXPORT = (
    "torch.export.save(torch.export.export(model.eval(), (example,), "
    "dynamic_shapes=({0: torch.export.Dim.AUTO},)), 'net.pt2'), then: haversack pack net.pt2@job.py"
)


@dataclass(frozen=True)
class Foreign:
    """A kind of file that is not read: what it is and why, and what to type instead."""

    cause: str
    next_step: str


ONNX = Foreign(
    "an .onnx file is not read: the library that makes a PyTorch model of one, onnx2torch, needs torchvision, whose "
    "wheel for torch 2.13 does not load beside a torch without CUDA",
    f"export the PyTorch model that it came from: {_EXPORT}; if only the .onnx is left: where torchvision can be "
    "installed, model = onnx2torch.convert('net.onnx'), and the same line",
)
SAVED_MODEL = Foreign(
    "a TensorFlow SavedModel is not read: it holds a program for TensorFlow, which does not run here",
    "save the Keras model that it came from, model.save('net.keras'), then: haversack pack net.keras@job.py; without "
    f"Keras, build it again in PyTorch: {_EXPORT}",
)
SUFFIXES = {".onnx": ONNX}


def kind_of(path: Path) -> Foreign | None:
    """Return what a file or folder is, or None when it is nothing foreign."""
    if path.name == "saved_model.pb" or (path.is_dir() and (path / "saved_model.pb").is_file()):
        return SAVED_MODEL
    return SUFFIXES.get(path.suffix.lower())


def refuse(path: Path) -> None:
    """Refuse a file of another framework.

    Raises:
        ConversionError: it is one; the next step is the exact way to a file that is read.
    """
    kind = kind_of(path)
    if kind is not None:
        raise ConversionError(kind.cause, where=str(path), tried="nothing of it was read", next_step=kind.next_step)
