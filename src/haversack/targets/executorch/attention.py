"""Shapes in the form that XNNPACK takes: products of matrices over three axes, views with one length left open.

A file holds a batch of one. PyTorch decomposes a product over four axes into copies that expand nothing, which XNNPACK
does not take, and into shapes with two free lengths, which it cannot state. Over three axes neither is there. A view
with one free length is delegated where that length is to be found by the kernel (-1), not computed beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram

_VIEWS = frozenset({"view", "reshape", "_unsafe_view"})
_AXES = frozenset({"unsqueeze", "squeeze"})
_ELEMENTWISE = frozenset({"mul", "add", "sub", "div", "softmax", "maximum", "minimum", "clamp", "where"})


def flatten(program: ExportedProgram) -> None:
    """Rewrite, in place, products [1, a, b, c] x [1, a, c, d] and the elementwise nodes that follow them."""
    graph = program.graph_module.graph
    flat = _Flat(graph)
    for node in list(graph.nodes):
        if _name(node) in _VIEWS:
            _leave_open(node)
        if _name(node) in _AXES:
            _reshape(node)
        if node.op == "call_function" and flat.takes(node):
            flat.write(node)
    flat.close()
    graph.eliminate_dead_code()
    graph.lint()
    program.graph_module.recompile()


def _leave_open(node: fx.Node) -> None:
    """Let a view find its one free length itself."""
    import torch

    sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
    source: Any = node.args[0]
    if sizes.count(-1) != 1:
        return
    if _name(node) == "reshape":  # decomposed, it would state the length again; what it copies XNNPACK need not
        graph = node.graph
        with graph.inserting_before(node):
            plain = {"memory_format": torch.contiguous_format}
            source = _call(graph, node, torch.ops.aten.clone.default, (source,), plain)
        node.target = torch.ops.aten.view.default
    node.args = (source, sizes)


def _reshape(node: fx.Node) -> None:
    """Let an axis of length one come or go by a view, which XNNPACK takes; one length may be free at most."""
    import torch

    sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
    if sizes.count(-1) <= 1:
        node.target, node.args, node.kwargs = torch.ops.aten.view.default, (node.args[0], sizes), {}


class _Flat:
    """What has been rewritten so far: ``made`` maps a node to its form without the leading axis."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.made: dict[fx.Node, fx.Node] = {}
        self.cut: dict[fx.Node, fx.Node] = {}

    def takes(self, node: fx.Node) -> bool:
        """Say whether a node is a product over four axes, or an elementwise one behind such a product."""
        name = _name(node)
        if not _leads_with_one(node):
            return False
        if name == "matmul":
            return all(_leads_with_one(each) for each in node.all_input_nodes)
        if name not in _ELEMENTWISE or not any(each in self.made for each in node.all_input_nodes):
            return False
        if name == "softmax" and int(node.args[1]) in (0, -4):  # type: ignore[arg-type]  # an axis
            return False
        return all(_rank(each) < 4 or _leads_with_one(each) for each in node.all_input_nodes)

    def write(self, node: fx.Node) -> None:
        """Write one node over three axes."""
        import torch

        given: tuple[Any, ...] = tuple(self._three(each) for each in node.args)
        target: Any = node.target
        if _name(node) == "matmul":
            target = torch.ops.aten.bmm.default
            sizes = {str(each.meta["val"].shape[0]) for each in given}
            given = given if len(sizes) == 1 else tuple(self._alike(node, each) for each in given)
        elif _name(node) == "softmax":
            given = (given[0], int(given[1]) - (1 if int(given[1]) > 0 else 0), *given[2:])
        with self.graph.inserting_before(node):
            self.made[node] = _call(self.graph, node, target, given, node.kwargs)

    def close(self) -> None:
        """Give back the leading axis where somebody else reads it."""
        import torch

        for node, made in self.made.items():
            if any(user not in self.made for user in node.users):
                with self.graph.inserting_before(node):
                    wide = self._shaped(node, made, node.meta["val"].shape, torch.ops.aten.unsqueeze.default)
                node.replace_all_uses_with(wide, delete_user_cb=lambda user: user not in self.made)

    def _three(self, given: Any) -> Any:  # noqa: ANN401 - an argument of a node
        import torch
        from torch import fx

        if not isinstance(given, fx.Node) or _rank(given) != 4:
            return given
        if given in self.made:
            return self.made[given]
        if given not in self.cut:
            with self.graph.inserting_after(given):
                shape = given.meta["val"].shape[1:]
                self.cut[given] = self._shaped(given, given, shape, torch.ops.aten.squeeze.dim)
        return self.cut[given]

    def _alike(self, node: fx.Node, given: fx.Node) -> fx.Node:
        """Return a factor with as many matrices as the product has."""
        import torch

        shape = [node.meta["val"].shape[1], *([-1] * 2)]
        with self.graph.inserting_before(node):
            return _call(self.graph, given, torch.ops.aten.expand.default, (given, shape), {})

    def _shaped(self, like: fx.Node, source: fx.Node, shape: Any, otherwise: Any) -> fx.Node:  # noqa: ANN401
        """Return a node in a shape that differs by the leading axis: a view, where it has at most one free length."""
        import torch

        sizes = [size if isinstance(size, int) else -1 for size in shape]
        if sizes.count(-1) > 1:
            return _call(self.graph, like, otherwise, (source, 0), {})
        return _call(self.graph, like, torch.ops.aten.view.default, (source, sizes), {})


def _call(graph: fx.Graph, like: fx.Node, target: Any, args: tuple[Any, ...], kwargs: Any) -> fx.Node:  # noqa: ANN401
    """Return a new node, its value known as export knows it, under the key of another."""
    made = graph.call_function(target, args, kwargs)
    made.meta = {name: value for name, value in like.meta.items() if name == "custom"}
    with like.meta["val"].fake_mode:
        made.meta["val"] = target(
            *(_value(each) for each in args), **{name: _value(each) for name, each in kwargs.items()}
        )
    return made


def _value(given: Any) -> Any:  # noqa: ANN401 - an argument of a node
    return given.meta["val"] if hasattr(given, "meta") else given


def _name(node: fx.Node) -> str:
    return str(getattr(getattr(node.target, "overloadpacket", None), "__name__", ""))


def _rank(node: fx.Node) -> int:
    return len(getattr(node.meta.get("val"), "shape", ()))


def _leads_with_one(node: fx.Node) -> bool:
    """Say whether a node's value has four axes, the first of length one."""
    return _rank(node) == 4 and str(node.meta["val"].shape[0]) == "1"
