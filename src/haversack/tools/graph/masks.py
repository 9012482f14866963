"""What language models do beside their arithmetic, in fewer ops: masks, ids that are the same everywhere, spreading.

Exporters write a padding mask out as a lookup of every place by counting up both axes, and-ed with conditions that a
counter meets by itself (``places >= 0``); and where no token types are given, they look a row of zeros up at every
place, and the embedding of each. Runtimes then run some forty small ops in each call for one view and one vector.
PyTorch's ``normalize`` spreads the norms to the shape of what it divides, which a division does by itself.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from haversack.tools.graph.canonical import fixed, op_name

if TYPE_CHECKING:
    import torch
    from torch import fx
    from torch.export import ExportedProgram

_AND = frozenset({"__and", "bitwise_and", "logical_and"})
"""As ``op_name`` says them."""
_SPREADING = frozenset({"div", "mul", "sub"})
"""Ops that spread axes of length 1 by themselves, and have no integer form that would want equal shapes."""


def without_lookups(program: ExportedProgram) -> ExportedProgram:
    """Return the program with such lookups as views, without such conditions and spreading; it is changed in place.

    What it computes stays the same, bit for bit. ``x[arange(n)[:, None], arange(m)[None, :]]`` of an ``x`` of n by m
    is ``x``; of indices with more axes it is ``x`` with axes of length 1 between its own. An embedding of ids that a
    buffer gives the same everywhere is that of one id, where it is added to what has the shape already.
    """
    graph = program.graph_module.graph
    buffers = _even_buffers(program)
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        name = op_name(node)
        if name == "index":
            _as_view(graph, node)
        elif name in _AND:
            _without_truth(node)
        elif name == "embedding":
            _of_one_id(graph, node, buffers)
        elif name in ("expand", "expand_as"):
            _unspread(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def _as_view(graph: fx.Graph, node: fx.Node) -> None:
    """Put a view in the place of a lookup whose indices count whole axes in order."""
    import torch

    source: Any = node.args[0]
    indices: Any = node.args[1]
    if not all(hasattr(index, "meta") for index in indices):
        return
    rank = max(index.meta["val"].dim() for index in indices)
    places = []
    for index, size in zip(indices, source.meta["val"].shape, strict=False):
        found = _counter(index)
        if found is None or str(fixed(found[0])) != str(fixed(size)):
            return
        places.append(rank - index.meta["val"].dim() + found[1])
    if places != sorted(set(places)):
        return
    made: fx.Node = source
    with graph.inserting_before(node):
        for place in range(rank):
            if place not in places:
                made = _call(graph, node, torch.ops.aten.unsqueeze.default, made, place)
    node.replace_all_uses_with(made)


def _call(graph: fx.Graph, instead: fx.Node, target: Any, source: fx.Node, place: int) -> fx.Node:  # noqa: ANN401 - an op
    """Return a call that stands where another one stood, in the same module."""
    made = graph.call_function(target, (source, place))
    made.meta = {**_place(instead), "val": target(source.meta["val"], place)}
    return made


def _counter(node: Any) -> tuple[Any, int] | None:  # noqa: ANN401 - an argument of a node
    """Return how far a node counts up from 0, and along which axis; all others have length 1. None if it does not."""
    if not hasattr(node, "meta") or node.op != "call_function":
        return None
    name, value, settings = op_name(node), node.meta.get("val"), tuple(node.args[1:])
    if name == "arange":
        whole = len(node.args) == 1 or (len(node.args) == 2 and node.args[0] == 0)
        return (value.shape[0], 0) if whole and not value.is_floating_point() else None
    found = _counter(node.args[0]) if node.args else None
    if found is None:
        return None
    if name == "unsqueeze":
        return found[0], found[1] + (settings[0] % value.dim() <= found[1])
    zero = name == "add" and settings == (0,) and not node.kwargs
    whole = name == "slice" and settings[1:] in ((), (0,), (0, sys.maxsize))
    return found if zero or whole else None


def _without_truth(node: fx.Node) -> None:
    """Hand on one operand of an ``and`` whose other one always holds, where its readers see the same shape."""
    first, second, *_ = node.args
    pairs: list[tuple[Any, Any]] = [(first, second), (second, first)]
    for held, other in pairs:
        if not _always(held) or not hasattr(other, "meta") or other.meta["val"].dtype != node.meta["val"].dtype:
            continue
        same = [str(size) for size in other.meta["val"].shape] == [str(size) for size in node.meta["val"].shape]
        if same or all(_spreads(user, node) for user in node.users):
            node.replace_all_uses_with(other)
            return


def _always(node: Any) -> bool:  # noqa: ANN401 - an argument of a node
    """Say whether a boolean tensor is true everywhere, whatever the inputs are."""
    if getattr(node, "op", "") != "call_function" or str(getattr(node.meta.get("val"), "dtype", "")) != "torch.bool":
        return False
    name = op_name(node)
    if name in ("new_ones", "ones", "ones_like"):
        return True
    if name == "ge":
        return _counter(node.args[0]) is not None and isinstance(node.args[1], int) and node.args[1] <= 0
    if name in ("to", "expand", "unsqueeze", "slice"):
        return _always(node.args[0])
    return name in _AND and all(_always(one) for one in node.args[:2])


def _spreads(user: fx.Node, node: fx.Node) -> bool:
    """Say whether a reader spreads a value to a shape that it states, so that axes of length 1 do; or checks it."""
    name = op_name(user)
    if name == "_assert_tensor_metadata":
        return True
    sizes = user.args[1] if name == "expand" and len(user.args) > 1 else None
    rank = node.meta["val"].dim()
    if not isinstance(sizes, list | tuple) or len(sizes) != rank:
        return False
    lengths = node.meta["val"].shape
    return all(size != -1 or str(length) == "1" for size, length in zip(sizes, lengths, strict=True))


def _even_buffers(program: ExportedProgram) -> frozenset[str]:
    """Return the names of the placeholders whose values are the same integer everywhere."""
    held = {**program.constants, **program.state_dict}
    named = {**program.graph_signature.inputs_to_buffers, **program.graph_signature.inputs_to_lifted_tensor_constants}
    return frozenset(
        name
        for name, target in named.items()
        if target in held and not held[target].is_floating_point() and held[target].numel() and _even(held[target])
    )


def _even(tensor: torch.Tensor) -> bool:
    return bool((tensor == tensor.reshape(-1)[0]).all())


def _of_one_id(graph: fx.Graph, node: fx.Node, buffers: frozenset[str]) -> None:
    """Let an embedding look one id up where all are the same, and its readers give its vector the shape."""
    import torch

    ids: Any = node.args[1]
    buffer = _source(ids)
    shape = [str(size) for size in node.meta["val"].shape]
    if buffer.name not in buffers or buffer is ids or buffer.meta["val"].dim() != ids.meta["val"].dim():
        return
    if not all(op_name(user) == "add" and _stands(user, node, shape) for user in node.users):
        return
    with graph.inserting_before(node):
        for axis in range(buffer.meta["val"].dim()):
            value = torch.ops.aten.slice.Tensor(buffer.meta["val"], axis, 0, 1)
            buffer = graph.call_function(torch.ops.aten.slice.Tensor, (buffer, axis, 0, 1))
            buffer.meta = {**_place(ids), "val": value}
    node.args = (node.args[0], buffer, *node.args[2:])
    table: Any = node.args[0]
    node.meta["val"] = torch.ops.aten.embedding.default(table.meta["val"], buffer.meta["val"])


def _unspread(node: fx.Node) -> None:
    """Hand on what is spread to the shape of the other operand, where every reader would spread it by itself."""
    source: Any = node.args[0]
    shape = [str(size) for size in node.meta["val"].shape]
    if source.meta["val"].dim() == len(shape) and all(
        op_name(user) in _SPREADING and _stands(user, node, shape) for user in node.users
    ):
        node.replace_all_uses_with(source)


def _source(node: Any) -> Any:  # noqa: ANN401 - an argument of a node
    """Return what a value is a part or a repetition of."""
    while node.op == "call_function" and op_name(node) in ("expand", "slice", "gather", "unsqueeze"):
        node = node.args[0]
    return node


def _stands(user: fx.Node, node: fx.Node, shape: list[str]) -> bool:
    """Say whether an op has another operand, and that has the shape already."""
    others: list[Any] = [value for value in user.args[:2] if value is not node]
    return bool(others) and all(
        hasattr(one, "meta") and [str(size) for size in one.meta["val"].shape] == shape for one in others
    )


def _place(node: fx.Node) -> dict[str, Any]:
    """Return where a call stands: its modules and its line."""
    return {name: value for name, value in node.meta.items() if name in ("nn_module_stack", "stack_trace")}
