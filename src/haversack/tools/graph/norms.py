"""Batch norms under one name: a decomposition leaves an op of its own for them, with three outputs instead of one."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram

_WRITTEN_OUT = frozenset({"_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "native_batch_norm"})
"""Ops that give (output, mean, reciprocal deviation), by their names without namespace and overload."""


def name_norms(program: ExportedProgram) -> None:
    """Let every batch norm with fixed statistics be ``aten.batch_norm`` again; the program is changed in place.

    Decomposing a program (``run_decompositions``, also one that decomposes nothing else) writes such a norm as an op
    with three outputs and the choice of the first. The node that chooses becomes the norm: name, place, meta data and
    values stay as they are.
    """
    import torch

    changed = False
    for node in list(program.graph.nodes):
        arguments = _fixed_norm(node)
        chosen = [user for user in node.users if user.target is operator.getitem and user.args[1] == 0]
        if arguments is None or not chosen:
            continue
        for user in chosen:
            user.target, user.args = torch.ops.aten.batch_norm.default, arguments
        if not node.users:
            program.graph.erase_node(node)
        changed = True
    if changed:
        program.graph_module.recompile()


def _fixed_norm(node: fx.Node) -> tuple[Any, ...] | None:
    """Return the arguments that ``aten.batch_norm`` takes; None for what is no batch norm with fixed statistics."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or schema.name.partition("::")[2] not in _WRITTEN_OUT:
        return None
    names = [argument.name for argument in schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    statistics = [given.get(name) for name in ("running_mean", "running_var")]
    if given.get("training") or None in statistics:
        return None
    return (given["input"], given["weight"], given["bias"], *statistics, False, given["momentum"], given["eps"], False)
