"""Opening a job: how a source is written, and which of the other files reads it.

::

    job.py                                   a job file (``job.py:build`` takes ``build`` for its ``model``)
    package.module:build                     a module that can be imported; ``build`` is the model
    program.pt2@job.py                       a saved torch.export program
    weights.safetensors@package.module:Net   a checkpoint, and the callable that builds its architecture
    weights.pt@job.py:Net                    a pickle: only with ``allow_pickle``
    script.pt@job.py, script.ts@job.py       TorchScript: only with ``allow_pickle``
    net.keras@job.py, net.h5@job.py          a Keras model, translated layer by layer (``keras_file.py``)
    net.onnx, a SavedModel's folder          refused, with the way to a file that is read (``foreign.py``)

One rule for all: a job file or module gives the whole job by its names (``model``, ``calibration``, ``evaluation``,
``metric`` …, see ``fields.py``); ``:name`` says which of its names builds the model; a file of weights stands before
an ``@``. Files of weights hold no data, so on the command line the part behind ``@`` must be there. Inside a job file
the same words may be the model: ``model = "program.pt2"``, ``model = "weights.safetensors@package.module:Net"``, or
``"weights.safetensors@:Net"`` for a callable of the job file itself; such paths are relative to the job file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from haversack.base.errors import JobError, Refused
from haversack.base.job import Job
from haversack.load import archive, checkpoint, exported, fields, foreign, keras_file, pickled, torchscript
from haversack.load.job_file import instead, open_file
from haversack.load.place import Place
from haversack.load.reference import open_module
from haversack.load.user_code import guarded

if TYPE_CHECKING:
    from torch import nn

LOG = logging.getLogger("haversack.load")
PICKLES = frozenset({".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib"})
WEIGHTS = frozenset({".pt2", ".safetensors"}) | PICKLES | torchscript.SUFFIXES | keras_file.SUFFIXES
_MODULE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
_ACCEPTED = "job.py, package.module:build, program.pt2@job.py or weights.safetensors@package.module:build"


@dataclass(frozen=True)
class Source:
    """A source, taken apart: a file of weights or None, a Python file or module or "", a name in it or ""."""

    weights: Path | None
    place: str
    name: str


def open_job(source: str, *, allow_pickle: bool = False) -> Job:
    """Open a job from any source, checked as far as can be without building the model.

    Args:
        source: see this module's docstring.
        allow_pickle: whether files that run code when they are read may be read.

    Raises:
        JobError: the source cannot be read, raised, or lacks names; all faults at once, with lines and nearest names.
        Refused: it would unpickle or run what a file holds, or is too large.
    """
    parts = parse(source)
    if parts.weights is not None:
        _exists(parts.weights, source)
        _allowed(parts.weights, allow_pickle=allow_pickle)
        if not parts.place:
            raise JobError(
                f"{parts.weights.suffix} files hold a model but no data and no metric",
                where=source,
                next_step=f"haversack pack {source}@job.py    (job.py: calibration(), evaluation(), metric)",
            )
    place = _place(parts.place)
    given = "" if parts.weights is not None else parts.name or _usual(place)
    values = fields.read(place, model=given)
    if given == fields.SEVERAL:
        return values.job(_which, _name(place), source, guarded(place.names[given], given, place.folder))
    if parts.weights is None and not isinstance(place.names[given], str):
        builder: Callable[[], nn.Module] = guarded(place.names[given], given, place.folder)
        return values.job(builder, _name(place), source)
    if parts.weights is None:
        parts = parse(place.names[given], place.folder)
        if parts.weights is None:
            raise JobError(
                f"{given} = {place.names[given]!r} names no file of weights",
                where=place.label,
                next_step='model = "program.pt2", "weights.safetensors@package.module:Net" or a function',
            )
        _exists(parts.weights, place.label)
        _allowed(parts.weights, allow_pickle=allow_pickle)
    builder = _builder(parts.weights, parts, place, allow_pickle=allow_pickle)
    return values.job(builder, parts.weights.stem, source)


def parse(source: str, folder: Path | None = None) -> Source:
    """Take a source apart; a path of weights is relative to ``folder`` if that is given.

    Raises:
        JobError: it is nothing that can be opened.
    """
    left, at, right = source.rpartition("@")
    file = left if at else source
    weights = None
    path = Path(file) if folder is None else folder / file
    if path.suffix.lower() in WEIGHTS or foreign.kind_of(path) is not None:
        weights = path
        source_place = right if at else ""
    elif at:
        raise JobError(f"{file!r} before the @ is no file of weights", where=source, next_step=f"one of: {_ACCEPTED}")
    else:
        source_place = source
    place, _, name = source_place.rpartition(":") if ":" in source_place else (source_place, "", "")
    known = place.endswith(".py") or _MODULE.match(place) or (not place and weights is not None)
    if not known or (name and not name.isidentifier()):
        folder_hint = "; it is a folder: name the file in it" if place and Path(place).is_dir() else ""
        raise JobError(f"this is no source of a job{folder_hint}", where=source or "(empty)", next_step=_ACCEPTED)
    return Source(weights, place, name)


def _usual(place: Place) -> str:
    """Return the name that gives the model where the source names none."""
    return fields.SEVERAL if fields.SEVERAL in place.names else "model"


def _which() -> nn.Module:
    raise JobError("models() gives several architectures where one model is wanted", next_step="one of them as model()")


def _place(text: str) -> Place:
    return open_file(Path(text)) if text.endswith(".py") else open_module(text)


def _builder(weights: Path, parts: Source, place: Place, *, allow_pickle: bool) -> Callable[[], nn.Module]:
    """Return what builds the model of a file of weights; what can be checked without building is checked now."""
    home = _place(parts.place) if parts.place and parts.place != place.text else place
    architecture = home.function(parts.name) if parts.name else None
    if weights.suffix.lower() == ".pt2":
        archive.check(weights, allow_pickle=allow_pickle)
        return lambda: exported.module_of(weights, allow_pickle=allow_pickle)
    if weights.suffix.lower() in keras_file.SUFFIXES:
        keras_file.check(weights)
        return lambda: keras_file.module_of(weights)
    if weights.suffix.lower() != ".safetensors" and torchscript.is_script(weights):
        return lambda: torchscript.module_of(weights)
    if weights.suffix.lower() in PICKLES:
        return lambda: pickled.module_of(weights, architecture)
    if architecture is None:
        raise JobError(
            "a safetensors file holds weights but no architecture",
            where=str(weights),
            next_step=f"name the callable that builds it: {weights}@package.module:Net",
        )
    checkpoint.header(weights)
    return lambda: checkpoint.module_of(weights, architecture)


def _exists(path: Path, where: str) -> None:
    if not (path.exists() if foreign.kind_of(path) else path.is_file()):
        raise JobError(f"there is no file {path}", where=where, tried="opening it", next_step=instead(path))


def _allowed(path: Path, *, allow_pickle: bool) -> None:
    foreign.refuse(path)
    if allow_pickle and path.suffix.lower() not in {".safetensors"} | keras_file.SUFFIXES:
        LOG.warning("%s is read with --allow-pickle: code that it holds may run", path)
    if allow_pickle or path.suffix.lower() not in PICKLES | torchscript.SUFFIXES:
        return
    if torchscript.is_script(path):
        raise Refused(
            "TorchScript is a program: its code is compiled and its objects are unpickled when it is read",
            where=str(path),
            tried="only its list of records was read",
            next_step=f"{torchscript.FROM_PYTHON}; or trust the file with --allow-pickle",
        )
    if path.suffix.lower() in PICKLES:
        raise Refused(
            "a pickle runs whatever code it holds when it is read",
            where=str(path),
            tried="nothing was read",
            next_step="save the weights with safetensors.torch.save_file, or trust the file with --allow-pickle",
        )


def _name(place: Place) -> str:
    stem = place.text.rpartition(".")[2] if place.is_module else Path(place.text).stem
    return place.folder.name if stem in ("job", "__init__") and place.folder.name else stem
