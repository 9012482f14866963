"""The float ONNX graph without weights: exported once for a graph, its nodes named by the canonical graph's keys.

torch.onnx carries the module stack of every fx node into the metadata of every ONNX node made from it, through its
decompositions and optimisers. So each node of the program gets one more, innermost, entry: its node key.

The weights are inputs of the skeleton. So no optimiser folds them away, and the skeleton serves every set of weights.
"""

from __future__ import annotations

import ast
import copy
import re
from collections import Counter, OrderedDict
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from haversack.base import digest
from haversack.base.errors import ConversionError
from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.tools.graph.onnx.pools import reaching_over
from haversack.tools.graph.onnx.quiet import quiet
from haversack.tools.graph.roles import Role, role

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch.export import ExportedProgram

_SCOPES = "pkg.torch.onnx.name_scopes"
_APART = "haversack_apart"
_KEPT = 8
PARAMETER = "parameter "
"""No name of an interface begins like this: names have no spaces."""
_cache: OrderedDict[str, Skeleton] = OrderedDict()


@dataclass(frozen=True)
class Skeleton:
    """A float graph whose weights are inputs.

    Attributes:
        data: the ONNX model, serialised; nodes are named as ``naming`` says; parameters are inputs, behind the user's,
            each with its own name after ``PARAMETER``.
        names: node key -> name of the tensor that holds its value.
        same: node key -> node key of the input it passes on, for nodes that left the graph (a dropout, a pad that a
            convolution does itself).
        opset: version of the ONNX operators.
    """

    data: bytes
    names: Mapping[str, str]
    same: Mapping[str, str]
    opset: int

    def load(self) -> ir.Model:
        """Return the graph, to be edited freely."""
        import onnx
        import onnx_ir as ir

        loaded: ir.Model = ir.from_proto(onnx.ModelProto.FromString(self.data))
        return loaded

    def source(self, key: str) -> str:
        """Return the key whose tensor holds the value of ``key`` in the file (itself, unless it left the graph)."""
        while key in self.same:
            key = self.same[key]
        return key


def skeleton(model: Model) -> Skeleton:
    """Return the skeleton of a model; the last few are remembered by what they were made from.

    Raises:
        ConversionError: a layer has no ONNX form, or two tensors of the interface have one name.
    """
    identity = _identity(model)
    if identity in _cache:
        _cache.move_to_end(identity)
        return _cache[identity]
    made = _make(model)
    _cache[identity] = made
    while len(_cache) > _KEPT:
        _cache.popitem(last=False)
    return made


def _identity(model: Model) -> str:
    """Return what the skeleton depends on: graph, interface, and the buffers that may decide shapes."""
    fixed = {name: value for name, value in model.weights.items() if not _is_weight(value)}
    ports = [[port.name, port.spec.shape, port.spec.dtype] for port in (*model.inputs, *model.outputs)]
    return digest.of_data([model.graph.digest, ports, digest.of_arrays(fixed)])


def _is_weight(value: np.ndarray) -> bool:
    return bool(np.issubdtype(value.dtype, np.floating))


def _make(model: Model) -> Skeleton:
    import onnx_ir as ir
    from onnxscript import optimizer

    names = [port.name for port in (*model.inputs, *model.outputs)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConversionError(
            f"inputs and outputs must have different names: {', '.join(twice)}",
            where=model.name,
            next_step="set input_names and output_names in the job file",
        )
    with quiet():
        exported = _export(model)
        weights = {name for name, value in model.weights.items() if _is_weight(value)}
        _lift(exported.graph, weights)
        apart = _keep_apart(exported, model)
        optimizer.optimize(exported)
        for node in exported.graph if apart else ():
            node.attributes.pop(_APART, None)
    mapped = _Mapping(exported.graph, model)
    mapped.pool_means()
    mapped.count_inside()
    found, same = mapped.values(), mapped.same()
    _rename(exported.graph, model, found)
    proto = ir.to_proto(exported)
    names_of = {key: str(value.name) for key, value in found.items()}
    same = {key: source for key, source in same.items() if key not in found}
    return Skeleton(proto.SerializeToString(deterministic=True), names_of, same, int(exported.opset_imports[""]))


def _export(model: Model) -> ir.Model:
    import torch
    from torch.onnx.errors import OnnxExporterError

    program = _marked(model)
    try:
        exported = torch.onnx.export(program, dynamo=True, verbose=False, optimize=False)
    except (OnnxExporterError, torch.onnx.errors.OnnxExporterWarning, RuntimeError, ValueError, TypeError) as error:
        where, cause = _blame(error, model)
        raise ConversionError(
            f"ONNX has no form for it: {cause}",
            where=where,
            tried="torch.onnx.export",
            next_step="replace the operation in the model, or choose another target",
        ) from error
    if exported is None:
        raise ConversionError("torch.onnx gave nothing", where=model.name)
    return exported.model


def _marked(model: Model) -> ExportedProgram:
    """Return a copy of the program (its weights shared) whose module stacks end with node keys."""
    values = [*model.program.state_dict.values(), *model.program.constants.values()]
    program = copy.deepcopy(model.program, {id(value): value for value in values})
    keys = {node.name: node.key for node in model.graph.nodes}
    for fx_node in program.graph.nodes:
        if fx_node.op == "call_function" and fx_node.name in keys:
            stack = dict(fx_node.meta.get("nn_module_stack") or {})
            stack[f"haversack {fx_node.name}"] = (keys[fx_node.name], "torch.nn.Module")
            fx_node.meta["nn_module_stack"] = stack
    return program


def _blame(error: BaseException, model: Model) -> tuple[str, str]:
    """Return (module path of the layer that an exporter's error speaks of, the error's root in one line)."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    text = "\n".join(str(item) for item in chain)
    lines = [line.strip() for line in str(chain[-1]).splitlines() if line.strip()]
    cause = lines[0].rstrip(".") if lines else type(chain[-1]).__name__
    by_name = {node.name: node.key for node in model.graph.nodes}
    for name, op in re.findall(r"%([A-Za-z_][A-Za-z0-9_]*) : .*?target=torch\.ops\.\w+\.(\w+)", text):
        # A decomposition may have given the node another name; its op is then a part of the one it was made from.
        made_from = (node.key for node in model.graph.nodes if op in node.op)
        where = by_name.get(name) or next(made_from, "")
        if where:
            return where, cause
    return model.name, cause


def _lift(graph: ir.Graph, weights: set[str]) -> None:
    """Turn the weights into inputs, behind the user's."""
    for name in [name for name in graph.initializers if name in weights]:
        value = graph.initializers.pop(name)
        value.const_value = None
        graph.inputs.append(value)


def _keep_apart(exported: ir.Model, model: Model) -> bool:
    """Mark the nodes of equal calls, so that the optimiser does not make one of them; return whether there are any.

    A module that is called twice on one value gives two tensors: each has a key, and may have an encoding of its own.
    """
    from onnx_ir.passes.common import InlinePass

    calls: dict[str, list[str]] = {}
    for node in model.graph.nodes:
        same = digest.of_data([node.op, node.inputs, node.weight, node.bias, node.parameters, dict(node.attributes)])
        calls.setdefault(same, []).append(node.key)
    several = {key for keys in calls.values() if len(keys) > 1 for key in keys}
    if several:
        InlinePass()(exported)  # an operator may stand in a function, which takes no attributes but its own
        for ir_node in exported.graph:
            key = _scope(ir_node, several)
            if key:
                ir_node.attributes.add(_apart(key))
    return bool(several)


def _apart(key: str) -> ir.Attr:
    import onnx_ir as ir

    return ir.AttrString(_APART, key)


def _scope(node: ir.Node, keys: Container[str]) -> str:
    """Return the innermost scope of an exported node that is one of these keys, or an empty string."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return next((name for name in reversed(scopes) if name in keys), "")


class _Mapping:
    """Which value of an exported graph belongs to which canonical node."""

    def __init__(self, graph: ir.Graph, model: Model) -> None:
        self.graph = graph
        self.model = model
        self.nodes: dict[str, list[ir.Node]] = {}
        for node in graph:
            key = _scope(node, model.graph.by_key)
            node.metadata_props.clear()
            node.doc_string = None
            node.meta["key"] = key
            self.nodes.setdefault(key, []).append(node)

    def pool_means(self) -> None:
        """Write each mean over an image as GlobalAveragePool, the form that has an integer kernel."""
        import onnx_ir as ir

        for node in self.model.graph.nodes:
            means = [n for n in self.nodes.get(node.key, []) if n.op_type == "ReduceMean"]
            if role(node) is not Role.MEAN or len(means) != 1:
                continue
            mean, keep = means[0], node.op == "adaptive_avg_pool2d" or bool(node.attributes.get("keepdim"))
            pooled = ir.node("GlobalAveragePool", [mean.inputs[0]])
            made, result = [pooled], pooled.outputs[0]
            if not keep:
                axes = ir.val(f"{node.key}/axes", const_value=ir.tensor(np.array([2, 3], np.int64)))
                self.graph.register_initializer(axes)
                made.append(ir.node("Squeeze", [result, axes]))
                result = made[-1].outputs[0]
            result.shape, result.type = mean.outputs[0].shape, mean.outputs[0].type
            for new in made:
                new.meta["key"] = node.key
            self.graph.insert_before(mean, made)
            mean.outputs[0].replace_all_uses_with(result, replace_graph_outputs=True)
            self.graph.remove(mean, safe=True)
            self.nodes[node.key] = [n for n in self.nodes[node.key] if n is not mean] + made

    def count_inside(self) -> None:
        """Let average pools whose windows reach over the end count as PyTorch does, in integers as well."""
        for node in self.model.graph.nodes:
            pools = [n for n in self.nodes.get(node.key, []) if n.op_type == "AveragePool"]
            if len(pools) == 1 and node.inputs:
                shape = self.model.graph.by_key[node.inputs[0]].output.shape
                for new in reaching_over(self.graph, node, pools[0], shape):
                    new.meta["key"] = node.key
                    self.nodes[node.key].insert(0, new)

    def values(self) -> dict[str, ir.Value]:
        """Return node key -> the value that holds its result, where that is beyond doubt."""
        users = list(self.graph.inputs)
        found = {key: users[i] for i, key in enumerate(self.model.graph.inputs)}
        for node in self.model.graph.nodes:
            value = self.picked(node, found) if node.op == "getitem" else self.result(node.key)
            if value is not None and _fits(value, node.output.shape):
                found[node.key] = value
        return found

    def result(self, key: str) -> ir.Value | None:
        """Return the last value of a key that other keys read, if all others that they read lead to it."""
        leaving = [value for node in self.nodes.get(key, []) for value in node.outputs if self.leaves(value, key)]
        if not leaving:
            return None
        last = leaving[-1]
        before = self.ancestors(last, key)
        return last if all(value is last or value in before for value in leaving) else None

    def leaves(self, value: ir.Value, key: str) -> bool:
        """Say whether a value is an output of the graph or read by a node of another key."""
        return value.is_graph_output() or any(use.node.meta["key"] != key for use in value.uses())

    def ancestors(self, value: ir.Value, key: str) -> set[ir.Value]:
        """Return the values that ``value`` is computed from by nodes of the key."""
        found: set[ir.Value] = set()
        waiting = [value]
        while waiting:
            producer = waiting.pop().producer()
            for read in producer.inputs if producer is not None and producer.meta["key"] == key else ():
                if read is not None and read not in found:
                    found.add(read)
                    waiting.append(read)
        return found

    def picked(self, node: Node, found: Mapping[str, ir.Value]) -> ir.Value | None:
        """Return the output that a ``getitem`` picks from the node it reads (a split may have lost its key)."""
        index = next((v for v in node.attributes.values() if isinstance(v, int)), None)
        source = self.model.graph.by_key[node.inputs[0]]
        divided = found.get(source.inputs[0]) if source.inputs else None
        several = [
            n
            for n in self.nodes.get(source.key) or self.nodes.get("", [])
            if len(n.outputs) > 1 and divided is not None and n.inputs[0] is divided
        ]
        if index is None or len(several) != 1 or not 0 <= index < len(several[0].outputs):
            return None
        return several[0].outputs[index]

    def same(self) -> dict[str, str]:
        """Return node key -> key of its input, for nodes that only pass values on and have none of their own."""
        return {
            node.key: node.inputs[0]
            for node in self.model.graph.nodes
            if role(node) is Role.SAME and len(node.inputs) == 1 and not self.nodes.get(node.key)
        }


def _fits(value: ir.Value, shape: tuple[int | str, ...]) -> bool:
    """Say whether a value may have this shape: same rank, and no fixed length differs."""
    if value.shape is None:
        return True
    sizes = list(value.shape)
    pairs = zip(sizes, shape, strict=True) if len(sizes) == len(shape) else ()
    return len(sizes) == len(shape) and all(
        not isinstance(a, int) or not isinstance(b, int) or a == b for a, b in pairs
    )


def _rename(graph: ir.Graph, model: Model, found: Mapping[str, ir.Value]) -> None:
    """Name nodes and values by their keys, and inputs and outputs as the user wants; forget inner shapes."""
    import onnx_ir as ir

    holders = {id(value): f"{key}:out" for key, value in found.items()}
    heads = {value.producer(): key for key, value in found.items()}
    counts: Counter[str] = Counter()
    for node in graph:
        key: str = node.meta["key"]
        if heads.get(node) == key:
            node.name = key
        else:
            base = f"{key}/{node.op_type}"
            node.name = f"{base}.{counts[base]}" if counts[base] else base
            counts[base] += 1
        settings = sorted(node.attributes.items())
        node.attributes.clear()
        node.attributes.update(settings)
        for index, value in enumerate(node.outputs):
            name = f"{node.name}/{index}" if value.name else ""
            value.name = holders.get(id(value), name)
    for index, (name, value) in enumerate(list(graph.initializers.items())):
        graph.initializers.pop(name)
        value.name = f"constant/{index}"
        graph.initializers[value.name] = value
    values: list[ir.Value] = [*graph.inputs[: len(model.inputs)], *graph.outputs]
    for value, port in zip(values, (*model.inputs, *model.outputs), strict=True):
        value.name = port.name
        value.shape = ir.Shape(port.spec.shape)
    for value in graph.inputs[len(model.inputs) :]:
        value.name = f"{PARAMETER}{value.name}"
    kept = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for value in [*graph.inputs, *graph.outputs, *(v for n in graph for v in n.outputs)]:
        value.metadata_props.clear()
        value.doc_string = None
        if id(value) not in kept:
            value.shape = value.type = None
    graph.name, graph.doc_string = "haversack", None
    graph.metadata_props.clear()
