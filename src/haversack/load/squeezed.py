"""A free axis that is squeezed: with one sample it is gone, with more it stays, and no file can do both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from haversack.base.errors import ConversionError, Fault
from haversack.tools.graph.canonical import fixed, module_path, op_name

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram

_LAYERS = ("linear", "conv1d", "conv2d", "conv3d")


def refuse(program: ExportedProgram) -> None:
    """Refuse ``x.squeeze(0)`` and its like on an axis that is free.

    PyTorch takes away an axis of length 1 and leaves any other, so that what is exported with several samples keeps
    it; runtimes take it away, and the layer behind it gets one axis less than it has weights for.

    Raises:
        ConversionError: there is such a call; ``where`` is the layer that would get too few axes, by module path, or
            the call where no layer follows.
    """
    calls = [(node, axes) for node in program.graph.nodes if (axes := _free(node))]
    if not calls:
        return
    readers = [layer for node, _ in calls if (layer := _reader(node))]
    faults = tuple(
        Fault(module_path(node) or "the root module", f"{_line(node)} takes away {_axes(axes)}, which is free")
        for node, axes in calls
    )
    behind = f"{readers[0]} gets an input without its batch" if readers else "its output has no batch"
    raise ConversionError(
        f"with one sample {behind}, with more samples it keeps it: no file can do both",
        where=readers[0] if readers else faults[0].where,
        tried="looking for squeezed axes in the exported graph",
        faults=faults,
        next_step="leave that squeeze() out, or name an axis whose length is always 1; or fix the lengths: "
        'dims = {"input": {}}',
    )


def _free(node: fx.Node) -> list[int]:
    """Return the axes of a squeeze's input that it is told to take away and that have no fixed length."""
    if node.op != "call_function" or op_name(node) != "squeeze" or len(node.args) < 2:
        return []
    told, shape = node.args[1], node.all_input_nodes[0].meta["val"].shape
    asked = told if isinstance(told, list | tuple) else [told]
    axes = [axis % len(shape) for axis in asked if isinstance(axis, int) and len(shape)]
    return [axis for axis in axes if not isinstance(fixed(shape[axis]), int)]


def _reader(node: fx.Node) -> str:
    """Return the module path of the first layer that reads what a call gives, through whatever lies between."""
    return next((module_path(one) for one in _following(node) if op_name(one) in _LAYERS and module_path(one)), "")


def _following(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the calls that depend on a node, in order of execution."""
    reached = {node}
    for one in node.graph.nodes:
        if one.op == "call_function" and reached.intersection(one.all_input_nodes):
            reached.add(one)
            yield one


def _line(node: fx.Node) -> str:
    """Return the user's line, or the call's name where it is not known."""
    lines = str(node.meta.get("stack_trace") or "").strip().splitlines()
    return lines[-1].strip() if lines else "squeeze"


def _axes(axes: list[int]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"
