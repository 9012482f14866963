"""Location: the first tensor, in execution order, at which an artefact leaves what was meant.

First what the file holds: a scale, zero-point or integer that is not the one intended is the place, and the reference
says what it does to the layer's output. If all are as intended, the runtime computes something else: then the place is
the first of the runtime's own intermediates, where it shows them, that leaves the reference's. The reference starts
anew from each tensor that the runtime shows: a layer is judged by what it makes of the runtime's own inputs, and bits
are demanded of integer layers behind float ones as well.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from haversack.base.encodings import Affine, Encodings
from haversack.base.finding import Finding
from haversack.base.keys import split_tensor
from haversack.base.model import Model, Sample
from haversack.targets.reference import Reference
from haversack.targets.reference.interpret import Interpreter
from haversack.targets.reference.refusals import refusals
from haversack.tools.graph.batches import rebatch
from haversack.tools.graph.injection import differences
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.numerics import affine
from haversack.tools.numerics.relative import relative_error

Tensors = Callable[[Sample, Sequence[str]], Mapping[str, np.ndarray]]
"""(one batch, tensor keys) -> the runtime's arrays: codes where the tensor is encoded, else float32."""

_PORT_ORDER = ("in", "weight", "out")
_EXACT_AS_INPUTS = (Role.SAME, Role.CONCAT, Role.CLAMP)
FLIPPED = 0.01
"""Behind a float op, this fraction of codes may be the neighbours of those that are meant."""


class _Way(IntEnum):
    """How a tensor is computed from what is known bit for bit.

    EXACT: in integers, or only moved. ROUNDED: by float ops, that may round their last bit differently. FLIPPED:
    through codes that a float op rounded and that nobody shows, each of which may be off by a whole step.
    """

    EXACT = 0
    ROUNDED = 1
    FLIPPED = 2


@dataclass(frozen=True)
class _Limits:
    """Relative errors that are allowed, by way."""

    exact: float
    rounded: float
    flipped: float

    def of(self, way: _Way) -> float:
        return (self.exact, self.rounded, self.flipped)[way]


def locate(
    model: Model,
    intended: Encodings,
    read_back: Encodings,
    inputs: Sample,
    *,
    tensors: Tensors | None = None,
    tolerance: float = 0.0,
    float_tolerance: float = 1e-3,
    reference_error: float = 0.0,
    reference: Reference | None = None,
) -> Finding | None:
    """Return the finding that names the place, or None if there is none.

    Args:
        model: what was encoded.
        intended: the encodings that were injected.
        read_back: those that the artefact holds.
        inputs: one batch.
        tensors: shows the runtime's intermediates; without it only what the file holds is compared.
        tolerance: relative error that a tensor may have which is computed in integers all the way from the inputs, or
            from tensors that the runtime shows.
        float_tolerance: the same for tensors with a float op on that way; a step at one value is always allowed there.
        reference_error: the reference's own error against float, for tensors behind a rounding that nobody shows: what
            flips there spreads, as far as the quantization itself does.
        reference: the reference with its settings.

    Returns:
        ``scale-changed`` or ``weight-changed`` (always told, whatever the tolerance), ``large-error-at``, or None.
    """
    meaning = reference or Reference()
    changed = _first_change(model, intended, read_back)
    if changed is not None:
        effect = _effect(model, intended, read_back, inputs, changed.layer, meaning)
        return Finding(changed.kind, changed.text + effect, changed.layer)
    if tensors is None:
        return None
    limits = _Limits(tolerance, float_tolerance, max(float_tolerance, reference_error))
    opened = meaning.opened(model, read_back)
    found = (_first_departure(model, opened, rows, tensors, limits) for rows in _apart(model, inputs))
    return next((place for place in found if place is not None), None)


def _apart(model: Model, inputs: Sample) -> Iterator[Sample]:
    """Yield the inputs as they are, or row by row where a tensor does not have its samples, one each, on axis 0.

    A file that holds one sample is run once for each, and what it shows is joined on axis 0: the steps of a recurrent
    layer, or a constant, would be joined wrongly.
    """
    batch = {port.spec.shape[0] for port in model.inputs if port.spec.shape}
    shapes = [unit.last.output.shape for unit in units(model.graph)]
    rows = (
        len(inputs[0]) if inputs and inputs[0].ndim and all(shape[:1] and shape[0] in batch for shape in shapes) else 1
    )
    yield from rebatch(model, [inputs], max(rows, 1))


def _first_change(model: Model, intended: Encodings, read_back: Encodings) -> Finding | None:
    """Return the first encoding or weight that is not the one intended, in execution order."""
    _, scales = differences(Encodings(intended.tensors), Encodings(read_back.tensors))
    found = [Finding("scale-changed", fault.cause, fault.where) for fault in scales]
    for key in {*intended.integers, *read_back.integers}:
        text = _integer_change(intended.integers.get(key), read_back.integers.get(key))
        if text:
            found.append(Finding("weight-changed", text, key))
    order = {node.key: index for index, node in enumerate(model.graph.nodes)}

    def place(finding: Finding) -> tuple[int, int, str]:
        node, port = split_tensor(finding.layer)
        return order.get(node, len(order)), _PORT_ORDER.index(port), finding.kind

    return min(found, key=place, default=None)


def _integer_change(intended: np.ndarray | None, found: np.ndarray | None) -> str:
    if intended is None:
        return "the file holds integers that nobody asked for"
    if found is None or found.shape != intended.shape:
        return "its integers are missing or of another shape"
    where = np.argwhere(found != intended)
    if not len(where):
        return ""
    first = tuple(int(index) for index in where[0])
    return (
        f"{len(where)} of {intended.size} integers differ, the first at {list(first)}: "
        f"{found[first]} instead of {intended[first]}"
    )


def _effect(
    model: Model, intended: Encodings, read_back: Encodings, inputs: Sample, key: str, reference: Reference
) -> str:
    """Say what a change does to the output of its unit, by the reference; nothing where that cannot be computed."""
    node = split_tensor(key)[0]
    outs = [unit.out for unit in units(model.graph) if node in (unit.head.key, unit.last.key)]
    if not outs or refusals(model, intended) or refusals(model, read_back):
        return ""
    values = [_observed(reference.opened(model, each), inputs, outs)[outs[0]] for each in (intended, read_back)]
    return f"; its output is then off by {relative_error(values[1], values[0]):.2g} (relative)"


def _observed(
    interpreter: Interpreter, inputs: Sample, keys: Sequence[str], given: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Return some tensors of the reference, whole batches."""
    pieces: dict[str, list[np.ndarray]] = {key: [] for key in keys}

    def keep(key: str, value: np.ndarray) -> None:
        if key in pieces:
            pieces[key].append(value.copy())

    interpreter.run(inputs, observe=keep, given=given)
    return {key: np.concatenate(found) if len(found) > 1 else found[0] for key, found in pieces.items() if found}


def _first_departure(
    model: Model, interpreter: Interpreter, inputs: Sample, tensors: Tensors, limits: _Limits
) -> Finding | None:
    """Return the first of the runtime's tensors that is not what the reference makes of the runtime's own tensors."""
    keys = [unit.out for unit in units(model.graph) if unit.last.output.dtype.startswith("float")]
    shown = {key: array for key, array in tensors(inputs, keys).items() if key in keys}
    given = _restarts(shown, interpreter.encodings)
    meant = _observed(interpreter, inputs, list(shown), given)
    ways = _ways(model, interpreter, given)
    for key in keys:
        if key not in shown or key not in meant:
            continue
        value, encoding = given.get(key, shown[key]), interpreter.encodings.affine(key)
        if value.shape != meant[key].shape:
            return Finding("large-error-at", f"it has the shape {value.shape}, not {meant[key].shape}", key)
        error, limit = relative_error(value, meant[key]), limits.of(ways[key])
        flips = ways[key] is not _Way.EXACT and encoding is not None and _flips(value, meant[key], encoding)
        if not error <= limit and not flips:
            text = f"the first tensor that leaves the reference: relative error {error:.2g}, allowed {limit:.2g}"
            return Finding("large-error-at", text, key)
    return None


def _restarts(shown: Mapping[str, np.ndarray], encodings: Encodings) -> dict[str, np.ndarray]:
    """Return the float32 values of the tensors from which the reference starts anew: codes, and float ones as such."""
    found = {}
    for key, value in shown.items():
        encoding = encodings.tensors.get(key)
        if isinstance(encoding, Affine) and np.issubdtype(value.dtype, np.integer):
            found[key] = affine.dequantize(value, encoding)
        elif encoding is None and value.dtype == np.float32:
            found[key] = value
    return found


def _flips(value: np.ndarray, meant: np.ndarray, encoding: Affine) -> bool:
    """Say whether values differ as float rounding makes them: by one step, at one value or one in a hundred."""
    if not np.isfinite(value).all():
        return False
    one, other = affine.quantize(value, encoding), affine.quantize(meant, encoding)
    apart = np.abs(one.astype(np.int64) - other.astype(np.int64))
    return int(apart.max(initial=0)) <= 1 and int(np.count_nonzero(apart)) <= max(1, apart.size * FLIPPED)


def is_exact(model: Model, encodings: Encodings, reference: Reference | None = None) -> bool:
    """Say whether every output is computed in integers all the way from the inputs, so that bits can be demanded."""
    ways = _ways(model, (reference or Reference()).opened(model, encodings))
    return all(ways[f"{key}:out"] is _Way.EXACT for key in model.graph.outputs)


def first_float(model: Model, encodings: Encodings, reference: Reference | None = None) -> str:
    """Return the key of the first node, in order of execution, that computes in float; empty where none does."""
    ways = _ways(model, (reference or Reference()).opened(model, encodings))
    return next((node.key for node in model.graph.nodes if ways[node.out] is not _Way.EXACT), "")


def _ways(model: Model, interpreter: Interpreter, given: Collection[str] = ()) -> dict[str, _Way]:
    """Return tensor key -> how it is computed from the inputs and the tensors that are given."""
    ways: dict[str, _Way] = {}
    for node in model.graph.nodes:
        sources = [f"{key}:out" for key in node.inputs]
        found = [_Way.EXACT if key in given else ways[key] for key in sources]
        whole = node.key in interpreter.integer_nodes or role(node) in (*_EXACT_AS_INPUTS, Role.INPUT)
        coded = [key for key in sources if key not in given and interpreter.encodings.affine(key) is not None]
        if any(ways[key] is not _Way.EXACT for key in coded):
            found.append(_Way.FLIPPED)
        ways[node.out] = max([_Way.EXACT if whole else _Way.ROUNDED, *found])
    return ways
