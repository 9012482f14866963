"""From a Job to a Model: built, examined, exported once by torch.export, and compared with itself in PyTorch.

The batch (axis 0 of every input) is free, and so is every axis that ``dims`` names; ``dims = {"x": {}}`` fixes all
axes of ``x`` at the length they have in the first calibration batch. A dimension that should be free and is not is
an error with a place, never a silently fixed model.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.errors import ConversionError, Fault, HaversackError, JobError
from haversack.base.job import Job
from haversack.base.model import Model, Sample
from haversack.load import agreement, examine, squeezed, torchscript
from haversack.load.blame import place_of
from haversack.load.quiet import quiet
from haversack.load.user_code import first_line
from haversack.tools.graph.canonical import fixed as fixed_size
from haversack.tools.graph.canonical import module_path, op_name, to_model, user_inputs
from haversack.tools.graph.masks import without_lookups
from haversack.tools.graph.maxima import without_places
from haversack.tools.graph.plainer import plainer
from haversack.tools.graph.recurrent import unrolled
from haversack.tools.graph.writes import leaking

if TYPE_CHECKING:
    import torch
    from torch import fx, nn
    from torch.export import ExportedProgram

BATCH = "batch"


@dataclass(frozen=True)
class Interface:
    """Names and free axes of the inputs, and the example they are exported with (arrays, samples on axis 0)."""

    names: tuple[str, ...]
    free: tuple[Mapping[int, str], ...]
    example: Sample

    def words(self) -> str:
        """Say which axes are free."""
        pairs = zip(self.names, self.free, strict=True)
        return ", ".join(f"{name}[{axis}]={dim}" for name, axes in pairs for axis, dim in axes.items()) or "none"


def export(job: Job, *, batch: Sample | None = None) -> Model:
    """Build, examine and export the job's model.

    Args:
        job: the job.
        batch: one batch as the model takes it, arrays with the samples on axis 0; the first of ``calibration()`` when
            absent (give it when the job's data are raw, preprocessed).

    Raises:
        JobError: no module, training mode, weights or data that are not finite, inputs that do not fit.
        ConversionError: it cannot be exported with its dimensions free, or the exported model computes something else;
            ``where`` is the layer by module path and the user's line.
    """
    module = examine.module_of(job)
    batch = examine.first_batch(job) if batch is None else examine.checked(batch, job)
    interface = _interface(module, batch, job)
    with quiet():
        outputs = _eager(module, batch, interface, job)
        program = plainer(_export(torchscript.plain(module, interface.example), interface))
        program = without_places(without_lookups(unrolled(program)))
        if leaking(program.graph):  # y[:, 0] = 1
            program = program.run_decompositions({})
        _check_free(program, module, interface)
        _check_inference(program, job)
        squeezed.refuse(program)
        names = job.output_names or _output_names(outputs)
        dims = {name: dict(axes) for name, axes in zip(interface.names, interface.free, strict=True)}
        model = to_model(program, job.name, input_names=interface.names, output_names=names, dims=dims)
        agreement.check(model, module, agreement.probe(batch, interface.example, interface.free))
    return model


def _interface(module: nn.Module, batch: Sample, job: Job) -> Interface:
    names = examine.input_names(module, batch, job)
    free = tuple({0: BATCH} if name not in job.dims else dict(job.dims[name]) for name in names)
    # torch.export takes a length of 1 for a constant, and equal lengths for one dimension: take two samples, or three.
    lengths = {array.shape[axis] for array, axes in zip(batch, free, strict=True) for axis in axes if axis}
    count = next(n for n in range(2, len(lengths) + 3) if n not in lengths)
    batched = all(0 in axes for axes in free)
    example = tuple(array[np.arange(count) % len(array)] for array in batch) if batched else batch
    short = [
        Fault(name, f"axis {axis} ({dim}) has length 1")
        for name, array, axes in zip(names, example, free, strict=True)
        for axis, dim in axes.items()
        if array.shape[axis] < 2
    ]
    if short:
        raise JobError(
            "a free dimension needs a first calibration batch of length 2 or more there",
            where=job.source,
            faults=tuple(short),
        )
    return Interface(names, free, example)


def _eager(module: nn.Module, batch: Sample, interface: Interface, job: Job) -> Any:  # noqa: ANN401 - any outputs
    """Run the module as it is: a batch that does not fit fails here, at the layer that does not take it."""
    import torch

    example = interface.example
    try:
        with torch.no_grad():
            return module(*_tensors(example))
    except (HaversackError, KeyboardInterrupt):
        raise
    except Exception as error:
        if _runs(module, batch):
            raise ConversionError(
                f"the model takes a batch of {len(batch[0])}, but none of {len(example[0])}: {first_line(error)}",
                where=place_of(error, module),
                tried="running both in PyTorch",
                next_step=_fix(interface.names),
            ) from error
        kinds = ", ".join(f"{array.dtype}{list(array.shape)}" for array in example)
        raise JobError(
            f"the model does not take a batch of calibration() ({kinds}): {first_line(error)}",
            where=place_of(error, module),
            tried="running it in PyTorch",
            next_step=_dtype_hint(module, example) or f"mend calibration() in {job.source}, or forward()",
        ) from error


def _runs(module: nn.Module, batch: Sample) -> bool:
    import torch

    try:
        with torch.no_grad():
            module(*_tensors(batch))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return False
    return True


def _dtype_hint(module: nn.Module, example: Sample) -> str:
    weight = next((value for value in module.parameters() if value.is_floating_point()), None)
    name = str(weight.dtype).removeprefix("torch.") if weight is not None else ""
    wrong = {str(array.dtype) for array in example if array.dtype.kind == "f" and name not in ("", str(array.dtype))}
    fix = f"array.astype(np.{name})" if name in ("float32", "float64") else "return model.float() from model()"
    return f"the data are {', '.join(sorted(wrong))}, the weights {name}: {fix}" if wrong else ""


def _export(module: nn.Module, interface: Interface) -> ExportedProgram:
    import torch

    shapes: list[Any] = [dict.fromkeys(axes, torch.export.Dim.AUTO) for axes in interface.free]
    parameters = list(inspect.signature(module.forward).parameters.values())
    rest = [index for index, parameter in enumerate(parameters) if parameter.kind is parameter.VAR_POSITIONAL]
    if rest:  # *args is one argument to torch.export
        shapes[rest[0] :] = [tuple(shapes[rest[0] :])]
    try:
        return torch.export.export(module, _tensors(interface.example), dynamic_shapes=tuple(shapes), strict=False)
    except (HaversackError, KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        cause, step = _explain(error)
        raise ConversionError(
            cause,
            where=place_of(error, module),
            tried=f"torch.export.export(strict=False), free dimensions: {interface.words()}",
            next_step=step,
        ) from error


def _explain(error: Exception) -> tuple[str, str]:
    """Return cause and next step for what torch.export raised."""
    kind, text = type(error).__name__, first_line(error)
    if kind == "GuardOnDataDependentSymNode" or "data-dependent" in str(error):
        return (
            f"its control flow depends on the values of a tensor, which no exported graph can follow: {text}",
            "compute both sides and choose with torch.where, or take the decision out of forward()",
        )
    if "dynamic_shapes" in text or kind == "ConstraintViolationError":
        return f"a free dimension is not free in this model: {text}", 'fix it: dims = {"input": {}}'
    return f"torch.export cannot follow this layer: {kind}: {text}", "write this line in plain PyTorch operations"


def _check_free(program: ExportedProgram, module: nn.Module, interface: Interface) -> None:
    """Say where a dimension that should be free became a constant."""
    fixed = [
        (Fault(name, f"axis {axis} ({dim}) is fixed at {length}"), length)
        for name, axes, node in zip(interface.names, interface.free, user_inputs(program), strict=True)
        for axis, dim in axes.items()
        if isinstance(length := fixed_size(node.meta["val"].shape[axis]), int)
    ]
    if fixed:
        raise ConversionError(
            "the model works for one length only where any length is wanted",
            where=_breaks_at(module, interface) or _holds_number(program, fixed) or type(module).__name__,
            tried=f"torch.export.export(strict=False), free dimensions: {interface.words()}",
            faults=tuple(fault for fault, _ in fixed),
            next_step=_fix(fault.where for fault, _ in fixed),
        )


def _fix(names: Iterable[str]) -> str:
    axes = ", ".join(f"{name!r}: {{}}" for name in names)
    return (
        f"use x.shape[0] or -1 instead of a number (len(x) is one), or fix the lengths to the data's: dims = {{{axes}}}"
    )


def _breaks_at(module: nn.Module, interface: Interface) -> str:
    """Return the place that breaks when every free axis is one longer than the example."""
    import torch

    longer = []
    for array, axes in zip(interface.example, interface.free, strict=True):
        grown = array
        for axis in axes:
            grown = np.concatenate([grown, np.take(grown, [0], axis=axis)], axis=axis)
        longer.append(grown)
    try:
        with torch.no_grad():
            module(*_tensors(tuple(longer)))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        return place_of(error, module)
    return ""


def _check_inference(program: ExportedProgram, job: Job) -> None:
    """Find ops that were told to train (``F.dropout(x)`` trains unless told otherwise)."""
    faults = []
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or node.op != "call_function":
            continue
        given = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | dict(node.kwargs)
        if given.get("train") is True or given.get("training") is True:
            faults.append(Fault(_node_place(node), "trains"))
    if faults:
        raise JobError(
            "the model computes in training mode",
            where=job.source,
            faults=tuple(faults),
            next_step="pass training=self.training to functional ops; export programs from model.eval()",
        )


def _holds_number(program: ExportedProgram, fixed: list[tuple[Fault, int]]) -> str:
    """Return the first call that is given one of the fixed lengths as a size, and so may have fixed it."""
    lengths = {length for _, length in fixed}
    for node in program.graph.nodes:
        sizes = [item for value in node.args if isinstance(value, list | tuple) for item in value]
        if node.op == "call_function" and any(type(size) is int and size in lengths for size in sizes):
            return f"perhaps {_node_place(node)}"
    return ""


def _node_place(node: fx.Node) -> str:
    """Return the module path of a call and the user's source line."""
    line = (str(node.meta.get("stack_trace") or "").strip().splitlines() or [""])[-1].strip()
    path = module_path(node) or "the root module"
    return f"{path} ({op_name(node)}: {line})" if line else f"{path} ({op_name(node)})"


def _output_names(outputs: Any) -> tuple[str, ...]:  # noqa: ANN401 - what forward() returns
    """Return the keys of a dictionary (or transformers' ModelOutput) of tensors; nothing for other outputs."""
    import torch

    if isinstance(outputs, Mapping) and all(isinstance(value, torch.Tensor) for value in outputs.values()):
        return tuple(str(name) for name in outputs)
    return ()


def _tensors(sample: Sample) -> tuple[torch.Tensor, ...]:
    import torch

    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in sample)
