"""Ops that write into an argument (``relu_``), in a graph where only what flows along an edge counts.

A write is contained when nobody else can see the written tensor: then the op means the same as its plain form. A
write through a view (``y[:, 0] = 1``) leaks: the graph has no edge from the write to later readers of ``y``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx

# Their schemas promise a new tensor, but they may hand on their argument's memory.
_MAYBE_VIEWS = frozenset({"reshape", "flatten", "contiguous", "to", "dropout", "type_as", "float", "squeeze", "expand"})


def leaking(graph: fx.Graph) -> list[fx.Node]:
    """Return the ops of an exported graph that write into a tensor which another node may see."""
    return [node for node in graph.nodes if _writes(node) and not _is_contained(node)]


def without_writes(module: fx.GraphModule) -> None:
    """Let contained writes return a new tensor instead; the module is changed in place, values stay the same.

    Otherwise they would change the caller's arrays, and tensors that an observer keeps.
    """
    import torch

    for node in module.graph.nodes:
        if not _writes(node) or not _is_contained(node):
            continue
        target: Any = node.target
        namespace, _, name = target._schema.name.rstrip("_").partition("::")  # noqa: SLF001 - torch tells it nowhere else
        packet = getattr(getattr(torch.ops, namespace), name, None)
        if packet is not None and target._overloadname in packet.overloads():  # noqa: SLF001 - as above
            node.target = getattr(packet, target._overloadname)  # noqa: SLF001 - as above
    module.recompile()


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable) and bool(node.args)


def _is_contained(node: fx.Node) -> bool:
    return _is_only_reader(node.args[0])


def _is_only_reader(written: Any) -> bool:  # noqa: ANN401 - an argument of a node
    """Say whether one node reads a value, and nobody the memory that it lies in (``flatten`` may be a view of it)."""
    if not hasattr(written, "users") or len(written.users) > 1 or written.op == "get_attr":
        return False
    if written.op == "placeholder" or _writes(written):
        return True
    schema = getattr(written.target, "_schema", None)
    if schema is None:  # an item of a tuple: chunk and split return views
        return False
    name = schema.name.partition("::")[2]
    if name not in _MAYBE_VIEWS and all(result.alias_info is None for result in schema.returns):
        return True
    return _is_only_reader(written.args[0])
