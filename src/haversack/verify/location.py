"""Location: the first tensor, in execution order, at which an artefact leaves what was meant.

First what the file holds: a scale, zero-point or integer that is not the one intended is the place, and the reference
says what it does to the layer's output. If all are as intended, the runtime computes something else: then the place is
the first of the runtime's own intermediates, where it shows them, that leaves the reference's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.finding import Finding
from haversack.base.keys import split_tensor
from haversack.base.model import Model, Sample
from haversack.targets.contract import differences
from haversack.targets.reference import Reference
from haversack.targets.reference.interpret import Interpreter
from haversack.targets.reference.refusals import refusals
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.numerics import affine
from haversack.verify.error import relative_error

Tensors = Callable[[Sample, Sequence[str]], Mapping[str, np.ndarray]]
"""(one batch, tensor keys) -> the runtime's arrays: codes where the tensor is encoded, else float32."""

_PORT_ORDER = ("in", "weight", "out")
_EXACT_AS_INPUTS = (Role.SAME, Role.CONCAT, Role.CLAMP)


def locate(
    model: Model,
    intended: Encodings,
    read_back: Encodings,
    inputs: Sample,
    *,
    tensors: Tensors | None = None,
    tolerance: float = 0.0,
    float_tolerance: float = 1e-3,
    reference: Reference | None = None,
) -> Finding | None:
    """Return the finding that names the place, or None if there is none.

    Args:
        model: what was encoded.
        intended: the encodings that were injected.
        read_back: those that the artefact holds.
        inputs: one batch.
        tensors: shows the runtime's intermediates; without it only what the file holds is compared.
        tolerance: relative error that a tensor may have which is computed in integers all the way from the inputs.
        float_tolerance: the same for tensors with a float op on their way.
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
    return _first_departure(model, meaning.opened(model, read_back), inputs, tensors, tolerance, float_tolerance)


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


def _observed(interpreter: Interpreter, inputs: Sample, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Return some tensors of the reference, whole batches."""
    pieces: dict[str, list[np.ndarray]] = {key: [] for key in keys}

    def keep(key: str, value: np.ndarray) -> None:
        if key in pieces:
            pieces[key].append(value.copy())

    interpreter.run(inputs, observe=keep)
    return {key: np.concatenate(found) if len(found) > 1 else found[0] for key, found in pieces.items() if found}


def _first_departure(
    model: Model, interpreter: Interpreter, inputs: Sample, tensors: Tensors, tolerance: float, float_tolerance: float
) -> Finding | None:
    """Return the first of the runtime's tensors that leaves the reference's by more than its tolerance."""
    keys = [unit.out for unit in units(model.graph) if unit.last.output.dtype.startswith("float")]
    shown = tensors(inputs, keys)
    meant = _observed(interpreter, inputs, [key for key in keys if key in shown])
    exact = _exact_tensors(model, interpreter)
    for key in keys:
        if key not in shown or key not in meant:
            continue
        value, encoding = shown[key], interpreter.encodings.affine(key)
        if encoding is not None and np.issubdtype(value.dtype, np.integer):
            value = affine.dequantize(value, encoding)
        if value.shape != meant[key].shape:
            return Finding("large-error-at", f"it has the shape {value.shape}, not {meant[key].shape}", key)
        error, limit = relative_error(value, meant[key]), tolerance if key in exact else float_tolerance
        if not error <= limit:
            text = f"the first tensor that leaves the reference: relative error {error:.2g}, allowed {limit:.2g}"
            return Finding("large-error-at", text, key)
    return None


def is_exact(model: Model, encodings: Encodings, reference: Reference | None = None) -> bool:
    """Say whether every output is computed in integers all the way from the inputs, so that bits can be demanded."""
    exact = _exact_tensors(model, (reference or Reference()).opened(model, encodings))
    return all(f"{key}:out" in exact for key in model.graph.outputs)


def _exact_tensors(model: Model, interpreter: Interpreter) -> frozenset[str]:
    """Return the tensors that no float op has touched on their way from the inputs."""
    exact: set[str] = set()
    for node in model.graph.nodes:
        whole = node.key in interpreter.integer_nodes or role(node) in (*_EXACT_AS_INPUTS, Role.INPUT)
        if whole and all(key in exact for key in node.inputs):
            exact.add(node.key)
    return frozenset(f"{key}:out" for key in exact)
