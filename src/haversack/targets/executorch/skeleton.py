"""The float model as ExecuTorch lowers it, with the tensor key of every value: made once for a program.

torch.export and ExecuTorch's own passes and visitors decide which operators go to XNNPACK and in which layout. What
they make is kept as XNNPACK graphs (ExecuTorch's dataclasses) and a container without them; ``write`` puts in weights
and encodings. So the slow half (seconds of tracing) is shared by all the plans of a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from haversack.base import digest
from haversack.base.errors import ConversionError, Fault, HaversackError, MissingExtra
from haversack.base.model import Model
from haversack.targets.executorch.attention import flatten
from haversack.targets.executorch.capture import Part, capturing
from haversack.targets.executorch.parse import ABOUT
from haversack.targets.executorch.quiet import quiet
from haversack.tools.graph.canonical import user_inputs
from haversack.tools.graph.rewrite import give_weights
from haversack.tools.graph.writes import without_writes

if TYPE_CHECKING:
    import torch
    from torch import fx
    from torch.export import ExportedProgram

OWNER = "haversack"
"""Entry of ``meta["custom"]`` that carries a node's key through export and lowering."""
LONGEST = 128
"""The most that a free length can be, unless stated."""
_SHORTEST = 2
"""The least free length: export takes one for a length that is fixed."""
PICK = "getitem"
_IMAGE = 4
"""Axes of an image, the batch among them."""
_IDENTITIES = frozenset({"dropout", "clone", "contiguous", "alias", "detach"})
_kept: WeakKeyDictionary[ExportedProgram, Skeleton] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A program, lowered.

    Attributes:
        parts: XNNPACK graphs in the order of the container's delegates.
        container: ExecuTorch's PTEFile, whose delegates hold nothing.
        alone: node keys that run outside of XNNPACK, in portable kernels.
        tables: node key of each call of an embedding, in order.
        longest: the most that a free length other than the batch can be.
        frozen: digest of the parameters that the container holds, or that no layout rule leads to.
    """

    parts: tuple[Part, ...]
    container: Any
    alone: tuple[str, ...]
    tables: tuple[str, ...]
    longest: int
    frozen: str


def skeleton(model: Model, longest: int = LONGEST) -> Skeleton:
    """Return the skeleton of a model's program.

    Args:
        model: the canonical model.
        longest: the most that a free length other than the batch can be.

    Raises:
        ConversionError: ExecuTorch does not take the graph.
        MissingExtra: executorch is not installed.
    """
    found = _kept.get(model.program)
    if found is None or found.longest != longest or found.frozen != _frozen(model, found.parts):
        with quiet():
            found = _lowered(model, longest)
        _kept[model.program] = found
    return found


def _frozen(model: Model, parts: tuple[Part, ...]) -> str:
    """Return a digest of the values that ``write`` does not put in anew."""
    injected = {name for part in parts for name in part.parameters.values()}
    read = {name for node in model.graph.nodes for name in node.parameters}
    return digest.of_arrays({name: model.weights[name] for name in sorted(read - injected)})


def _refuse_forms(model: Model) -> None:
    """Refuse what lowers to a kernel that the runtime has by name, and that fails when it is called."""
    faults = [
        Fault(node.key, "ExecuTorch has no kernel for a pad that cuts: use a slice")
        for node in model.graph.nodes
        if node.op in ("pad", "constant_pad_nd") and min(node.attributes.get("pad") or [0]) < 0
    ]
    faults += [
        Fault(node.key, f"ExecuTorch has no kernel for {node.op}: its convolutions have one or two axes")
        for node in model.graph.nodes
        if node.op in ("conv3d", "conv_transpose3d")
    ]
    if faults:
        raise ConversionError("ExecuTorch cannot run every operator", where=model.name, faults=tuple(faults))


def _lowered(model: Model, longest: int) -> Skeleton:
    _refuse_forms(model)
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
        from executorch.exir.backend.partitioner import DelegationSpec
    except ImportError as error:
        raise MissingExtra("executorch", "pack", purpose="writing a .pte file") from error
    backend = capturing()
    partitioner = XnnpackPartitioner()
    partitioner.delegation_spec = DelegationSpec(backend.__name__, [])
    try:
        lowered = to_edge_transform_and_lower(
            exported(model, longest),
            partitioner=[partitioner],
            constant_methods={ABOUT: "{}"},
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        program = lowered.exported_program()
        parts, alone = _parts(program, model), _alone(program.graph_module)
        tables = _tables(program.graph_module)
        emitted = lowered.to_executorch().buffer
        container = _container(emitted, len(parts))
    except HaversackError:
        raise
    except Exception as error:  # what its pass manager raises is an Exception and nothing more
        raise ConversionError(
            f"ExecuTorch does not lower it: {type(error).__name__}: {(str(error) or 'no reason').splitlines()[0]}",
            where=model.name,
            tried="to_edge_transform_and_lower with the XNNPACK partitioner",
        ) from error
    _check(container, alone, model)
    return Skeleton(parts, container, alone, tables, longest, _frozen(model, parts))


def _check(container: Any, alone: tuple[str, ...], model: Model) -> None:  # noqa: ANN401 - ExecuTorch's PTEFile
    """Refuse operators that the runtime has no kernel for."""
    from haversack.targets.executorch.session import bindings

    kernels = set(bindings(1)._get_operator_names())  # noqa: SLF001 - there is no other name for it
    operators = [one for plan in container.program.execution_plan for one in plan.operators]
    names = {f"{one.name}.{one.overload}" if one.overload else one.name for one in operators}
    faults = []
    for name in sorted(names - kernels):
        short = name.partition("::")[2].partition(".")[0]
        owners = [key for key in alone if model.graph.by_key[key].op.strip("_") in short] or [model.name]
        faults += [Fault(key, f"ExecuTorch has no kernel for {name}") for key in owners]
    if faults:
        raise ConversionError("ExecuTorch cannot run every operator", where=model.name, faults=tuple(faults))


def exported(model: Model, longest: int) -> ExportedProgram:
    """Return the program anew with the current weights, batches of one, and each node's key in its meta data.

    Args:
        model: the canonical model.
        longest: the most that a free length other than the batch can be.
    """
    import torch

    module = model.program.module(check_guards=False)
    give_weights(module, model.weights)
    without_writes(module)
    _label(module, model)
    _plain(module)
    _drop_unread(module)
    program = torch.export.export(module, _example(model), dynamic_shapes=_free(model, longest))
    flatten(program)
    for node in program.graph.nodes:  # every pass copies these at every node: two thirds of the time
        for name in ("nn_module_stack", "stack_trace", "source_fn_stack", "from_node"):
            node.meta.pop(name, None)
    return program


def _label(module: fx.GraphModule, model: Model) -> None:
    keys = {node.name: node.key for node in model.graph.nodes}
    for node in module.graph.nodes:
        if node.op == "call_function" and node.name in keys:
            node.meta["custom"] = {OWNER: keys[node.name]}


def _plain(module: fx.GraphModule) -> None:
    """Take away what only passes a value on, and let spatial means keep their axes, as XNNPACK wants them."""
    import torch

    graph = module.graph
    for node in list(graph.nodes):
        target: Any = node.target
        name = getattr(getattr(target, "overloadpacket", None), "__name__", "")
        if node.op != "call_function":
            continue
        if name in _IDENTITIES and node.meta["val"].shape == node.args[0].meta["val"].shape:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif target is torch.ops.aten.mean.dim and node.args[0].meta["val"].ndim == 4 and not _keeps(node):
            with graph.inserting_after(node):
                flat = graph.call_function(torch.ops.aten.flatten.using_ints, (node, 1))
            flat.meta = dict(node.meta)
            node.replace_all_uses_with(flat, delete_user_cb=lambda user, flat=flat: user is not flat)
            node.args = (node.args[0], node.args[1], True)
        elif name == "prelu" and node.meta["val"].ndim < _IMAGE:
            _as_image(graph, node)
    graph.eliminate_dead_code()
    graph.lint()
    module.recompile()


def _as_image(graph: fx.Graph, node: fx.Node) -> None:
    """Let an op see axes of length one behind its own: XNNPACK takes it of images alone."""
    import torch

    missing = range(_IMAGE - node.meta["val"].ndim)
    first: Any = node.args[0]
    with graph.inserting_before(node):
        for _ in missing:
            first = graph.call_function(torch.ops.aten.unsqueeze.default, (first, -1))
            first.meta = dict(node.meta)
    last, made = node, set[Any]()
    for _ in missing:
        with graph.inserting_after(last):
            last = graph.call_function(torch.ops.aten.squeeze.dim, (last, -1))
        last.meta = dict(node.meta)
        made.add(last)
    node.replace_all_uses_with(last, delete_user_cb=lambda user: user not in made)
    node.args = (first, *node.args[1:])


def _drop_unread(module: fx.GraphModule) -> None:
    """Take away parameters and buffers that nothing reads: export lifts them all, and a file would hold them.

    Folded norms leave theirs behind.
    """
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    held = [name for name, _ in (*module.named_parameters(remove_duplicate=False), *_buffers(module))]
    for name in held:
        if name not in read:
            path, _, last = name.rpartition(".")
            delattr(module.get_submodule(path), last)


def _buffers(module: fx.GraphModule) -> Iterator[tuple[str, torch.Tensor]]:
    return module.named_buffers(remove_duplicate=False)


def _keeps(node: fx.Node) -> bool:
    """Say whether a mean keeps its axes, or is not over height and width."""
    axes: Any = node.args[1]
    spatial = isinstance(axes, list | tuple) and sorted(axis % 4 for axis in axes) == [2, 3]
    return not spatial or (len(node.args) > 2 and bool(node.args[2]))


def _example(model: Model) -> tuple[object, ...]:
    """Return inputs of the lengths the program was exported with; a free batch has one row."""
    import torch

    found = []
    for node, port in zip(user_inputs(model.program), model.inputs, strict=True):
        value = node.meta["val"]
        shape = [size if isinstance(size, int) else int(size.node.hint or 2) for size in value.shape]
        if shape and isinstance(port.spec.shape[0], str):
            shape[0] = 1
        found.append(torch.zeros(shape, dtype=value.dtype))
    return tuple(found)


def _free(model: Model, longest: int) -> tuple[dict[int, object], ...] | None:
    """Return the dynamic_shapes argument: every free length but the batch, up to ``longest``."""
    import torch

    batch = {port.spec.shape[0] for port in model.inputs if port.spec.shape}
    found = tuple(
        {
            axis: torch.export.Dim.AUTO(min=_SHORTEST, max=longest)
            for axis, size in enumerate(port.spec.shape)
            if isinstance(size, str) and size not in batch
        }
        for port in model.inputs
    )
    return found if any(found) else None


def _parts(program: ExportedProgram, model: Model) -> tuple[Part, ...]:
    """Return what was captured of each delegate; what a pass made of parameters (a folded norm) is none of them."""
    module, flowing = program.graph_module, frozenset(program.graph_signature.user_inputs)
    found: dict[str, Part] = {}
    last: dict[str, str] = {}  # where an op of several pieces ends: a piece before its end is not its output
    arguments, pieces = iter(model.graph.inputs), _pieces(model)
    keys: dict[str, str] = {}
    for node in module.graph.nodes:
        held: Any = getattr(module, str(node.args[0]), None) if node.args else None
        if node.op == "placeholder" and node.name in flowing:
            keys[node.name] = next(arguments, "")
        elif node.op == "call_function" and hasattr(held, "processed_bytes"):
            part: Part = held.meta.pop("_delegate_info_meta")
            known = {value: name for value, name in part.parameters.items() if name in model.weights}
            sources = {
                value: keys.get(node.args[1 + external].name, "") for value, external in _outside(part, "input_ids")
            }
            sources = {value: key for value, key in sources.items() if key}
            found[node.name] = replace(part, parameters=known, sources=sources)
            last |= dict.fromkeys(part.finals.values(), node.name)
        elif node.op == "call_function" and getattr(node.args[0], "name", "") in found:
            outputs = sorted(_outside(found[node.args[0].name], "output_ids"), key=lambda pair: pair[1])
            keys[node.name] = found[node.args[0].name].finals.get(outputs[node.args[1]][0], "")
        elif node.op == "call_function":
            owner = (node.meta.get("custom") or {}).get(OWNER, "")
            keys[node.name] = pieces.get((owner, _index(node)), owner)
            last[keys[node.name]] = node.name
    ended = [
        replace(
            part,
            finals={value: key for value, key in part.finals.items() if last[key] == name},
            sources={value: key for value, key in part.sources.items() if last.get(key) != name},
        )
        for name, part in found.items()
    ]
    return tuple(sorted(ended, key=lambda part: part.number))


def _pieces(model: Model) -> dict[tuple[str, int], str]:
    """Return (key of a node that makes pieces, number of a piece) -> key of the node that picks it."""
    return {
        (node.inputs[0], index): node.key
        for node in model.graph.nodes
        if node.op == PICK
        for index in [value for value in node.attributes.values() if isinstance(value, int)][:1]
    }


def _index(node: fx.Node) -> int:
    """Return which piece a node of a lowered program is of what its owner makes; -1 where it is none.

    A split gives several tensors, of which one is picked; an ``unbind`` becomes a selection for each of its tensors.
    """
    name = getattr(node.target, "__name__", "")
    place = {PICK: 1, "aten.select_copy.int": 2}.get(name, 0)
    index: Any = node.args[place] if 0 < place < len(node.args) else -1
    return index if isinstance(index, int) else -1


def _outside(part: Part, ids: str) -> list[tuple[int, int]]:
    """Return (value, its number outside) of a part's inputs or outputs."""
    values = part.graph.xvalues
    unions = [(value, values[value].xvalue_union) for value in getattr(part.graph, ids)]
    return [(value, getattr(union, "tensor_value", union).external_id) for value, union in unions]


def _alone(module: fx.GraphModule) -> tuple[str, ...]:
    keys = [
        (node.meta.get("custom") or {}).get(OWNER, "")
        for node in module.graph.nodes
        if node.op == "call_function" and getattr(node.target, "_schema", None) is not None
    ]
    return tuple(dict.fromkeys(key for key in keys if key))


def _tables(module: fx.GraphModule) -> tuple[str, ...]:
    """Return the keys of embeddings, in the order in which they are called."""
    return tuple(
        str((node.meta.get("custom") or {}).get(OWNER, ""))
        for node in module.graph.nodes
        if node.op == "call_function" and getattr(node.target, "_name", "") == "aten::embedding"
    )


def _container(data: bytes, count: int) -> Any:  # noqa: ANN401 - ExecuTorch's PTEFile
    """Return the emitted program, its delegates named as the runtime knows them and numbered as the parts are."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    found = deserialize_pte_binary(data)
    for plan in found.program.execution_plan:
        for delegate in plan.delegates:
            delegate.id = "XnnpackBackend"
    assert len(found.program.backend_delegate_data) == count, "every part was emitted once"
    return found
