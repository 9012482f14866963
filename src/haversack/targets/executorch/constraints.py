"""What XNNPACK's integer kernels demand of the encodings."""

from __future__ import annotations

from haversack.base.constraints import Constraints
from haversack.base.graph import Graph
from haversack.base.plan import GROUPS
from haversack.tools.graph.demands import demands
from haversack.tools.graph.roles import Role, is_even_product, role, units

_MOVES_WITHOUT_KERNEL = frozenset({"expand", "channel_shuffle", "pixel_shuffle", "select", "max_pool1d"})
"""Moves that leave XNNPACK: their values are float32 there."""


def constraints(graph: Graph) -> Constraints:
    """Return the constraints of a graph.

    A tensor that is joined to itself leaves XNNPACK: then no concatenation of the graph runs in integers.
    """
    joined = (unit.head for unit in units(graph) if role(unit.head) is Role.CONCAT)
    doubled = {node.op for node in joined if node.output.dtype == "float32" and len(set(node.inputs)) == 1}
    return demands(graph, narrow=is_even_product, without=_MOVES_WITHOUT_KERNEL | doubled, groups=GROUPS)
