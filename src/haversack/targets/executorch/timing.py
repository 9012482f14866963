"""How long each layer takes: the events of XNNPACK's own profiler, which the runtime writes as an ETDump.

The events of a call stand in the order of XNNPACK's nodes, under names of kernels; they are joined to the nodes of the
file by that order and by what a kernel's name says it is. (Slots: ``etdump_schema_flatcc.fbs``.)
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from haversack.base.errors import VerificationError
from haversack.base.model import Sample
from haversack.targets.executorch import parse
from haversack.targets.executorch.parse import Program
from haversack.targets.executorch.quiet import quiet
from haversack.targets.executorch.session import as_tensor, bindings, is_free, ports
from haversack.tools.formats.flat import Spoiled, root

_WORDS = {
    "Convolution": frozenset({"Conv2d", "DepthwiseConv2d"}),
    "Fully": frozenset({"FullyConnected", "Conv2d"}),
    "Mean": frozenset({"GlobalAvgPooling2d"}),
    "Add": frozenset({"Add"}),
    "Transpose": frozenset({"StaticTranspose"}),
    "Convert": frozenset({"Convert"}),
    "Static": frozenset({"StaticReshape"}),
    "Max": frozenset({"MaxPooling2d"}),
    "Clamp": frozenset({"Clamp"}),
    "Constant": frozenset({"StaticConstantPad"}),
}
"""First word of a kernel's name -> kinds of nodes that it may serve."""
_TIMED = frozenset().union(*_WORDS.values())
_WHOLE = ("Method::", "Program::", "DELEGATE_CALL", "OPERATOR_CALL", "native_call")
_MILLISECONDS = 1e-3
_LAYERS = frozenset({"Conv2d", "DepthwiseConv2d", "FullyConnected", "Add", "GlobalAvgPooling2d"})
Event = tuple[str, float]


def layer_seconds(path: Path, inputs: Sample, runs: int) -> dict[str, float]:
    """Return node key -> seconds a call for the batch's first row, one thread; "" for what has no layer.

    The profiler counts whole microseconds, and a small layer takes less: of all calls the mean of the middle half is
    taken, which tells fractions.

    Raises:
        VerificationError: the file is none of ours, or the runtime was built without its profiler.
    """
    program = parse.parse(path)
    free = [is_free(port) for port in ports(program.about.get("inputs"))]
    rows = [array[:1] if cut else array for array, cut in zip(inputs, free, strict=True)]
    with tempfile.TemporaryDirectory() as folder, quiet():
        module = bindings(1)._load_for_executorch(str(path), enable_etdump=True)  # noqa: SLF001 - its only name
        tensors = [as_tensor(row) for row in rows]
        for _ in range(runs + 1):
            module.forward(tensors)
        target = Path(folder) / "profile.etdp"
        module.write_etdump_result_to_file(str(target))
        data = target.read_bytes()
    try:
        calls = [owned(events, program) for events in _calls(data)[-runs:]]
    except Spoiled as error:
        raise VerificationError(f"ExecuTorch's profile cannot be read: {error}", where=str(path)) from error
    if not any(calls):
        raise VerificationError("this ExecuTorch was built without XNNPACK's profiler", where=str(path))
    each: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        for key, seconds in call.items():
            each[key].append(seconds)
    return {key: _middle(values + [0.0] * (len(calls) - len(values))) for key, values in sorted(each.items())}


def _middle(values: list[float]) -> float:
    """Return the mean of the middle half of some values."""
    cut = len(values) // 4
    return fmean(sorted(values)[cut : len(values) - cut])


def _calls(data: bytes) -> list[list[Event]]:
    """Return the events of each call, (name, seconds), in order."""
    start = data.find(b"ED00") - 4
    found = []
    for run in root(memoryview(data)[max(start, 0) :], b"ED00").tables(1):
        events: list[Event] = []
        for event in run.tables(3):
            profile = event.table(0)
            if profile is not None:
                name = profile.text(0) or profile.text(4)
                spent = profile.integer(7, "Q") - profile.integer(6, "Q")
                events.append((name, spent * _MILLISECONDS * 1e-6))
        if any(name.startswith("Method::execute") for name, _ in events):
            found.append(events)
    return found


def owned(events: Sequence[Event], program: Program) -> Counter[str]:
    """Return node key -> seconds of one call's events; "" for those that belong to no layer."""
    layers = program.about.get("layers") or {}
    steps = [
        (step.kind, str(layers.get(f"{number}/{index}", "")))
        for number, delegate in enumerate(program.delegates)
        for index, step in enumerate(delegate.steps)
        if step.kind in _TIMED
    ]
    total: Counter[str] = Counter()
    at = 0
    for name, seconds in events:
        if name.startswith(_WHOLE):
            if name.startswith(("OPERATOR_CALL", "native_call")):
                total[""] += seconds  # type: ignore[assignment]  # Counter is typed for ints
            continue
        wanted = _WORDS.get(name.split(" ", 1)[0], frozenset())
        found = next((i for i in range(at, len(steps)) if steps[i][0] in wanted), None)
        owner = "" if found is None else steps[found][1]
        at = at if found is None else found + 1
        total[owner] += seconds  # type: ignore[assignment]  # as above
    return total


def unfused(path: Path) -> tuple[str, ...]:
    """Return keys of layers that read codes, or whose weight is int8, and that XNNPACK computes in float all the same.

    XNNPACK fuses nothing by itself: a node computes in the datatypes that its values have in the file. A layer between
    two changes of form (codes to float before it, float to codes behind it) was meant for integers.
    """
    program = parse.parse(path)
    layers = program.about.get("layers") or {}
    found = []
    for number, delegate in enumerate(program.delegates):
        opened = {step.output for step in delegate.steps if _converts(delegate, step, parse.QINT8, parse.FLOAT32)}
        closed = {step.inputs[0] for step in delegate.steps if _converts(delegate, step, parse.FLOAT32, parse.QINT8)}
        for index, step in enumerate(delegate.steps):
            if step.kind in _LAYERS and step.output in closed and all(value in opened for value in step.inputs):
                found.append(str(layers.get(f"{number}/{index}", "")))
    return _known(found)


def _known(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for key in keys if key))


def _converts(delegate: parse.Delegate, step: parse.Step, before: int, after: int) -> bool:
    values = delegate.values
    return step.kind == "Convert" and (values[step.inputs[0]].datatype, values[step.output].datatype) == (before, after)
