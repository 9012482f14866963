"""The names of a job: which must be there, which may, and of what kind. All faults are told at once.

Needed: ``model()`` (or a string, see ``opening.py``) or ``models()`` (several architectures, see ``architectures.py``),
``calibration()``, ``evaluation()``, ``metric``.
Optional: ``preprocess``, ``golden()``, ``baseline``, ``input_names``, ``output_names``, ``dims``, ``lengths``,
``degraded``, ``layer_precisions``, ``without``, ``labels``; and for ``finetune`` alone ``training()`` and ``loss()``,
which are read where they can be called: a job that is packed may use these names for something of its own.
"""

from __future__ import annotations

import difflib
import inspect
import math
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from haversack.base import labels
from haversack.base.errors import Fault, JobError, UsageError
from haversack.base.job import Job
from haversack.load.place import Place, nearest
from haversack.load.user_code import guarded_stream

if TYPE_CHECKING:
    from torch import nn

STREAMS = ("calibration", "evaluation")
OPTIONAL = (
    *("preprocess", "golden", "baseline", "input_names", "output_names", "dims", "lengths", "degraded"),
    *("layer_precisions", "without", "labels"),
)
TRAINED = "training"
"""The name that gives what ``finetune`` trains on."""
SEVERAL = "models"
"""The name that gives several architectures, in place of ``model``."""
LARGEST_LABELS = 1 << 22
"""Bytes of a file of labels."""
MOST_LENGTHS = 16
"""Each is a signature of its own in a file that has no free lengths."""
_EXAMPLE = {
    "model": "def model(): return Net().eval()",
    "calibration": "def calibration(): yield (images,)    # NumPy, batch first",
    "evaluation": "def evaluation(): yield (images,), labels",
    "metric": 'metric = "top1"',
}


_OF_METRIC = ("direction", "unit")
"""What a metric says of itself."""


@dataclass(frozen=True)
class Fields:
    """The checked names of a job, all but the model."""

    values: Mapping[str, Any] = field(repr=False)

    def job(
        self,
        model: Callable[[], nn.Module],
        name: str,
        source: str,
        models: Callable[[], Mapping[str, nn.Module]] | None = None,
    ) -> Job:
        """Return the job with this model, or with several."""
        return Job(name=name, model=model, source=source, models=models, **self.values)


def read(place: Place, *, model: str) -> Fields:
    """Check the names of a place.

    Args:
        place: the executed file or module.
        model: the name that gives the model or the models, or "" when the model comes from elsewhere.

    Raises:
        JobError: with every missing, misspelt or wrong name at once.
    """
    needed = ([model] if model else []) + [*STREAMS, "metric"]
    names = place.names
    faults = [
        Fault(name, f"is missing{nearest(name, names)}    ({_EXAMPLE.get(name, f'def {name}(): …')})")
        for name in needed
        if name not in names
    ]
    faults += [*_misspelt(names), *_of_metric(names)]
    if model == SEVERAL and "model" in names:
        faults.append(Fault(SEVERAL, "stands beside model: give one of them"))
    present = [name for name in needed if name in names]
    present += [name for name in OPTIONAL if names.get(name) is not None]
    if isinstance(names.get("labels"), str):
        faults += [Fault("labels", cause) for cause in _wrong_file(place)]
    for name in present:
        faults += [Fault(name, cause) for cause in _wrong("model" if name == model != SEVERAL else name, names[name])]
    if faults:
        raise JobError(
            "it is no complete job",
            where=place.label,
            faults=tuple(faults),
            tried="running the file and looking at its names",
            next_step=f"haversack pack {shlex.quote(place.text)} --dry-run    (looks again once they are mended)",
        )
    return Fields(_values(place))


def _values(place: Place) -> dict[str, Any]:
    names = place.names
    values: dict[str, Any] = {
        name: guarded_stream(names[name], name, place.folder)
        for name in (*STREAMS, "golden", TRAINED)
        if (callable(names.get(name)) if name == TRAINED else names.get(name) is not None)
    }
    values["metric"] = names["metric"]
    values["loss"] = names["loss"] if callable(names.get("loss")) else None
    for name in ("preprocess", "degraded", "input_names", "output_names"):
        values[name] = tuple(names.get(name) or ())
    values["lengths"] = tuple(sorted(names.get("lengths") or ()))
    values["baseline"] = None if names.get("baseline") is None else float(names["baseline"])
    values["layer_precisions"] = tuple(f"{glob}={kind}" for glob, kind in (names.get("layer_precisions") or {}).items())
    values["labels"] = _labels(place)
    values["without"] = tuple(names.get("without") or ())
    values["dims"] = {port: dict(axes) for port, axes in (names.get("dims") or {}).items()}
    return values


def _labels(place: Place) -> tuple[str, ...]:
    """Return the labels of a list, or of a text file that is named as the job file sees it.

    Raises:
        OSError, ValueError: the file cannot be read, or holds none.
    """
    given = place.names.get("labels") or ()
    if not isinstance(given, str):
        return tuple(given)
    with (place.folder / given).open("rb") as stream:
        return labels.typed(stream.read(LARGEST_LABELS))


def _wrong_file(place: Place) -> Iterator[str]:
    try:
        _labels(place)
    except OSError as error:
        yield f"{place.names['labels']} cannot be read: {error.strerror}"
    except ValueError as error:
        yield f"{place.names['labels']} is no text with one label a line: {error}"


def _misspelt(names: Mapping[str, Any]) -> Iterator[Fault]:
    """A name that nearly is an optional one would be a silent loss (``basline = 0.88`` would check nothing)."""
    for name in (one for one in OPTIONAL if len(one) >= 6 and one not in names):
        public = [other for other in names if not other.startswith("_") and other not in OPTIONAL]
        for near in difflib.get_close_matches(name, public, n=1, cutoff=0.85):
            yield Fault(near, f"looks like a misspelt {name}; rename it, or begin it with _ if it is your own")


def _of_metric(names: Mapping[str, Any]) -> Iterator[Fault]:
    """``direction = "lower"`` beside a callable metric would be read by nobody, and every drop judged the wrong way."""
    for name in _OF_METRIC:
        given = names.get(name)
        if isinstance(given, str) and callable(names.get("metric")) and not hasattr(names["metric"], name):
            step = f"say it with the metric: metric = from_callable(metric, {name}={given!r}) (of haversack.metrics)"
            yield Fault(name, f"is not read here; {step}, or begin it with _ if it is your own")


def _wrong(name: str, value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever the user wrote
    """Yield what is wrong with the value of a known name."""
    if name == "model" and isinstance(value, str):
        return
    if name in ("model", SEVERAL, "golden", *STREAMS):
        yield from _wrong_function(value, 0)
    elif name == "metric":
        yield from _wrong_metric(value)
    elif name == "baseline":
        if not _is_finite(value):
            yield f"{value!r} is no finite number"
    elif name in ("input_names", "output_names"):
        yield from _wrong_names(value)
    elif name in ("preprocess", "degraded"):
        if not isinstance(value, list | tuple) or not all(isinstance(step, Mapping) for step in value):
            yield "is no list of mappings, one for each operation"
    elif name in _SHAPED:
        yield from _SHAPED[name](value)


def _is_finite(value: Any) -> bool:  # noqa: ANN401 - whatever the user wrote
    """Say whether a value is one real number; an array of several has ``__float__`` too, and raises."""
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        return False
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _wrong_function(value: Any, arguments: int) -> Iterator[str]:  # noqa: ANN401 - whatever the user wrote
    if not callable(value):
        yield f"is a {type(value).__name__}, not a function"
        return
    try:
        inspect.signature(value).bind(*range(arguments))
    except TypeError as error:
        count = f"with {arguments} arguments" if arguments else "without arguments"
        yield f"is called {count}: {error}"
    except ValueError:  # a builtin that does not tell its signature
        return


def _wrong_metric(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever the user wrote
    from haversack.metrics import SHELF, resolve

    if callable(value) and not isinstance(value, type):
        yield from _wrong_function(value, 2)
        return
    try:
        resolve(value)
    except UsageError as error:
        yield f"{error.cause} (has: {', '.join(SHELF.names())})"


def _wrong_names(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever the user wrote
    if isinstance(value, str) or not isinstance(value, list | tuple) or not all(isinstance(n, str) for n in value):
        yield "is no list of strings"
        return
    for name in value:
        if not name or set(name) & set(":#| ") or not name.isprintable():
            yield f"{name!r} is no name: letters, digits, '.', '-' and '_'"
    if twice := sorted({name for name in value if value.count(name) > 1}):
        yield f"{', '.join(twice)} stands there twice"


def _wrong_lengths(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever the user wrote
    if not isinstance(value, list | tuple) or not value or not all(type(n) is int and n >= 1 for n in value):
        yield "is no list of lengths, as in (16, 128)"
    elif len(value) > MOST_LENGTHS or len(set(value)) < len(value):
        yield f"holds more than {MOST_LENGTHS} lengths, or one twice"


def _wrong_dims(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever the user wrote
    example = '{"input_ids": {0: "batch", 1: "length"}}'
    if not isinstance(value, Mapping) or not all(isinstance(axes, Mapping) for axes in value.values()):
        yield f"is no mapping of input names to axes, as in {example}"
        return
    for port, axes in value.items():
        for axis, name in axes.items():
            if not isinstance(port, str) or type(axis) is not int or axis < 0 or not isinstance(name, str):
                yield f"{port!r}: {{{axis!r}: {name!r}}} is no axis with a name, as in {example}"
            elif not name.isidentifier():
                yield f"{port}: {name!r} is no name for a dimension"


def _wrong_rules(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever the user wrote
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for pair in value.items() for one in pair):
        yield 'is no mapping of globs over module paths to precisions, as in {"features.0.*": "float32"}'


def _wrong_without(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever the user wrote
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        yield 'is no list of precisions and parts, as in ("w4a8",)'


def _wrong_labels(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever the user wrote
    if isinstance(value, str):  # a file: see _wrong_file
        return
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        yield "is neither a list of strings nor the path of a text file; if it is your own, begin its name with _"
    else:
        yield from labels.faults(value)


_SHAPED: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "dims": _wrong_dims,
    "lengths": _wrong_lengths,
    "layer_precisions": _wrong_rules,
    "without": _wrong_without,
    "labels": _wrong_labels,
}
"""What is wrong with the values of names that hold more than one thing."""
