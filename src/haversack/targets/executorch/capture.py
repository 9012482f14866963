"""An ExecuTorch backend that keeps the XNNPACK graph of a partition, with keys, instead of serializing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from haversack.base.errors import ConversionError

_OWNER = "haversack"
Layout = tuple[tuple[int, ...], tuple[int, ...]]
_LAYOUTS: tuple[tuple[int, ...], ...] = ((0, 2, 3, 1), (1, 2, 3, 0))


@dataclass(frozen=True, eq=False)
class Part:
    """One XNNPACK graph before weights and encodings.

    Attributes:
        number: tells the parts of a program apart; it stands in the container in place of the graph.
        graph: ExecuTorch's XNNGraph; its constants are float32.
        owners: node key of each of its nodes (empty for a change of layout).
        finals: value id -> node key whose output it is.
        sources: value id -> node key of what comes from outside; the skeleton fills them in.
        parameters: value id -> name of the model's parameter that it holds.
        layouts: value id -> (shape, axes): the parameter in that shape, with its axes in that order, is the value.
        data: value id -> bytes of every constant as it was captured.
    """

    number: int
    graph: Any
    owners: tuple[str, ...]
    finals: Mapping[int, str]
    sources: Mapping[int, str]
    parameters: Mapping[int, str]
    layouts: Mapping[int, Layout]
    data: Mapping[int, bytes]


@cache
def capturing() -> Any:  # noqa: ANN401 - a class of ExecuTorch's
    """Return the backend's class. Its partitions' results carry a ``Part``; ExecuTorch finds it by its name."""
    from executorch.exir.backend.backend_details import BackendDetails, PreprocessResult

    numbers = count()

    class HaversackXnnpack(BackendDetails):  # type: ignore[misc]  # ExecuTorch ships no types
        @staticmethod
        def preprocess(edge_program: Any, compile_specs: Any) -> Any:  # noqa: ANN401, ARG004 - ExecuTorch's signature
            part = _captured(edge_program, next(numbers))
            return PreprocessResult(str(part.number).encode(), {}, None, part)

    return HaversackXnnpack


def _passes(program: Any) -> list[Any]:  # noqa: ANN401 - ExportedProgram
    """Return ExecuTorch's passes that have something to do in a partition, in the order ExecuTorch runs them."""
    from executorch.backends.xnnpack import _passes as every

    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    names = {str(getattr(node.target, "__name__", node.target)) for node in calls}

    def has(*words: str) -> bool:
        return any(word in name for name in names for word in words)

    flat = any("convolution" in str(node.target) and node.meta["val"].ndim == 3 for node in calls)
    wanted = [
        (every.XNNPACKRemoveCloneOpsTransform, has("clone")),
        (every.DimOrderOpsRevertPass, has("dim_order")),
        (every.ConvertToUpsampleBilinear2d, has("index", "arange", "upsample", "grid")),
        (every.ConvertToLinearPass, has("addmm", ".mm.", "bmm")),
        (every.ConstPropPass, has("full", "arange")),
        (every.FuseBatchNormPass, has("batch_norm")),
        (_labelled_norms(), has("batch_norm")),
        (every.FuseActivationPass, has("relu", "hardtanh")),
        (every.DecomposeConcatenate, has("cat")),
        (every.RemoveGetItemPass, has("getitem", "max")),
        (every.Conv1dUnsqueezePass, flat),
        (every.PReLUReshapePass, has("prelu")),
        (every.ChannelsLastTaggedReshapePass, True),
        (every.RemoveRedundantCopyPass, True),
    ]
    return [each for each, needed in wanted if needed]


@cache
def _labelled_norms() -> Any:  # noqa: ANN401 - a class of ExecuTorch's
    """Return ExecuTorch's pass that makes a depthwise convolution of a batch norm, which here keeps the norm's key."""
    from executorch.backends.xnnpack._passes import DecomposeBatchNorm

    class LabelledNorms(DecomposeBatchNorm):  # type: ignore[misc]  # ExecuTorch ships no types
        def decompose_node(self, node: Any, graph_module: Any) -> None:  # noqa: ANN401 - ExecuTorch's signature
            before, key = set(graph_module.graph.nodes), _key(node)
            super().decompose_node(node, graph_module)
            for made in graph_module.graph.nodes:
                if made not in before and made.op == "call_function" and key:
                    made.meta["custom"] = {_OWNER: key}

    return LabelledNorms


def _captured(program: Any, number: int) -> Part:  # noqa: ANN401 - ExportedProgram
    from executorch.backends.xnnpack._passes import XNNPACKPassManager
    from executorch.backends.xnnpack.operators.node_visitor import get_node_visitors
    from executorch.backends.xnnpack.serialization.xnnpack_graph_schema import ConstantDataOffset, XNNGraph
    from executorch.backends.xnnpack.xnnpack_preprocess import generate_node_to_external_map
    from executorch.exir._serialize._named_data_store import NamedDataStore

    program = XNNPACKPassManager(program, passes=_passes(program)).transform()
    external = generate_node_to_external_map(program, program.graph_module)
    graph = XNNGraph(
        version="0",
        xnodes=[],
        xvalues=[],
        num_externs=len(external),
        input_ids=[],
        output_ids=[],
        constant_data=[ConstantDataOffset(0, 0)],
    )
    store, ids = NamedDataStore(), dict[Any, int]()
    visitors = get_node_visitors(program, external, store)
    owners: list[str] = []
    last: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        name = node.target.__name__
        if name not in visitors:
            raise ConversionError(f"XNNPACK has no {name}", where=_key(node))
        visitors[name].define_node(node, graph, ids, 0)
        key = _key(node)
        owners += [key] * (len(graph.xnodes) - len(owners))
        if key and node in ids:
            last[key] = ids[node]
    parameters, layouts, data = _constants(program, graph, ids, store)
    finals = {value: key for key, value in last.items()}
    return Part(number, graph, tuple(owners), finals, {}, parameters, layouts, data)


def _key(node: Any) -> str:  # noqa: ANN401 - fx.Node
    """Return the canonical node key that a node carries, or an empty string."""
    return str((node.meta.get("custom") or {}).get(_OWNER, ""))


def _constants(program: Any, graph: Any, ids: Mapping[Any, int], store: Any) -> tuple[Any, Any, Any]:  # noqa: ANN401
    """Return (parameters, layouts, data) of a part's constants, see ``Part``."""
    from executorch.backends.xnnpack.utils.utils import get_param_tensor

    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    output = store.get_named_data_store_output()
    parameters, layouts, data = {}, {}, {}
    for node, value in ids.items():
        tensor = graph.xvalues[value].xvalue_union
        if not tensor.constant_buffer_idx:
            continue
        key = graph.constant_data[tensor.constant_buffer_idx].named_key
        held = bytes(output.buffers[output.pte_data[key].buffer_index])
        found = get_param_tensor(program, node)
        own = found.detach().numpy() if found is not None and node.name in names else None
        layout = _layout(own, held)
        data[value] = held
        if layout is not None:
            parameters[value], layouts[value] = names[node.name], layout
    return parameters, layouts, data


def _layout(own: np.ndarray | None, held: bytes) -> Layout | None:
    """Return how a parameter is laid out in the bytes that XNNPACK gets, or None where no rule leads to them."""
    if own is None or own.dtype != np.float32:
        return None
    plain = tuple(range(own.ndim))
    for axes in (_LAYOUTS if own.ndim == 4 else ()) + (plain,):
        if own.transpose(axes).tobytes() == held:
            return own.shape, axes
    return None
