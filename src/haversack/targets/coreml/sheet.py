"""A Core ML program while it is written: operations of its intermediate language, values, constants."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from haversack.targets.coreml.blob import BlobWriter
from haversack.targets.coreml.protos import messages

OPSET = "CoreML6"
"""Of iOS 16 and macOS 13, the first with weights that are dequantized when the model is loaded."""
WEIGHTS = "@model_path/weights/weight.bin"
"""How a program calls the weights file of its package."""
TYPES = {
    "fp16": ("FLOAT16", "float16"),
    "fp32": ("FLOAT32", "float32"),
    "int32": ("INT32", "int32"),
    "int8": ("INT8", "int8"),
    "uint8": ("UINT8", "uint8"),
    "uint32": ("UINT32", "uint32"),
    "bool": ("BOOL", "bool"),
}
"""Our short name of a type -> (the language's, NumPy's)."""
_FILED = frozenset({"fp16", "fp32", "int8", "uint8"})
_SMALL = 10
"""Constants with fewer values stand in the program itself."""


@dataclass(frozen=True)
class Value:
    """A tensor of the program: its name, shape and type."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def short(dtype: str, floats: str) -> str:
    """Return the program's type for a dtype of the model; every float is what the program computes in."""
    if dtype.startswith(("float", "bfloat")):
        return floats
    return "bool" if dtype == "bool" else "int32"


def identifier(text: str) -> str:
    """Return a name that the language takes for any text."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "value"
    return name if name[0].isalpha() else f"n{name}"


class Sheet:
    """The one block of a program, being written."""

    def __init__(self) -> None:
        self.mil = messages().MIL_pb2
        self.operations: list[Any] = []
        self.blobs = BlobWriter()
        self.counts: Counter[str] = Counter()
        self.constants: dict[Any, Value] = {}
        self.casts: dict[tuple[str, str], Value] = {}

    def unique(self, hint: str) -> str:
        """Return a name that nothing in the program has yet."""
        name = identifier(hint)
        while True:
            count = self.counts[name]
            self.counts[name] += 1
            found = f"{name}_x{count}" if count else name
            if found == name or not self.counts[found]:
                self.counts[found] += found != name
                return found

    def constant(self, hint: str, array: np.ndarray, dtype: str) -> Value:
        """Return a constant of any shape; equal ones are one."""
        held = filed(array, dtype)
        key = (dtype, held.shape, held.tobytes())
        if key not in self.constants:
            made = Value(self.unique(hint), held.shape, dtype)
            operation = self._operation("const", made)
            operation.attributes["val"].CopyFrom(self.literal(held, dtype))
            self.constants[key] = made
        return self.constants[key]

    def text(self, hint: str, text: str) -> Value:
        """Return a constant string."""
        key = ("string", text)
        if key not in self.constants:
            made = Value(self.unique(hint), (), "string")
            operation = self._operation("const", made)
            operation.attributes["val"].CopyFrom(self._string(text))
            self.constants[key] = made
        return self.constants[key]

    def emit(self, op: str, hint: str, shape: Sequence[int], dtype: str, /, **inputs: Any) -> Value:  # noqa: ANN401 - values
        """Add an operation and return what it makes.

        Args:
            op: its name in the language.
            hint: what its result is called, made unique.
            shape: of the result.
            dtype: of the result.
            inputs: by parameter: values, lists of values, text, booleans, whole numbers and lists of these; what is
                None is left out.
        """
        arguments = {name: self._values(f"{hint}_{name}", given) for name, given in inputs.items() if given is not None}
        made = Value(self.unique(hint), tuple(int(n) for n in shape), dtype)
        operation = self._operation(op, made)
        for name, values in arguments.items():
            operation.inputs[name].arguments.extend(self.mil.Argument.Binding(name=value.name) for value in values)
        return made

    def compressed(self, op: str, hint: str, shape: Sequence[int], dtype: str, parts: Mapping[str, Any]) -> Value:
        """Add a constant that is computed when the model is loaded; parts by parameter: (array, dtype)."""
        made = Value(self.unique(hint), tuple(shape), dtype)
        operation = self._operation(op, made)
        for name, (array, kind) in parts.items():
            operation.attributes[name].CopyFrom(self.literal(filed(array, kind), kind))
        return made

    def cast(self, value: Value, dtype: str) -> Value:
        """Return a value in another type, made once."""
        if value.dtype == dtype:
            return value
        key = (value.name, dtype)
        if key not in self.casts:
            self.casts[key] = self.emit("cast", f"{value.name}_{dtype}", value.shape, dtype, x=value, dtype=dtype)
        return self.casts[key]

    def literal(self, held: np.ndarray, dtype: str) -> Any:  # noqa: ANN401 - a message
        """Return the message of a constant of any shape: small ones hold their numbers, others lie in a file."""
        found = self.mil.Value()
        self.typed(found.type, held.shape, dtype)
        if dtype in _FILED and held.size >= _SMALL:
            found.blobFileValue.fileName = WEIGHTS
            found.blobFileValue.offset = self.blobs.add(held)
            return found
        tensor = found.immediateValue.tensor
        if dtype == "bool":
            tensor.bools.values.extend(bool(one) for one in held.ravel())
        elif dtype == "fp32":
            tensor.floats.values.extend(float(one) for one in held.ravel())
        elif dtype == "int32":
            tensor.ints.values.extend(int(one) for one in held.ravel())
        else:
            tensor.bytes.values = held.tobytes()
        return found

    def typed(self, message: Any, shape: Sequence[int], dtype: str) -> None:  # noqa: ANN401 - a message
        """Fill in a type."""
        kind = message.tensorType
        kind.dataType = self.mil.DataType.Value("STRING" if dtype == "string" else TYPES[dtype][0])
        kind.rank = len(shape)
        for size in shape:
            kind.dimensions.add().constant.size = int(size)

    def _values(self, hint: str, given: Any) -> list[Value]:  # noqa: ANN401 - values and what stands for them
        if isinstance(given, Value):
            return [given]
        if isinstance(given, list) and given and isinstance(given[0], Value):
            return given
        if isinstance(given, str):
            return [self.text(hint, given)]
        array = np.array(given)
        return [self.constant(hint, array, "bool" if array.dtype == bool else "int32")]

    def _operation(self, op: str, made: Value) -> Any:  # noqa: ANN401 - a message
        operation = self.mil.Operation(type=op)
        operation.attributes["name"].CopyFrom(self._string(made.name))
        output = operation.outputs.add()
        output.name = made.name
        self.typed(output.type, made.shape, made.dtype)
        self.operations.append(operation)
        return operation

    def _string(self, text: str) -> Any:  # noqa: ANN401 - a message
        found = self.mil.Value()
        self.typed(found.type, (), "string")
        found.immediateValue.tensor.strings.values.append(text)
        return found


def filed(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return numbers as a program's type holds them; finite ones that float16 cannot hold become its largest."""
    held = np.asarray(array)
    if dtype == "fp16" and held.dtype != np.float16:
        largest = float(np.finfo(np.float16).max)
        held = np.where(np.isfinite(held), np.clip(held, -largest, largest), held)
    if dtype == "int32":
        ends = np.iinfo(np.int32)
        held = np.clip(held, ends.min, ends.max)
    return np.array(held, dtype=TYPES[dtype][1], order="C")
