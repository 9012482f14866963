"""A Keras file, .keras or .h5: read by Keras without running code of the file, translated layer by layer, compared.

A file of Keras names classes and may hold code (Lambda layers). So its configuration is read first, as JSON, and
every class in it must be in a closed list; its tensors may not have more bytes than the file, and the network that it
describes not more weights than it holds. Only then Keras reads it, with ``safe_mode``. Keras runs on PyTorch here;
what was translated is compared with it on random values, so that a setting that was overlooked is an error.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.errors import (
    ConversionError,
    EnvironmentFault,
    Fault,
    HaversackError,
    JobError,
    MissingExtra,
    Refused,
)
from haversack.load import keras_modules
from haversack.load.keras_layers import BUILDERS, IMAGE, SKIPPED, Untranslated, layer_of
from haversack.load.quiet import quiet
from haversack.load.user_code import first_line

if TYPE_CHECKING:
    from torch import nn

SUFFIXES = frozenset({".keras", ".h5", ".hdf5"})
MAX_CONFIG_BYTES = 64 << 20
MAX_DEPTH = 100
TOLERANCE = 1e-4
_MODELS = frozenset({"Functional", "Sequential", "Model", "InputLayer"})
_MARKS = frozenset({"__keras_tensor__", "__tuple__", "DTypePolicy", "Policy"})
_HOMES = (None, "keras", "keras.layers", "keras.models", "keras.src.models.functional", "keras.src.models.sequential")
_HARMLESS = ("keras.initializers", "keras.regularizers", "keras.constraints")
_RECORDS = frozenset({"metadata.json", "config.json", "model.weights.h5"})
_SAVE = "save it again from Keras 3: model.save('net.keras')"
_WAY = (
    "build these layers in PyTorch and load their weights, or with KERAS_BACKEND=torch: torch.export.save("
    "torch.export.export(model.eval(), (example,), dynamic_shapes=(({0: torch.export.Dim.AUTO},),)), 'net.pt2') "
    "(that packs in float: Keras computes its weights as it runs)"
)


def check(path: Path) -> None:
    """Check a file as far as can be without Keras: its configuration and its sizes. Nothing of it is run.

    Raises:
        MissingExtra: h5py or Keras are not installed.
        JobError: truncated, another kind of file, or weights without an architecture.
        ConversionError: layers that are not translated, all at once by name.
        Refused: it holds links, or declares more bytes than it has.
    """
    config, _ = _config(path)
    faults = tuple(dict.fromkeys(_strangers(config, "", 0)))
    if faults:
        raise ConversionError(
            "layers of this Keras model are not translated",
            where=str(path),
            tried="reading its configuration; nothing of it was run",
            faults=faults,
            next_step=_WAY,
        )


def module_of(path: Path) -> nn.Module:
    """Return the model as a PyTorch module in eval mode; inputs and outputs are as Keras has them ([N, H, W, C]).

    Raises:
        MissingExtra, JobError, ConversionError, Refused: as ``check``; or it computes something else than Keras does.
        EnvironmentFault: Keras runs already on another backend than PyTorch.
    """
    check(path)
    keras = _keras()
    config, elements = _config(path)
    try:
        with quiet():
            wanted = _described(keras, config)
            if wanted > elements:
                raise Refused(f"it describes {wanted} weights and holds {elements}", where=str(path), next_step=_SAVE)
            model = keras.saving.load_model(str(path), compile=False, safe_mode=True)
    except HaversackError:
        raise
    except Exception as error:
        raise JobError(
            f"Keras cannot read this model: {type(error).__name__}: {first_line(error)[:200]}",
            where=str(path),
            tried=f"keras.saving.load_model of Keras {keras.__version__}",
            next_step=_SAVE,
        ) from error
    faults: list[Fault] = []
    module = _network(model, faults, outermost=True)
    if faults or module is None:
        raise ConversionError(
            "layers of this Keras model are not translated", where=str(path), faults=tuple(faults), next_step=_WAY
        )
    _compare(module, model, path)
    return module


def _keras() -> Any:  # noqa: ANN401 - the package
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras
    except ImportError as error:
        raise MissingExtra("keras", "keras", purpose="reading a Keras file") from error
    if keras.backend.backend() != "torch":
        raise EnvironmentFault(
            f"Keras runs on {keras.backend.backend()} already in this process",
            next_step="export KERAS_BACKEND=torch, before the job file imports keras",
        )
    return keras


def _described(keras: Any, config: dict[str, Any]) -> int:  # noqa: ANN401 - the package
    """Return how many weights a configuration describes; on the meta device they take no memory."""
    with keras.device("meta"):
        if "module" in config:
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        else:  # .h5 keeps the older form, which has no modules
            from keras.src.legacy.saving.saving_utils import model_from_config

            model = model_from_config(config)
    return sum(int(np.prod(weight.shape)) for weight in model.weights)


def _config(path: Path) -> tuple[dict[str, Any], int]:
    """Return the configuration of a file, and how many elements its tensors have."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("h5py", "keras", purpose="reading a Keras file") from error
    size = path.stat().st_size
    try:
        text, tensors = _records(path, size) if zipfile.is_zipfile(path) else (None, path)
        with h5py.File(tensors, "r") as file:
            elements = _elements(file, size, str(path))
            text = file.attrs.get("model_config") if text is None else text
        if text is None:
            raise JobError("it holds weights but no architecture", where=str(path), next_step=_SAVE)
        if len(text) > MAX_CONFIG_BYTES:
            raise Refused(f"its configuration has more than {MAX_CONFIG_BYTES} bytes", where=str(path))
        config = json.loads(text)
    except HaversackError:
        raise
    except RecursionError as error:
        raise Refused("its configuration is nested too deeply", where=str(path)) from error
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise JobError(
            f"it is no whole Keras file (truncated, or another kind of file): {first_line(error)}",
            where=str(path),
            tried=f"reading its configuration; the file has {size} bytes",
            next_step=_SAVE,
        ) from error
    if not isinstance(config, dict):
        raise JobError("its configuration is no model", where=str(path), next_step=_SAVE)
    return {name: config[name] for name in config if name != "compile_config"}, elements


def _records(path: Path, size: int) -> tuple[bytes | None, io.BytesIO | Path]:
    """Return the configuration and the tensors of a .keras archive, which Keras writes without compression."""
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        names = [info.filename for info in infos]
        if set(names) - _RECORDS or len(set(names)) != len(names):
            raise Refused(f"it holds more than Keras writes: {', '.join(sorted(names)[:10])}", where=str(path))
        if sum(info.file_size for info in infos) > size:
            raise Refused("its records declare more bytes than the file has", where=str(path), next_step=_SAVE)
        return archive.read("config.json"), io.BytesIO(archive.read("model.weights.h5"))


def _elements(file: Any, size: int, where: str) -> int:  # noqa: ANN401 - h5py has no types
    """Return the number of elements of all tensors; links, other files and compressed tensors are refused."""
    import h5py

    total = count = 0
    stack = [(file, 0)]
    while stack:
        group, depth = stack.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink) or depth > MAX_DEPTH:
                raise Refused(f"{name} is a link, or nested too deeply", where=where, next_step=_SAVE)
            item = group[name]
            if isinstance(item, h5py.Group):
                stack.append((item, depth + 1))
                continue
            if item.external or item.is_virtual or item.dtype.kind not in "fiub":
                raise Refused(f"{item.name} is no plain tensor", where=where, next_step=_SAVE)
            total, count = total + item.nbytes, count + item.size
            if total > size:
                raise Refused("its tensors declare more bytes than the file has", where=where, next_step=_SAVE)
    return count


def _strangers(value: Any, name: str, depth: int) -> Iterator[Fault]:  # noqa: ANN401 - JSON
    """Yield every class that is not in the list, with the name of the layer that it stands in."""
    if depth > MAX_DEPTH:
        raise Refused("its configuration is nested too deeply", where=name)
    if isinstance(value, list):
        for item in value:
            yield from _strangers(item, name, depth + 1)
    if not isinstance(value, dict):
        return
    kind, home, inner = value.get("class_name"), value.get("module"), value.get("config")
    if kind is not None:
        name = str((isinstance(inner, dict) and inner.get("name")) or name)
        kind = str(kind)
        layer = kind in BUILDERS or kind in SKIPPED or kind in _MODELS or kind in _MARKS
        if home not in _HARMLESS and not (layer and home in _HOMES):
            yield Fault(name, f"is a {kind}" + (f" of {home}" if home not in _HOMES else "") + ", not translated")
            return
    for word, item in value.items():
        if not (word.endswith(("_initializer", "_regularizer", "_constraint")) and _numbers(item)):
            yield from _strangers(item, name, depth + 1)


def _numbers(value: Any) -> bool:  # noqa: ANN401 - JSON
    """Say whether an initializer is in the older form: a class of no module, and numbers and words for it."""
    inner = value.get("config") if isinstance(value, dict) else None
    plain = isinstance(inner, dict) and not any(isinstance(item, dict | list) for item in inner.values())
    return plain and "module" not in value


def _network(model: Any, faults: list[Fault], *, outermost: bool) -> nn.Module | None:  # noqa: ANN401 - a Keras model
    """Return a model's layers, strung up as its graph says; what is not translated goes to ``faults``."""
    graph = model._functional if type(model).__name__ == "Sequential" else model  # noqa: SLF001 - nowhere else
    numbers: dict[int, int] = {}

    def number(tensor: Any) -> int:  # noqa: ANN401 - a Keras tensor
        return numbers.setdefault(id(tensor), len(numbers))

    layers: dict[str, nn.Module] = {}
    names: dict[int, str] = {}
    calls = []
    nodes = graph._nodes_by_depth  # noqa: SLF001 - the order that Keras itself calls them in
    for node in (node for depth in sorted(nodes, reverse=True) for node in nodes[depth] if not node.is_input):
        layer = node.operation
        name = names.setdefault(id(layer), keras_modules.identifier(layer.name, names.values()))
        if name not in layers:
            try:
                inner = type(layer).__name__ in _MODELS
                made = _network(layer, faults, outermost=False) if inner else layer_of(layer)
            except Untranslated as error:
                faults.append(Fault(layer.name, error.cause))
                continue
            if made is None:
                continue
            layers[name] = made
        if len(node.outputs) > 1:
            faults.append(Fault(layer.name, f"is a model inside with {len(node.outputs)} outputs, not translated"))
        takes = tuple(number(tensor) for tensor in node.input_tensors)
        calls.append((name, takes, tuple(number(tensor) for tensor in node.outputs)))
    if faults:
        return None
    ends: list[list[keras_modules.Port]] = []
    for side in (graph.inputs, graph.outputs):
        taken: list[str] = []
        for tensor in side:
            taken.append(keras_modules.identifier(tensor._keras_history.operation.name, taken))  # noqa: SLF001
        turns = (outermost and len(tensor.shape) == IMAGE for tensor in side)
        ends.append(list(zip(taken, map(number, side), turns, strict=True)))
    return keras_modules.network(layers, calls, ends[0], ends[1])


def _compare(module: nn.Module, model: Any, path: Path) -> None:  # noqa: ANN401 - a Keras model
    """Run both on random values of the model's shapes (free lengths: 2 samples, 32 elsewhere)."""
    import torch

    draw = np.random.default_rng(0)
    shapes = [tuple(size or (32 if axis else 2) for axis, size in enumerate(port.shape)) for port in model.inputs]
    samples = [torch.from_numpy(draw.uniform(-1, 1, shape).astype(np.float32)) for shape in shapes]
    with torch.no_grad(), quiet():
        mine, theirs = module(*samples), model(samples if len(samples) > 1 else samples[0], training=False)
    theirs = theirs if isinstance(theirs, list | tuple) else [theirs]
    for a, b in zip(mine if isinstance(mine, tuple) else (mine,), theirs, strict=True):
        largest = float(b.detach().abs().max())
        error = float((a - b.detach().cpu()).abs().max()) / max(largest, 1e-30) if a.shape == b.shape else float("inf")
        if error > TOLERANCE:
            raise ConversionError(
                f"the translated model leaves Keras' own by {error:.1e} of its largest value",
                where=str(path),
                tried=f"both on {len(samples[0])} random samples, at most {TOLERANCE:.0e}",
                next_step=_WAY,
            )
