"""What a plan failed by, as a finding: its layer is a place of the model, or nothing."""

from __future__ import annotations

from haversack.base.errors import ConversionError, HaversackError
from haversack.base.finding import Finding
from haversack.base.graph import Graph
from haversack.base.keys import split_node
from haversack.measure.quality import NotFinite
from haversack.tools.worker.faults import WorkerError, WorkerFault


def failure(error: HaversackError, graph: Graph) -> Finding:
    """Return the finding that an error stands for.

    Its ``layer`` is a module path, node key or tensor key of the graph, or empty: the path of a file, the name of a
    plan or of an output goes before the cause. Where one layer alone is at fault, it is the layer.

    Args:
        error: what compressing, lowering, verifying or measuring raised.
        graph: the model's.
    """
    places = _places(graph)
    known = [one for one in (error.where, *dict.fromkeys(fault.where for fault in error.faults)) if one in places]
    layer = known[0] if len(known) == 1 or error.where in places else ""
    elsewhere = f"{error.where}: " if error.where and error.where not in places else ""
    causes = [fault.cause for fault in error.faults if layer and fault.where == layer and layer != error.where]
    return Finding(_kind(error), f"{elsewhere}{': '.join((error.cause, *causes))}", layer)


def _places(graph: Graph) -> set[str]:
    """Return what may be called a layer: module paths, those of the modules around them, node and tensor keys."""
    found: set[str] = set()
    for node in graph.nodes:
        names = split_node(node.key)[0].split(".")
        found |= {node.key, node.out, f"{node.key}:in", f"{node.key}:weight"}
        found |= {".".join(names[: index + 1]) for index in range(len(names))}
    return found - {""}


def _kind(error: HaversackError) -> str:
    if isinstance(error, WorkerError) and error.type.endswith("ConversionError"):
        return "unreadable"
    if isinstance(error, WorkerFault):
        return "worker-crashed"
    if isinstance(error, NotFinite):
        return "not-finite"
    return "unreadable" if isinstance(error, ConversionError) else "scale-changed"
