"""Ops that few runtimes have, as the plainer ones that PyTorch itself defines them by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haversack.tools.graph.canonical import op_name

if TYPE_CHECKING:
    from torch.export import ExportedProgram

COMPOSED = frozenset(
    {
        *("einsum", "tile", "outer", "addcmul", "addcdiv", "baddbmm", "addbmm"),
        *("logsumexp", "cosine_similarity", "tril", "triu", "trace"),
    }
)
"""By name; what a runtime has a fast kernel of its own for is none of them."""


def plainer(program: ExportedProgram) -> ExportedProgram:
    """Return the program with such ops decomposed, the others and every module path left as they are.

    PyTorch's own decompositions (``torch.export.default_decompositions``) say what each one is.
    """
    import torch

    found = {node.target for node in program.graph.nodes if node.op == "call_function" and op_name(node) in COMPOSED}
    if not found:
        return program
    known = torch.export.default_decompositions()
    made: ExportedProgram = program.run_decompositions({target: known[target] for target in found if target in known})
    return made
