"""Maxima whose places nobody asks for: PyTorch gives value and place, runtimes have an op for the value alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haversack.tools.graph.canonical import op_name

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram, ExportGraphSignature

_GLOBAL = {"adaptive_max_pool1d": 1, "adaptive_max_pool2d": 2}
"""Op -> how many of the last axes it pools."""
_ALONG = frozenset({"max", "min"})


def without_places(program: ExportedProgram) -> ExportedProgram:
    """Return the program with ``amax`` or ``amin`` for maxima of whole axes of which only values are read.

    It is changed in place; what it computes stays the same, bit for bit.
    """
    graph = program.graph_module.graph
    graph.eliminate_dead_code()  # export picks both, whether they are read or not
    for node in list(graph.nodes):
        if node.op == "call_function" and (found := _form(node)) is not None:
            _replace(program.graph_signature, node, *found)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def _form(node: fx.Node) -> tuple[bool, list[int], bool] | None:
    """Return (largest, axes, kept) of a maximum or minimum whose places nobody reads, or None."""
    if not node.users or any(op_name(user) != "getitem" or user.args[1] != 0 for user in node.users):
        return None
    name, arguments = op_name(node), node.args
    if name in _GLOBAL:
        sizes: Any = arguments[1]
        whole = all(size == 1 for size in (sizes if isinstance(sizes, list | tuple) else [sizes]))
        return (True, list(range(-_GLOBAL[name], 0)), True) if whole else None
    if name in _ALONG and len(arguments) > 1 and isinstance(arguments[1], int):
        return name == "max", [arguments[1]], bool(arguments[2]) if len(arguments) > 2 else False
    return None


def _replace(signature: ExportGraphSignature, node: fx.Node, largest: bool, axes: list[int], kept: bool) -> None:
    import torch

    graph = node.graph
    target: Any = torch.ops.aten.amax.default if largest else torch.ops.aten.amin.default
    source: Any = node.args[0]
    for user in list(node.users):
        with graph.inserting_before(user):
            made = graph.call_function(target, (source, axes, kept))
        made.meta = {name: value for name, value in node.meta.items() if name in ("nn_module_stack", "stack_trace")}
        made.meta["val"] = user.meta["val"]
        user.replace_all_uses_with(made)
        signature.replace_all_uses(user.name, made.name)  # where it is what leaves the model
