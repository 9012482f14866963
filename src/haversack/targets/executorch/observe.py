"""What flows inside: a copy of the file in which values are further outputs of XNNPACK's graphs.

Codes that leave a kernel stay the same when they are also an output; XNNPACK fuses nothing across them. Float values
are shown only where the file has no codes at all. The graph is rewritten as the JSON of its schema by ExecuTorch's own
flatc, and every float32 in it is put in again as it was read from the file's bytes, since JSON rounds.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.errors import VerificationError
from haversack.base.model import Sample
from haversack.targets.executorch import parse
from haversack.targets.executorch.parse import Delegate, Program
from haversack.targets.executorch.quiet import quiet
from haversack.targets.executorch.session import as_tensor, bindings, is_free, ports
from haversack.tools.formats.flat import Spoiled

_OUTPUT = 2
_INT8 = 128
_CHAR, _FLOAT = 1, 6
_ALIGNED = 16
_LAST = frozenset({"Conv2d", "DepthwiseConv2d", "GlobalAvgPooling2d", "MaxPooling2d", "AvgPooling2d"})
_AS_THE_MODEL = frozenset({"StaticReshape", "FullyConnected"})
_TURNED = "StaticTranspose"
_INFINITE = re.compile(r"(?<=: )([+-]?)inf(?=\s*[,}])")
"""A limit that is none, as flatc writes it: no JSON."""
Place = tuple[int, int]


def tensors(path: Path, names: Mapping[str, str], inputs: Sample) -> dict[str, np.ndarray]:
    """Return tensor key -> array: uint8 codes where it is encoded, else float32; channels first.

    Raises:
        VerificationError: the file is none of ours.
    """
    program = parse.parse(path)
    places = _places(program, names, path)
    encoded = any(value.datatype == parse.QINT8 and not value.constant for d in program.delegates for value in d.values)
    shown = {key: at for key, at in places.items() if _is_shown(program.delegates[at[0]], at[1], encoded)}
    if not shown:
        return {}
    wanted = sorted(set(shown.values()))
    interface = ports(program.about.get("inputs"))
    cut = [is_free(port) for port in interface]
    count = next((len(array) for array, free in zip(inputs, cut, strict=True) if free), 1)
    try:
        with quiet():
            data = _with_outputs(path, program.delegates, wanted)
            module = bindings(1)._load_for_executorch_from_buffer(data)  # noqa: SLF001 - its only name
            found = []
            for row in range(count):
                arrays = [array[row : row + 1] if free else array for array, free in zip(inputs, cut, strict=True)]
                given = [as_tensor(array) for array in arrays]
                found.append([each.numpy().copy() for each in module.forward(given)[-len(wanted) :]])
    except (RuntimeError, Spoiled) as error:
        raise VerificationError(f"its values cannot be shown: {error}", where=str(path)) from error
    shown_at = dict(zip(wanted, (np.concatenate(each) for each in zip(*found, strict=True)), strict=True))
    last = _channels_last(program)
    flat = _lines(program)
    return {key: _turned(shown_at[at], at in last, at in flat) for key, at in shown.items()}


def _places(program: Program, names: Mapping[str, str], path: Path) -> dict[str, Place]:
    """Return tensor key -> where the file has it."""
    try:
        found = {key: parse.place(name) for key, name in names.items()}
    except Spoiled as error:
        raise VerificationError(f"its values cannot be shown: {error}", where=str(path)) from error
    for key, (number, index) in found.items():
        if number >= len(program.delegates) or index >= len(program.delegates[number].values):
            raise VerificationError(f"the file has no value {names[key]!r} for {key}", where=str(path))
    return found


def _is_shown(delegate: Delegate, index: int, encoded: bool) -> bool:
    """Say whether a value can be made an output: codes; or a float value that a node gives, in a file without codes."""
    value = delegate.values[index]
    made = any(step.output == index for step in delegate.steps)
    return made and (value.datatype == parse.QINT8 or (not encoded and value.datatype == parse.FLOAT32))


def _turned(array: np.ndarray, last: bool, flat: bool) -> np.ndarray:
    if array.dtype == np.int8:
        array = (array.astype(np.int16) + _INT8).astype(np.uint8)
    array = np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if last and array.ndim == 4 else array
    return array.reshape(*array.shape[:2], -1) if flat and array.ndim == 4 else array


def _lines(program: Program) -> set[Place]:
    """Return what convolutions over one axis give: XNNPACK has it as an image with one row."""
    layers = program.about.get("layers") or {}
    return {
        (number, step.output)
        for number, delegate in enumerate(program.delegates)
        for index, step in enumerate(delegate.steps)
        if ":conv1d#" in str(layers.get(f"{number}/{index}", "")) and step.kind in _LAST
    }


def _channels_last(program: Program) -> set[Place]:
    """Return the values whose channels come last: what image kernels give, and convolutions written as products.

    A transpose that belongs to no node turns an image over to channels last, or back. One that the model asked for
    moves axes within the layout that its input has: ExecuTorch writes its permutation for that layout.
    """
    layers = program.about.get("layers") or {}
    found: set[Place] = set()
    for number, delegate in enumerate(program.delegates):
        for index, step in enumerate(delegate.steps):
            layer = str(layers.get(f"{number}/{index}", ""))
            over = step.kind == _TURNED and not layer
            follows = len(delegate.values[step.output].dims) == 4 and step.kind not in _AS_THE_MODEL
            turned = over != any((number, value) in found for value in step.inputs)
            if step.kind in _LAST or ":conv2d#" in layer or (follows and turned):
                found.add((number, step.output))
    return found


def _with_outputs(path: Path, delegates: tuple[Delegate, ...], wanted: list[Place]) -> bytes:
    """Return the file with further outputs, in the order of ``wanted``."""
    from executorch.exir import schema
    from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

    file = deserialize_pte_binary(path.read_bytes())
    plan = next(plan for plan in file.program.execution_plan if plan.name == "forward")
    calls = {
        step.instr_args.delegate_index: step.instr_args
        for step in plan.chains[0].instructions
        if isinstance(step.instr_args, schema.DelegateCall)
    }
    by_part = defaultdict(list)
    for at in wanted:
        by_part[at[0]].append(at[1])
    where: dict[Place, int] = {}
    for number, indices in by_part.items():
        call = calls[number]
        blob = file.program.backend_delegate_data[plan.delegates[number].processed.index]
        first = len(call.args)
        blob.data = _patched(bytes(blob.data), delegates[number], indices, first)
        call.args = list(call.args)
        for index in indices:
            where[number, index] = len(plan.values)
            call.args.append(len(plan.values))
            plan.values.append(_planned(plan, delegates[number], index))
    plan.outputs = [*plan.outputs, *(where[at] for at in wanted)]
    return bytes(serialize_pte_binary(file, segment_alignment=_ALIGNED))


def _planned(plan: Any, delegate: Delegate, index: int) -> Any:  # noqa: ANN401 - ExecuTorch's ExecutionPlan, EValue
    """Return a new tensor of the program with memory of its own."""
    from executorch.exir import schema
    from executorch.exir.scalar_type import ScalarType

    value = delegate.values[index]
    kind = _CHAR if value.datatype == parse.QINT8 else _FLOAT
    size = int(np.prod(value.dims, dtype=np.int64)) * (1 if kind == _CHAR else 4)
    start = plan.non_const_buffer_sizes[1]
    plan.non_const_buffer_sizes[1] = start + -(-size // _ALIGNED) * _ALIGNED
    return schema.EValue(
        schema.Tensor(
            scalar_type=ScalarType(kind),
            storage_offset=0,
            sizes=list(value.dims),
            dim_order=list(range(len(value.dims))),
            requires_grad=False,
            layout=0,
            data_buffer_idx=0,
            allocation_info=schema.AllocationDetails(1, start & 0xFFFFFFFF, start >> 32),
            shape_dynamism=schema.TensorShapeDynamism.STATIC,
        )
    )


def _patched(blob: bytes, delegate: Delegate, indices: list[int], first: int) -> bytes:
    """Return a delegate's bytes with values marked as outputs, numbered from ``first`` on."""
    import executorch.backends.xnnpack.serialization as home
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as own
    from executorch.exir._serialize._flatbuffer import _flatc_compile, _flatc_decompile

    start, size, constants = (int.from_bytes(blob[at : at + 4], "little") for at in (10, 14, 18))
    with tempfile.TemporaryDirectory() as folder:
        schema = Path(folder) / "schema.fbs"
        schema.write_bytes(importlib.resources.files(home).joinpath("schema.fbs").read_bytes())
        binary, text = Path(folder) / "graph.bin", Path(folder) / "graph.json"
        binary.write_bytes(blob[start : start + size])
        _flatc_decompile(folder, str(schema), str(binary), ["--raw-binary"])
        graph = json.loads(_INFINITE.sub(r'"\1inf"', text.read_text(encoding="utf-8")))
        _exact(graph, delegate)
        for offset, index in enumerate(indices):
            union = graph["xvalues"][index]["xvalue_union"]
            tensor = union.get("tensor_value", union)
            tensor["external_id"], tensor["flags"] = first + offset, _OUTPUT
            graph["output_ids"].append(index)
        graph["num_externs"] = first + len(indices)
        text.write_text(json.dumps(graph), encoding="utf-8")
        binary.unlink()
        _flatc_compile(folder, str(schema), str(text))
        made = binary.read_bytes()
    padded = -(-len(made) // _ALIGNED) * _ALIGNED
    header: bytes = own.XNNHeader(start, len(made), start + padded, len(blob) - constants).to_bytes()
    return header.ljust(start, b"\0") + made.ljust(padded, b"\0") + blob[constants:]


def _exact(graph: Any, delegate: Delegate) -> None:  # noqa: ANN401 - JSON
    """Put float32 numbers in as they stand in the file."""
    for value, read in zip(graph["xvalues"], delegate.values, strict=True):
        parameters = value["xvalue_union"].get("quant_params", {})
        if "num_scales" not in parameters and read.scale is not None:
            parameters["scale"] = float(read.scale)
    for node, step in zip(graph["xnodes"], delegate.steps, strict=True):
        if step.limits is not None:
            low, high = (value if np.isfinite(value) else ("-inf", "+inf")[value > 0] for value in step.limits)
            node["output_min_max"] = {"output_min": low, "output_max": high}
