"""TorchScript: a program that ``torch.jit.save`` wrote, and how it becomes a graph that ``torch.export`` takes.

Reading one runs what it holds: its code is compiled, its objects are unpickled and their ``__setstate__`` is called.
So it is read under the rule of pickles, with ``--allow-pickle`` only. The translation is PyTorch's own
(``torch._export.converter``), without its second export: a translated graph is exported once, like any module, with
the job's own free axes. What the translation loses is put back: the paths of modules, from the owners of the weights,
and the convolutions, which tracing writes as one op for all their kinds.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from haversack.base.errors import ConversionError, JobError
from haversack.load.archive import Records
from haversack.load.quiet import quiet
from haversack.load.user_code import first_line

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

SUFFIXES = frozenset({".ts", ".torchscript"})
"""Suffixes of TorchScript alone; ``.pt`` and ``.pth`` may hold it too."""
AGAIN = "save it again with torch.jit.save(module, path)"
FROM_PYTHON = (
    "in PyTorch, from the module that was scripted or traced: program = torch.export.export(module.eval(), (example,), "
    "dynamic_shapes=({0: torch.export.Dim.AUTO},)); torch.export.save(program, 'net.pt2'); then net.pt2@job.py"
)


def is_script(path: Path) -> bool:
    """Say whether a file is a TorchScript archive; only its directory of records is read.

    Raises:
        Refused: it is an archive that declares more bytes, or more records, than it can have.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        names = Records(path, writer="torch.jit.save", again=AGAIN, compressed="code/").names
    except JobError:
        return False
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def module_of(path: Path) -> nn.Module:
    """Return the file's module in eval mode (what was traced in training mode is found by ``export``).

    This runs whatever code the file holds.

    Raises:
        JobError: truncated, another kind of file, or code that this PyTorch does not compile.
        Refused: it declares more bytes than it has.
    """
    import torch

    Records(path, writer="torch.jit.save", again=AGAIN, compressed="code/")
    try:
        with quiet():
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise JobError(
            f"PyTorch cannot read this TorchScript: {type(error).__name__}: {first_line(error)}",
            where=str(path),
            tried="torch.jit.load",
            next_step=AGAIN,
        ) from error
    for inner in module.modules():
        if getattr(inner, "training", False):  # frozen modules have no such attribute
            inner.training = False
    return module


def signature(module: nn.Module) -> inspect.Signature:
    """Return the signature of ``forward``; that of TorchScript stands in its schema."""
    import torch

    if not isinstance(module, torch.jit.ScriptModule):
        return inspect.signature(module.forward)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature(
        [
            inspect.Parameter(
                a.name, kind, default=a.default_value if a.has_default_value() else inspect.Parameter.empty
            )
            for a in module.forward.schema.arguments[1:]  # type: ignore[attr-defined]
        ]
    )


def plain(module: nn.Module, example: tuple[np.ndarray, ...]) -> nn.Module:
    """Return what can be exported: a graph of ATen ops for TorchScript, any other module as it is.

    Args:
        module: in eval mode.
        example: arrays that it takes, of any shapes and dtypes; the graph is not made for their lengths.

    Raises:
        ConversionError: the program holds what the translation does not know (quantized ops, objects, frozen
            constants that a runtime's own pass wrote).
    """
    import torch

    if not isinstance(module, torch.jit.ScriptModule):
        return module
    tensors = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in example)
    try:
        graph = _translated(module, tensors)
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:
        raise ConversionError(
            f"PyTorch cannot translate this TorchScript: {type(error).__name__}: {first_line(error)}",
            where=str(getattr(module, "original_name", "") or "the root module"),
            tried="torch._export.converter, TorchScript to a graph of ATen ops",
            next_step=FROM_PYTHON,
        ) from error
    for node in list(graph.graph.nodes):
        _place(node)
        _one_kind(node)
    graph.graph.lint()
    graph.recompile()
    return graph.eval()


def _translated(module: torch.jit.ScriptModule, example: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    """Translate as ``TS2EPConverter.convert`` does, but without its export, which takes equal lengths for one."""
    from torch._export.converter import TS2EPConverter, TS2FXGraphConverter, get_block_to_lifted_attrs

    source = TS2EPConverter(module, example)
    blocks, names = get_block_to_lifted_attrs(source.ts_graph)
    translation = TS2FXGraphConverter(
        source.ts_graph,
        source.name_to_param,
        source.name_to_buffer,
        blocks,
        source.name_to_non_tensor_attributes,
        source.name_to_constant,
        names,
    )
    return translation.convert()


def _place(node: fx.Node) -> None:
    """Give a call the path of the module that owns its weight; calls without weights stay with the root."""
    if node.op != "call_function":
        return
    owner = next((str(n.target).rpartition(".")[0] for n in node.all_input_nodes if n.op == "get_attr"), "")
    node.meta["nn_module_stack"] = {owner or "root": (owner, "torch.jit.ScriptModule")}


def _one_kind(node: fx.Node) -> None:
    """Write a convolution of all kinds, which is what tracing leaves, as the one that is meant."""
    import torch

    aten: Any = torch.ops.aten
    if node.target in (aten.convolution.default, aten._convolution.default):  # noqa: SLF001 - an op's name
        x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = list[Any](node.args[:9])
        if transposed:
            op = {1: aten.conv_transpose1d.default, 2: aten.conv_transpose2d.input, 3: aten.conv_transpose3d.input}
            node.args = (x, weight, bias, stride, padding, output_padding, groups, dilation)
        else:
            op = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
            node.args = (x, weight, bias, stride, padding, dilation, groups)
    elif node.target is aten._convolution_mode.default:  # noqa: SLF001 - padding="same"
        op = {1: aten.conv1d.padding, 2: aten.conv2d.padding, 3: aten.conv3d.padding}
        stride = list[Any](node.args)[3]
    else:
        return
    node.target = op[len(stride)]
    node.kwargs = {}
