"""Which value of an ONNX file gets which encoding: a node that left the graph has its source's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import Fault
from haversack.base.model import Model
from haversack.tools.graph.law import equal
from haversack.tools.graph.onnx.skeleton import Skeleton


@dataclass(frozen=True)
class Held:
    """Encoding of each value in the file, by node key; tensor keys without one of their own -> node key; faults."""

    encodings: Mapping[str, Affine]
    absorbed: Mapping[str, str]
    faults: tuple[Fault, ...]


def held(skeleton: Skeleton, model: Model, encodings: Encodings) -> Held:
    """Say which value in the file gets which encoding: a node that left the graph has its source's."""
    graph = model.graph
    found = {node.key: enc for node in graph.nodes if (enc := encodings.affine(node.out)) is not None}
    absorbed, faults = {}, []
    for key in [node.key for node in graph.nodes if node.key in found and node.key not in skeleton.names]:
        source = skeleton.source(key)
        mine, theirs = found.pop(key), found.get(source)
        alone = len(graph.consumers[source]) == 1 and source not in graph.outputs
        if source == key:
            faults.append(Fault(f"{key}:out", "ONNX has no one tensor for it, so it cannot be encoded"))
        elif theirs is not None and equal(mine, theirs):
            absorbed[f"{key}:out"] = source
        elif theirs is None and alone and skeleton.same.get(key) == source:
            found[source] = mine
            absorbed[f"{key}:out"] = source
        else:
            faults.append(Fault(f"{key}:out", f"in the file it is one tensor with {source}:out, encoded otherwise"))
    return Held(found, absorbed, tuple(faults))
