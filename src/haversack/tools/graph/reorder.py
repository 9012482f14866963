"""A model whose graph and program run in another order: for runtimes that run a file in the order it is written in."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from haversack.base.graph import Graph
from haversack.base.model import Model
from haversack.tools.graph.lifetimes import Lifetimes, lifetimes, steps
from haversack.tools.graph.schedule import lowest

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram

WORTH = 0.95
"""An order is changed where its peak is at most this fraction: a little is not worth leaving what users wrote."""


@dataclass(frozen=True)
class Lowered:
    """A model in the order in which least is alive at the peak, as far as the search found it.

    Attributes:
        model: with the same keys, names, weights and values; the very same model where little was gained.
        before, after: lifetimes of its float graph.
        exact: whether no order is better.
    """

    model: Model
    before: Lifetimes
    after: Lifetimes
    exact: bool


def lowered(model: Model, lengths: Mapping[str, int] | None = None) -> Lowered:
    """Return a model whose nodes run in an order with a lower peak; what each computes is the same.

    One order serves all encodings: it is searched for float activations, where every value takes the same bytes.

    Args:
        model: the canonical model.
        lengths: free dimension -> length; 1 for those that are absent.
    """
    graph = model.graph
    before = lifetimes(graph, None, lengths)
    found = steps(graph, None, lengths)
    order = lowest(found)
    if order.peak > WORTH * order.before or order.peak == order.before:
        return Lowered(model, before, before, order.exact)
    keys = [key for place in order.places for key in found.steps[place].nodes]
    nodes = tuple(graph.by_key[key] for key in (*graph.inputs, *keys))
    changed = Graph(nodes, graph.inputs, graph.outputs)
    program = _reordered(model.program, [graph.by_key[key].name for key in keys])
    after = lifetimes(changed, None, lengths)
    note = f"order: {before.peak.bytes} -> {after.peak.bytes} bytes of activations alive at the peak"
    model = replace(model, graph=changed, program=program, notes=(*model.notes, note))
    return Lowered(model, before, after, order.exact)


def _reordered(program: ExportedProgram, names: Sequence[str]) -> ExportedProgram:
    """Return a copy of a program, its weights shared, whose calls run in an order of names, after what they read."""
    values = [*program.state_dict.values(), *program.constants.values()]
    made = copy.deepcopy(program, {id(value): value for value in values})
    graph = made.graph
    by_name = {node.name: node for node in graph.nodes}
    calls = [by_name[name] for name in names]
    calls += [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    end = next(node for node in graph.nodes if node.op == "output")
    moved: set[fx.Node] = {node for node in graph.nodes if node.op == "placeholder"}
    for call in calls:
        waiting = [call]
        while waiting:
            node = waiting[-1]
            missing = [used for used in node.all_input_nodes if used not in moved]
            if node in moved or not missing:
                waiting.pop()
                if node not in moved:
                    end.prepend(node)
                    moved.add(node)
            else:
                waiting += missing[::-1]
    graph.lint()
    made.graph_module.recompile()
    return made
