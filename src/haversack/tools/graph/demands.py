"""What integer kernels demand of encodings, in whatever runtime: the law's own demands, read off a graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from haversack.base.constraints import Constraints, Ratio
from haversack.base.graph import Graph, Node
from haversack.tools.graph import tied
from haversack.tools.graph.law import INTEGER_ROLES, constants
from haversack.tools.graph.roles import Role, Unit, clamp_bounds, is_product, role, units

_REAL = "float32"


def demands(
    graph: Graph,
    *,
    without: frozenset[str] = frozenset(),
    narrow: Callable[[Graph, Node], bool] = is_product,
    widths: Iterable[int] = (4,),
    groups: Sequence[int] = (),
) -> Constraints:
    """Return the constraints of a graph.

    Values that are moved keep one encoding; adds and means have tie-free ratios; a clamp's output stays inside it, so
    that the grid does the clamping. Softmax and sigmoid run in float, where they fix nothing. What depends on no input
    (the state that a recurrent layer begins with) has no codes. Layers that read one
    weight can have it in the same widths.

    Args:
        graph: the canonical graph.
        without: ops that the runtime has no integer kernel for, of those that the law knows.
        narrow: says of a layer of the graph whether its weight may have fewer bits and stays as fast as with 8.
        widths: how many bits these are.
        groups: of 4-bit weights that the runtime's linear layers have kernels for; they divide a row.
    """
    found = [unit for unit in units(graph) if unit.last.output.dtype == _REAL]
    ties = [frozenset((*_flowing(unit), unit.out)) for unit in found if role(unit.head) in (Role.SAME, Role.CONCAT)]
    bounds = {}
    for unit in found:
        limits = clamp_bounds(unit.last)
        if limits is not None:
            bounds[unit.out] = limits
    ratios = [ratio for unit in found for ratio in _ratios(graph, unit)]
    ops = frozenset(unit.head.op for unit in found if role(unit.head) in INTEGER_ROLES)
    bits = {
        unit.head.key: frozenset(widths)
        for unit in found
        if role(unit.head) is Role.LAYER and unit.head.op in ops - without and narrow(graph, unit.head)
    }
    fixed = frozenset(f"{key}:out" for key in constants(graph))
    sizes = _groups(graph, groups)
    for nodes in tied.shared(graph):  # what computes with a weight of fewer bits does so in all its calls, or in none
        for able in (bits, sizes):
            common = frozenset.intersection(*(able.pop(node.key, frozenset()) for node in nodes))
            able |= {node.key: common for node in nodes if common}
    return Constraints(tuple(ties), {}, bounds, tuple(ratios), ops - without, bits, groups=sizes, floats=fixed)


def _groups(graph: Graph, groups: Sequence[int]) -> dict[str, frozenset[int]]:
    """Return node key -> groups that divide the rows of its weight, of every linear layer that has some."""
    found = {}
    for node in graph.nodes:
        length = graph.by_key[node.inputs[0]].output.shape[-1:] if node.op == "linear" and node.inputs else ()
        sizes = frozenset(group for group in groups for size in length if isinstance(size, int) and size % group == 0)
        if node.weight is not None and sizes:
            found[node.key] = sizes
    return found


def _flowing(unit: Unit) -> tuple[str, ...]:
    return tuple(f"{key}:out" for key in dict.fromkeys(unit.head.inputs))


def _ratios(graph: Graph, unit: Unit) -> Iterator[Ratio]:
    """Yield the ratios of an add, or of a mean over 2^p * odd values (multiple 2^p; 1 where the size is free)."""
    kind = role(unit.head)
    values = 0
    if kind is Role.MEAN:
        sizes = graph.by_key[unit.head.inputs[0]].output.shape[2:]
        values = math.prod(int(size) for size in sizes) if all(isinstance(size, int) for size in sizes) else 0
    if kind in (Role.ADD, Role.MEAN):
        for key in _flowing(unit):
            yield Ratio(key, unit.out, multiple=values & -values or 1, count=values)
