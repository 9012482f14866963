"""What the reference cannot execute, told before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from haversack.base.encodings import Affine, BlockAffine, Codebook, Dynamic, Encoding, Encodings, Float
from haversack.base.errors import Fault
from haversack.base.graph import Node
from haversack.base.keys import split_tensor
from haversack.base.model import Model
from haversack.tools.graph.roles import Role, role


def refusals(model: Model, encodings: Encodings) -> tuple[Fault, ...]:
    """Return every encoding that has no meaning here, with its tensor key; empty when all have."""
    return tuple(
        Fault(key, cause)
        for key in sorted(encodings.tensors)
        for cause in _causes(model, encodings, key, encodings.tensors[key])
    )


def _causes(model: Model, encodings: Encodings, key: str, encoding: Encoding) -> Iterator[str]:
    node_key, port = split_tensor(key)
    node = model.graph.by_key.get(node_key)
    if node is None:
        yield "the graph has no such node"
    elif port == "out":
        yield from _activation(encoding)
    elif port == "in":
        if not isinstance(encoding, Dynamic) or role(node) is not Role.LAYER:
            yield f"{type(encoding).__name__} on the input of {node.op} has no meaning here"
        elif not isinstance(encodings.tensors.get(f"{node_key}:weight"), Affine | BlockAffine):
            yield "an input quantized at run time needs a weight in integers"
    else:
        yield from _weight(model, encodings, node, encoding)


def _activation(encoding: Encoding) -> Iterator[str]:
    if isinstance(encoding, Affine):
        if encoding.scale.ndim:
            yield "an activation has one scale, not one for each channel"
    elif not isinstance(encoding, Float):
        yield f"{type(encoding).__name__} on an activation has no meaning here"


def _weight(model: Model, encodings: Encodings, node: Node, encoding: Encoding) -> Iterator[str]:
    key = f"{node.key}:weight"
    if node.weight is None or role(node) not in (Role.LAYER, Role.EMBEDDING):
        yield f"{node.op} has no weight that can be encoded"
    elif isinstance(encoding, Affine):
        shape = model.weights[node.weight].shape
        codes = encodings.integers.get(key)
        if codes is None:
            yield "the integers are missing"
        elif codes.shape != shape:
            yield f"integers of shape {codes.shape} for a weight of shape {shape}"
        if encoding.axis not in (None, 0):
            yield f"scales along axis {encoding.axis}, not along the rows"
    elif isinstance(encoding, BlockAffine):
        yield from _blocks(model, encodings, node, encoding)
    elif isinstance(encoding, Codebook):
        yield from _palette(model, encodings, node)
    elif not isinstance(encoding, Float):
        yield f"{type(encoding).__name__} on a weight has no meaning here"


def _palette(model: Model, encodings: Encodings, node: Node) -> Iterator[str]:
    codes = encodings.integers.get(f"{node.key}:weight")
    if codes is None or codes.shape != model.weights[node.weight or ""].shape:
        yield "the indices are missing or of another shape"


def _blocks(model: Model, encodings: Encodings, node: Node, encoding: BlockAffine) -> Iterator[str]:
    codes = encodings.integers.get(f"{node.key}:weight")
    if not encoding.symmetric:
        yield "BlockAffine with minima or scales of scales has no meaning here"
    elif node.op != "linear":
        yield f"BlockAffine on the weight of {node.op}: it stands on linear layers"
    elif codes is None or codes.shape != model.weights[node.weight or ""].shape:
        yield "the integers are missing or of another shape"
