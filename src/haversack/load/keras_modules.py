"""Graphs of PyTorch for Keras layers that PyTorch has no module for, and for the network that strings all of them up.

Images flow as [N, C, H, W]; what sees the order of values (flattening, reshaping) turns them to Keras' order first.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import fx, nn

IMAGE = 4
TO_KERAS, FROM_KERAS = (0, 2, 3, 1), (0, 3, 1, 2)
Call = tuple[str, tuple[int, ...], tuple[int, ...]]
"""A call of a layer: its name, the numbers of the values that it takes, and of those that it gives."""
Port = tuple[str, int, bool]
"""An input or output: its name, the number of its value, and whether it is an image that is turned here."""


def build(name: str, layer: Any) -> nn.Module:  # noqa: ANN401 - a Keras layer
    """Return the module of a layer by its class.

    Args:
        name: its class in Keras.
        layer: built.
    """
    takes = layer.input if isinstance(layer.input, list) else [layer.input]
    return _module(len(takes), lambda graph, *values: _emitted(graph, name, layer, values))


def _module(count: int, emit: Callable[..., fx.Node]) -> nn.Module:
    from torch import fx

    graph = fx.Graph()
    values = [graph.placeholder(f"x{index}") for index in range(count)]
    graph.output(emit(graph, *values))
    return fx.GraphModule({}, graph).eval()


def _emitted(graph: fx.Graph, name: str, layer: Any, values: Sequence[fx.Node]) -> fx.Node:  # noqa: ANN401
    """Write the ops of a layer and return what it gives."""
    import torch

    first, shape = values[0], tuple(layer.output.shape)
    if name in ("Add", "Multiply"):
        for value in values[1:]:
            first = graph.call_function(torch.mul if name == "Multiply" else torch.add, (first, value))
        return first
    if name == "Concatenate":
        axis = layer.axis % len(shape)
        moved = FROM_KERAS.index(axis) if len(shape) == IMAGE else axis
        return graph.call_function(torch.cat, (list(values), moved))
    if name == "Rescaling":
        scaled = graph.call_function(torch.mul, (first, float(layer.scale)))
        return graph.call_function(torch.add, (scaled, float(layer.offset)))
    if name == "GlobalMaxPooling2D":
        return graph.call_function(torch.amax, (first, (2, 3), bool(layer.keepdims)))
    if name == "GlobalAveragePooling2D":
        return graph.call_function(torch.mean, (first, (2, 3), bool(layer.keepdims)))
    return _shaped(graph, first, tuple(layer.input.shape[1:]), shape[1:])


def _shaped(graph: fx.Graph, value: fx.Node, before: tuple[int, ...], after: tuple[int, ...]) -> fx.Node:
    """Write the same values in another shape (without the batch); one pixel needs no turn."""
    if len(before) == IMAGE - 1 and before[:2] != (1, 1):
        value = graph.call_method("permute", (value, *TO_KERAS))
    if len(after) == IMAGE - 1 and after[:2] == (1, 1):
        return graph.call_method("reshape", (value, -1, after[2], 1, 1))
    value = graph.call_method("reshape", (value, -1, *after))
    return graph.call_method("permute", (value, *FROM_KERAS)) if len(after) == IMAGE - 1 else value


def network(
    layers: Mapping[str, nn.Module], calls: Sequence[Call], inputs: Sequence[Port], outputs: Sequence[Port]
) -> nn.Module:
    """Return a Keras model as one module.

    Args:
        layers: name -> module, in eval mode.
        calls: in execution order.
        inputs, outputs: in the order of the model's; one output is returned as it is, several as a tuple.
    """
    from torch import fx

    graph = fx.Graph()
    values: dict[int, fx.Node] = {}
    for name, number, turn in inputs:
        given = graph.placeholder(name)
        values[number] = graph.call_method("permute", (given, *FROM_KERAS)) if turn else given
    for name, takes, gives in calls:
        made = graph.call_module(name, tuple(values[number] for number in takes))
        values[gives[0]] = made  # no layer of the list gives several, and a model inside gives one or is refused
    found = [graph.call_method("permute", (values[n], *TO_KERAS)) if turn else values[n] for _, n, turn in outputs]
    graph.output(tuple(found) if len(found) > 1 else found[0])
    graph.lint()
    return fx.GraphModule(dict(layers), graph).eval()


def identifier(name: str, taken: Collection[str]) -> str:
    """Return a name of Keras as PyTorch takes it: an identifier that is free, and no name that a module has itself."""
    from torch import fx

    path = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    path = f"_{path}" if not path.isidentifier() else path
    while path in taken or keyword.iskeyword(path) or hasattr(fx.GraphModule({}, fx.Graph()), path):
        path += "_"
    return path
