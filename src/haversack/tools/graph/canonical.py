"""From a torch.export program to the canonical graph with its tensor keys."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.counted import counted
from haversack.base.errors import ConversionError
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.keys import node_key
from haversack.base.model import Model, Port
from haversack.tools.graph.macs import hint, macs_of
from haversack.tools.graph.norms import name_norms

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram

INPUT_OP = "input"
_CALL_SUFFIX = re.compile(r"@[0-9]+")


def to_model(
    program: ExportedProgram,
    name: str,
    *,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    dims: Mapping[str, Mapping[int, str]] | None = None,
    notes: tuple[str, ...] = (),
) -> Model:
    """Return the Model of an exported program.

    Args:
        program: from ``torch.export.export``, not decomposed further than ``run_decompositions({})`` does, in inference
            mode. Its batch norms that were decomposed become one op again, in place.
        name: the model's name.
        input_names, output_names: names of the interface; the exporter's names where absent.
        dims: input name -> {axis: name of a free dimension}, to name the program's symbols.
        notes: carried into the model.

    Raises:
        ConversionError: an input or output is no tensor, or a name is missing or given twice.
    """
    name_norms(program)
    symbols = _symbol_names(program, input_names, dims or {})
    reader = _Reader(program, symbols)
    graph = reader.graph(input_names)
    inputs = tuple(Port(graph.by_key[key].key.partition(":")[0], graph.by_key[key].output) for key in graph.inputs)
    names = tuple(output_names) or tuple(f"output{i}" if i else "output" for i in range(len(graph.outputs)))
    if len(names) != len(graph.outputs):
        raise ConversionError(f"{len(names)} output names for {counted(len(graph.outputs), 'output')}", where=name)
    for port, count in Counter([port.name for port in inputs]).items() | Counter(names).items():
        if count > 1:
            raise ConversionError(f"the name {port} is given twice", where=name, next_step="name each input and output")
    outputs = tuple(Port(port, graph.by_key[key].output) for port, key in zip(names, graph.outputs, strict=True))
    return Model(name, graph, program, _weights(program), inputs, outputs, notes)


def user_inputs(program: ExportedProgram) -> list[fx.Node]:
    """Return the placeholders that take the user's inputs, in order."""
    names = set(program.graph_signature.user_inputs)
    return [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]


def _symbol_names(
    program: ExportedProgram, input_names: Sequence[str], dims: Mapping[str, Mapping[int, str]]
) -> dict[str, str]:
    """Return the exporter's symbol -> the user's name, read off the shapes of the inputs."""
    found: dict[str, str] = {}
    for index, node in enumerate(user_inputs(program)):
        value = node.meta.get("val")
        wanted = dims.get(input_names[index] if index < len(input_names) else node.name, {})
        for axis, size in enumerate(getattr(value, "shape", ())):
            if isinstance(fixed(size), str):
                default = "batch" if axis == 0 else f"{node.name}_{axis}"
                found.setdefault(str(size), wanted.get(axis, default))
    return found


def _weights(program: ExportedProgram) -> dict[str, np.ndarray]:
    import torch

    values = {**program.constants, **program.state_dict}
    return {name: value.detach().cpu().numpy() for name, value in values.items() if isinstance(value, torch.Tensor)}


class _Reader:
    """Reads the nodes of one program."""

    def __init__(self, program: ExportedProgram, symbols: Mapping[str, str]) -> None:
        signature = program.graph_signature
        self.program = program
        self.symbols = symbols
        self.parameters = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.keys: dict[str, str] = {}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.batch = 1

    def graph(self, input_names: Sequence[str]) -> Graph:
        """Return the canonical graph."""
        placeholders = user_inputs(self.program)
        if input_names and len(input_names) != len(placeholders):
            raise ConversionError(
                f"{len(input_names)} input names for {counted(len(placeholders), 'input')}",
                next_step="give one name for each argument of forward()",
            )
        nodes = []
        for index, placeholder in enumerate(placeholders):
            name = input_names[index] if input_names else placeholder.name
            key = node_key(name, INPUT_OP, 0)
            self.keys[placeholder.name] = key
            nodes.append(Node(key, INPUT_OP, placeholder.name, (), self.spec(placeholder)))
            self.batch = self.batch_of(placeholder) if index == 0 else self.batch
        for fx_node in self.program.graph.nodes:
            if fx_node.op == "call_function" and self.produces_tensor(fx_node):
                nodes.append(self.node(fx_node))
        outputs = self.outputs()
        return Graph(_living(nodes, outputs), tuple(n.key for n in nodes if n.op == INPUT_OP), outputs)

    def outputs(self) -> tuple[str, ...]:
        """Return the keys of the nodes that the user gets."""
        names = self.program.graph_signature.user_outputs
        missing = [str(name) for name in names if name not in self.keys]
        if missing:
            raise ConversionError(
                f"an output is not a tensor computed by the model: {', '.join(missing)}",
                next_step="return tensors only (wrap the model in a module that picks them)",
            )
        return tuple(self.keys[str(name)] for name in names)

    def produces_tensor(self, fx_node: fx.Node) -> bool:
        """Say whether a node produces a tensor, or a tuple of tensors."""
        value = fx_node.meta.get("val")
        first = value[0] if isinstance(value, tuple | list) and value else value
        return hasattr(first, "shape")

    def node(self, fx_node: fx.Node) -> Node:
        """Return the canonical node of a call."""
        module = module_path(fx_node)
        op = op_name(fx_node)
        key = node_key(module, op, self.calls[module, op])
        self.calls[module, op] += 1
        self.keys[fx_node.name] = key
        arguments = _arguments(fx_node)
        flows = [self.keys[n.name] for n in fx_node.all_input_nodes if n.name in self.keys]
        ordered = [self.keys[n.name] for n in _flat(arguments.values()) if getattr(n, "name", None) in self.keys]
        parameters = [self.parameters[n.name] for n in fx_node.all_input_nodes if n.name in self.parameters]
        roles = {role: self.parameters.get(getattr(arguments.get(role), "name", "")) for role in ("weight", "bias")}
        return Node(
            key,
            op,
            fx_node.name,
            tuple(ordered or flows),
            self.spec(fx_node),
            roles["weight"],
            roles["bias"],
            tuple(dict.fromkeys(parameters)),
            {k: self.plain(v) for k, v in arguments.items() if not _is_flow(v)},
            macs_of(op, fx_node, arguments) // self.batch,
        )

    def spec(self, fx_node: fx.Node) -> TensorSpec:
        """Return shape and dtype, with free dimensions named."""
        value = fx_node.meta["val"]
        value = value[0] if isinstance(value, tuple | list) else value
        sizes = (fixed(size) for size in value.shape)
        shape = tuple(self.named(size) if isinstance(size, str) else size for size in sizes)
        return TensorSpec(shape, str(value.dtype).removeprefix("torch."))

    def named(self, expression: str) -> str:
        """Return a symbolic size with the user's names for the exporter's symbols."""
        return re.sub(r"[A-Za-z_][A-Za-z0-9_]*", lambda found: self.symbols.get(found[0], found[0]), expression)

    def plain(self, value: Any) -> Any:  # noqa: ANN401 - any argument of an op
        """Return an argument as JSON-able data."""
        if isinstance(value, list | tuple):
            return [self.plain(item) for item in value]
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else repr(value)
        meta = getattr(value, "meta", None)
        return self.named(str(meta["val"])) if meta is not None and "val" in meta else str(value)

    def batch_of(self, fx_node: fx.Node) -> int:
        """Return the example's batch length."""
        shape = fx_node.meta["val"].shape
        return max(1, hint(shape[0])) if len(shape) else 1


def fixed(size: Any) -> int | str:  # noqa: ANN401 - int or SymInt
    """Return a length as an int, or as the exporter's expression where it is free.

    A dimension that was to be free and turned out constant stays a SymInt in torch, with a number for expression.
    """
    if isinstance(size, int):
        return size
    known = size.node.maybe_as_int()
    return str(size) if known is None else int(known)


def _living(nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[Node, ...]:
    """Return the inputs and the nodes that an output depends on: exporters drop the others (a pooler nobody reads)."""
    needed = set(outputs)
    for node in reversed(nodes):
        if node.key in needed:
            needed.update(node.inputs)
    return tuple(node for node in nodes if node.key in needed or node.op == INPUT_OP)


def module_path(fx_node: fx.Node) -> str:
    """Return the dotted path of the module that made the call; empty for the root."""
    stack = list(fx_node.meta.get("nn_module_stack", {}).values())
    return _CALL_SUFFIX.sub("", stack[-1][0]) if stack else ""


def op_name(fx_node: fx.Node) -> str:
    """Return the op's name without namespace and overload: ``aten.conv2d.default`` -> ``conv2d``."""
    target = fx_node.target
    packet = getattr(target, "overloadpacket", None)
    name = packet.__name__ if packet is not None else getattr(target, "__name__", str(target))
    return str(name).rstrip("_") or str(name)


def _arguments(fx_node: fx.Node) -> dict[str, Any]:
    schema = getattr(fx_node.target, "_schema", None)
    if schema is None:
        return {f"arg{i}": value for i, value in enumerate(fx_node.args)} | dict(fx_node.kwargs)
    names = [argument.name for argument in schema.arguments]
    given = dict(zip(names, fx_node.args, strict=False)) | dict(fx_node.kwargs)
    return {a.name: given.get(a.name, a.default_value if a.has_default_value() else None) for a in schema.arguments}


def _flat(values: Any) -> list[Any]:  # noqa: ANN401 - nested arguments
    found: list[Any] = []
    for value in values:
        found += _flat(value) if isinstance(value, list | tuple) else [value]
    return found


def _is_flow(value: Any) -> bool:  # noqa: ANN401 - any argument of an op
    return any(hasattr(getattr(item, "meta", {}).get("val"), "dtype") for item in _flat([value]))
