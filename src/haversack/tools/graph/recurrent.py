"""Recurrent layers as the arithmetic they stand for: runtimes hold linear layers and gates, not PyTorch's cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from haversack.base.errors import ConversionError
from haversack.tools.graph.canonical import module_path, op_name

if TYPE_CHECKING:
    from torch import fx
    from torch.export import ExportedProgram

CELLS = frozenset({"gru", "lstm", "rnn_tanh", "rnn_relu", "gru_cell", "lstm_cell", "rnn_tanh_cell", "rnn_relu_cell"})
"""Ops by their names without namespace and overload."""
MAX_STEPS = 256
"""More steps than this make a graph of thousands of nodes: a model that long streams in pieces, with its state."""


def unrolled(program: ExportedProgram) -> ExportedProgram:
    """Return the program with every recurrent layer written out step by step, its other ops as they are.

    A step is one linear layer of the state and its gates; the linear layer of the inputs is one for all steps. The
    arithmetic is PyTorch's own decomposition (cuDNN's form of the GRU, as in ``torch.nn.GRU``). The length of the
    sequence must be fixed.

    Raises:
        ConversionError: a layer runs over more than ``MAX_STEPS`` steps.
    """
    import torch

    cells = [node for node in program.graph.nodes if node.op == "call_function" and op_name(node) in CELLS]
    if not cells:
        return program
    for node in cells:
        steps = _steps(node)
        if steps > MAX_STEPS:
            raise ConversionError(
                f"{op_name(node)} runs over {steps} steps, and more than {MAX_STEPS} are not written out",
                where=module_path(node) or "the root module",
                next_step="export a step of it: take the state as an input of forward(), return the next as an output",
            )
    table: Any = torch.export.default_decompositions()
    wanted = {op: rule for op, rule in table.items() if op.name().partition("::")[2].partition(".")[0] in CELLS}
    written: ExportedProgram = program.run_decompositions(wanted)
    return written


def _steps(node: fx.Node) -> int:
    """Return how many steps a layer runs over; a free length counts as none, since its export fixes or refuses it."""
    if op_name(node).endswith("_cell"):
        return 1
    target: Any = node.target
    names = [one.name for one in target._schema.arguments]  # noqa: SLF001 - torch tells the names nowhere else
    arguments: dict[str, Any] = dict(zip(names, node.args, strict=False))
    shape = arguments["input"].meta["val"].shape
    length = shape[1] if arguments.get("batch_first") else shape[0]
    return length if isinstance(length, int) else 0
