"""Embedding tables in int8: the program's call of ``embedding`` becomes one of ExecuTorch's kernel for stored rows.

XNNPACK has no embedding, so that these calls stand in the program and their tables among its constants. The kernel
(``quantized_decomposed::embedding_byte``, kernels/quantized of ExecuTorch) gives ``float32(code) * scale`` of the rows:
what the law says of a stored weight. An application must link ExecuTorch's quantized kernels to run such a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.encodings import Encodings
from haversack.base.errors import Fault, VerificationError
from haversack.targets.executorch.calls import CHAR, FLOAT
from haversack.targets.executorch.parse import Program, parse
from haversack.tools.formats.flat import Spoiled

PLAIN, STORED = "aten::embedding", "quantized_decomposed::embedding_byte"
_BITS = 127


def write_tables(program: Any, keys: Sequence[str], encodings: Encodings) -> dict[str, str]:  # noqa: ANN401 - Program
    """Store the tables that are encoded, in place.

    Args:
        program: ExecuTorch's, as it is serialized.
        keys: node key of each of its calls of ``embedding``, in order.
        encodings: int8 with a scale for each row, or nothing, for each of them.

    Returns:
        Place of the call among the instructions -> node key.
    """
    plan = next(plan for plan in program.execution_plan if plan.name == "forward")
    held = _Held(program, plan)
    places = {}
    calls = [
        (index, step.instr_args)
        for index, step in enumerate(plan.chains[0].instructions)
        if hasattr(step.instr_args, "op_index") and plan.operators[step.instr_args.op_index].name == PLAIN
    ]
    for (index, call), key in zip(calls, keys, strict=True):
        encoding = encodings.affine(f"{key}:weight")
        if encoding is None:
            continue
        table, indices, *_, out, result = call.args
        codes = held.constant(table, encodings.integers[f"{key}:weight"].astype(np.int8), CHAR)
        scale = held.constant(table, encoding.scale, FLOAT)
        call.args = [codes, scale, held.nothing(), held.whole(-_BITS), held.whole(_BITS), indices, out, result]
        call.op_index = held.operator()
        places[str(index)] = key
    held.drop_unread()
    return places


class _Held:
    """A program's values and constants while they are changed; equal ones are stored once."""

    def __init__(self, program: Any, plan: Any) -> None:  # noqa: ANN401 - classes of ExecuTorch's
        from executorch.exir import schema

        self.schema, self.program, self.plan = schema, program, plan
        self.made: dict[tuple[object, ...], int] = {}

    def constant(self, like: int, array: np.ndarray, kind: int) -> int:
        """Return the number of a constant tensor; ``like`` is one whose other fields it has."""
        from executorch.exir.scalar_type import ScalarType

        data = array.tobytes()
        key = data, array.shape, kind
        if key not in self.made:
            self.program.constant_buffer.append(self.schema.Buffer(data))
            tensor = dataclasses.replace(
                self.plan.values[like].val,
                scalar_type=ScalarType(kind),
                sizes=list(array.shape),
                dim_order=list(range(array.ndim)),
                data_buffer_idx=len(self.program.constant_buffer) - 1,
            )
            self.made[key] = self._value(tensor)
        return self.made[key]

    def whole(self, number: int) -> int:
        """Return the number of a value that is a whole number."""
        if (number,) not in self.made:
            self.made[number,] = self._value(self.schema.Int(number))
        return self.made[number,]

    def nothing(self) -> int:
        """Return the number of a value that is none."""
        if () not in self.made:
            self.made[()] = self._value(self.schema.Null())
        return self.made[()]

    def operator(self) -> int:
        """Return the number of the operator for stored tables."""
        names = [one.name for one in self.plan.operators]
        if STORED not in names:
            self.plan.operators.append(self.schema.Operator(STORED, "out"))
            names.append(STORED)
        return names.index(STORED)

    def drop_unread(self) -> None:
        """Take the bytes away of constants that no instruction names any more."""
        if not self.made:
            return
        read = {*self.plan.inputs, *self.plan.outputs}
        for step in self.plan.chains[0].instructions:
            read |= set(vars(step.instr_args).get("args") or ())
        lists = [self.plan.values[index].val for index in read]
        for one in lists:
            if isinstance(one, self.schema.TensorList | self.schema.OptionalTensorList):
                read |= set(one.items)
        kept = set()
        for index, value in enumerate(self.plan.values):
            if isinstance(value.val, self.schema.Tensor) and value.val.data_buffer_idx:
                if index in read:
                    kept.add(value.val.data_buffer_idx)
                else:
                    value.val = self.schema.Null()
        for index, buffer in enumerate(self.program.constant_buffer):
            if index and index not in kept:
                buffer.storage = b""

    def _value(self, held: Any) -> int:  # noqa: ANN401 - a class of ExecuTorch's
        self.plan.values.append(self.schema.EValue(held))
        return len(self.plan.values) - 1


@dataclasses.dataclass(frozen=True)
class StoredTable:
    """A table as a file holds it: int8 codes [rows, width], float32 scale [rows]."""

    codes: np.ndarray
    scale: np.ndarray


def read_tables(program: Program) -> Mapping[str, StoredTable]:
    """Return node key -> table of every call of the kernel for stored tables.

    Raises:
        Spoiled: a call is not as we write it, or tells no node key.
    """
    owners = program.about.get("tables", {})
    calls, found = program.calls, {}
    for index, (name, arguments) in enumerate(calls.made):
        if name != STORED:
            continue
        key = owners.get(str(index)) if isinstance(owners, dict) else None
        if not isinstance(key, str) or len(arguments) != 8:
            raise Spoiled("a stored table that belongs to no embedding")
        codes, scale = calls.constant(arguments[0], CHAR), calls.constant(arguments[1], FLOAT)
        if codes.ndim != 2 or scale.shape != codes.shape[:1]:
            raise Spoiled(f"a stored table of shape {codes.shape} with scales of shape {scale.shape}")
        if not calls.is_null(arguments[2]):
            raise Spoiled("a stored table with zero-points")
        found[key] = StoredTable(codes, scale)
    return found


def outside(path: Path) -> tuple[Fault, ...]:
    """Return, by node key, what computes or moves floats outside of XNNPACK, in kernels of ExecuTorch's own.

    Raises:
        VerificationError: the file is none of ours.
    """
    told = parse(path).about.get("alone", {})
    if not isinstance(told, dict) or not all(isinstance(op, str) for op in told.values()):
        raise VerificationError("a .pte file that does not tell what runs outside of XNNPACK", where=str(path))
    return tuple(Fault(key, f"{op} runs in a kernel of ExecuTorch's own, not in XNNPACK") for key, op in told.items())
