"""Weights that several calls of one layer read stand in the file once: a GRU's weight is read at every step.

Only weights that become float: ONNX Runtime makes unsigned weights of signed ones under names of its own, and refuses
a file in which two integer layers read one initializer ("Attempt to replace the existing tensor": 1.32 with
``session.x64quantprecision``). A Reshape before each does not help, since equal nodes are made one first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

LEAST_BYTES = 256
"""Smaller arrays keep names of their own, by which a file is easier to read."""
STORED = frozenset({"int8", "float16"})
"""What becomes float behind its Cast; one of INT4 widens the weight of an integer layer."""


def share(graph: ir.Graph) -> None:
    """Let equal initializers that only Cast reads be one, in place."""
    kept: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        uses, found = list(value.uses()), value.const_value
        if found is None or found.nbytes < LEAST_BYTES or {use.node.op_type for use in uses} != {"Cast"}:
            continue
        array = found.numpy()
        if array.dtype.name not in STORED:
            continue
        first = kept.setdefault((str(array.dtype), array.shape, array.tobytes()), value)
        if first is not value:
            for use in uses:
                use.node.replace_input_with(use.idx, first)
            del graph.initializers[name]
