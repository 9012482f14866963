"""Rewriting the graph: edit the program as an fx GraphModule, export it again, keep the tensor keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from haversack.base.model import Model
from haversack.tools.graph.canonical import fixed, to_model, user_inputs

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram


def rewrite(model: Model, edit: Callable[[fx.GraphModule], None], note: str) -> Model:
    """Return the model with its graph edited.

    Args:
        model: unchanged.
        edit: changes the module in place (its parameters hold the model's current weights). Module stacks of kept
            nodes survive, so tensor keys change only where nodes were removed or added.
        note: added to the model's notes.
    """
    import torch

    module = model.program.module(check_guards=False)
    give_weights(module, model.weights)
    edit(module)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    program = torch.export.export(module, example(model.program), dynamic_shapes=free_shapes(model.program))
    dims = {
        port.name: {axis: size for axis, size in enumerate(port.spec.shape) if isinstance(size, str)}
        for port in model.inputs
    }
    return to_model(
        program,
        model.name,
        input_names=[port.name for port in model.inputs],
        output_names=[port.name for port in model.outputs],
        dims=dims,
        notes=(*model.notes, note),
    )


def example(program: ExportedProgram) -> tuple[object, ...]:
    """Return inputs that fit the program, of the lengths it was exported with (zeros)."""
    import torch

    found = []
    for node in user_inputs(program):
        value = node.meta["val"]
        shape = [size if isinstance(size, int) else int(size.node.hint or 2) for size in value.shape]
        found.append(torch.zeros(shape, dtype=value.dtype))
    return tuple(found)


def free_shapes(program: ExportedProgram) -> tuple[object, ...]:
    """Return the dynamic_shapes argument that keeps the program's free dimensions free."""
    import torch

    dims: dict[str, object] = {}
    found = []
    for node in user_inputs(program):
        axes: dict[int, object] = {}
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(fixed(size), str):
                axes[axis] = dims.setdefault(str(size), torch.export.Dim.AUTO)
        found.append(axes)
    return tuple(found)


def give_weights(module: fx.GraphModule, values: Mapping[str, np.ndarray]) -> None:
    """Give a module from ``program.module()`` copies of weights (any dtype and shape), by name; others are passed over.

    Its own tensors are replaced, not written into: a program shares them with all its modules, and models with them.
    """
    import torch

    for registry in (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)):
        for name, old in list(registry):
            if name in values:
                owner, _, leaf = name.rpartition(".")
                new = torch.from_numpy(np.array(values[name]))
                is_parameter = isinstance(old, torch.nn.Parameter)
                value = torch.nn.Parameter(new, requires_grad=False) if is_parameter else new
                setattr(module.get_submodule(owner), leaf, value)
