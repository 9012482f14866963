"""Reading a package back: the program's structure, and every scale, palette and integer under its key.

Nothing is taken from names alone: a weight's encoding is what the layer that makes a tensor reads. Every operation
must read what was made before it, hold what its type says, and lie inside the weights file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.encodings import Affine, Codebook, Encoding, Float
from haversack.base.errors import Fault
from haversack.targets.coreml.blob import BadBlob, BlobReader
from haversack.targets.coreml.package import VERSION, load
from haversack.targets.coreml.sheet import OPSET, TYPES, WEIGHTS
from haversack.targets.coreml.write import MAIN
from haversack.tools.graph.injection import Content
from haversack.tools.numerics.packing import unpack

LAYERS = {"conv": "weight", "linear": "weight", "gather": "x"}
"""Operation -> which of its inputs is a layer's weight."""
_AFFINE, _PALETTE = "constexpr_affine_dequantize", "constexpr_lut_to_dense"
_LOWEST = -127
_MOST_ELEMENTS = 1 << 33
_SHAPES = {"INT32": "ints", "FLOAT32": "floats", "BOOL": "bools"}


def read(path: Path, tensor_names: Mapping[str, str]) -> Content:
    """Read a package.

    Args:
        path: of ``model.mlmodel`` in it.
        tensor_names: activation tensor key -> name in the program.

    Raises:
        VerificationError: it is no package, or not one that we have written; all faults together.
    """
    model, weights = load(path)
    content = Content()
    try:
        reader = _Reader(model, BlobReader(weights), content)
        reader.structure()
        if not content.faults:
            reader.layers(tensor_names)
            content.encodings()
    except (BadBlob, ValueError) as error:
        content.faults.append(Fault(str(path), str(error)))
    return content.sound(path)


class _Reader:
    """One program, being read."""

    def __init__(self, model: Any, blobs: BlobReader, content: Content) -> None:  # noqa: ANN401 - a message
        self.model, self.blobs, self.content = model, blobs, content
        self.makers: dict[str, Any] = {}

    def fault(self, where: str, cause: str) -> None:
        self.content.faults.append(Fault(where, cause))

    def structure(self) -> None:
        """Check that there is one function of ours, and that every operation reads what was made before it."""
        program = self.model.mlProgram
        if self.model.specificationVersion != VERSION or set(program.functions) != {MAIN}:
            self.fault("model.mlmodel", f"not one function {MAIN!r} of specification {VERSION}")
            return
        function = program.functions[MAIN]
        if function.opset != OPSET or set(function.block_specializations) != {OPSET}:
            self.fault(MAIN, f"its operations are not those of {OPSET}")
            return
        block = function.block_specializations[OPSET]
        made = {port.name for port in function.inputs}
        for operation in block.operations:
            made |= self.operation(operation, made)
        described = [one.name for one in (*self.model.description.input, *self.model.description.output)]
        if described != [*(port.name for port in function.inputs), *block.outputs]:
            self.fault(MAIN, "the interface of the model is not that of its function")
        for name in block.outputs:
            if name not in made:
                self.fault(name, "an output that nothing makes")

    def operation(self, operation: Any, made: set[str]) -> set[str]:  # noqa: ANN401 - a message
        """Check one operation, and return what it makes."""
        names = [output.name for output in operation.outputs]
        where = names[0] if names else operation.type
        if len(names) != 1 or names[0] in made or operation.blocks:
            self.fault(where, f"{operation.type} does not make one new value")
            return set()
        for parameter, argument in operation.inputs.items():
            for binding in argument.arguments:
                if binding.WhichOneof("binding") != "name" or binding.name not in made:
                    self.fault(where, f"{operation.type} reads as {parameter} what nothing makes before it")
        for parameter, value in operation.attributes.items():
            if parameter == "name":
                continue
            try:
                found = self.array(value)
            except (BadBlob, ValueError) as error:
                self.fault(where, f"{parameter} of {operation.type}: {error}")
                continue
            if operation.type == "const" and value.type != operation.outputs[0].type:
                self.fault(where, f"a constant of {found.dtype} {found.shape} is said to be something else")
        self.makers[names[0]] = operation
        return {names[0]}

    def array(self, value: Any) -> np.ndarray:  # noqa: ANN401 - a message
        """Return a constant's numbers (text as an array of one string).

        Raises:
            BadBlob, ValueError: they are not of the type that it says, or not as we write them.
        """
        kind = value.type.tensorType
        types = self.model.mlProgram.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number
        if kind.dataType not in types:
            raise ValueError(f"a constant of type {kind.dataType}")
        name = types[kind.dataType].name
        shape = tuple(int(dimension.constant.size) for dimension in kind.dimensions)
        count = math.prod(shape)
        if kind.rank != len(shape) or count > _MOST_ELEMENTS:
            raise ValueError(f"a type of rank {kind.rank} with {len(shape)} lengths")
        if name == "STRING":
            return np.array(list(value.immediateValue.tensor.strings.values))
        dtype = next((numpy for told, numpy in TYPES.values() if told == name), "")
        if not dtype:
            raise ValueError(f"a constant of {name}")
        if value.WhichOneof("value") == "blobFileValue":
            if value.blobFileValue.fileName != WEIGHTS:
                raise BadBlob(f"it lies in {value.blobFileValue.fileName!r}")
            return self.blobs.read(value.blobFileValue.offset, dtype, count).reshape(shape)
        tensor = value.immediateValue.tensor
        field = _SHAPES.get(name)
        held = getattr(tensor, field).values if field else np.frombuffer(tensor.bytes.values, dtype)
        found = np.array(held, dtype=dtype)
        if found.size != count:
            raise ValueError(f"{found.size} numbers for a shape of {count}")
        return found.reshape(shape)

    def layers(self, tensor_names: Mapping[str, str]) -> None:
        """Read the weight of every layer that makes a tensor; what no layer reads was not asked for."""
        read = set()
        for key, name in tensor_names.items():
            operation = self.makers.get(name)
            if operation is None:
                if name not in {port.name for port in self.model.mlProgram.functions[MAIN].inputs}:
                    self.fault(key, f"the program has no tensor {name!r}")
                continue
            parameter = LAYERS.get(operation.type)
            if parameter is None or not operation.inputs[parameter].arguments:
                continue
            source = operation.inputs[parameter].arguments[0].name
            maker = self.makers.get(source)
            if maker is not None:
                read.add(source)
                self.weight(f"{key.removesuffix(':out')}:weight", maker)
        for name, operation in self.makers.items():
            if operation.type.startswith("constexpr_") and name not in read:
                self.fault(name, f"{operation.type} that no layer reads")

    def weight(self, key: str, maker: Any) -> None:  # noqa: ANN401 - a message
        """Read what a layer's weight is stored in."""
        if maker.type == "const":
            if self.array(maker.attributes["val"]).dtype == np.float16:
                self.content.tensors[key] = Float("float16")
            return
        if maker.type not in (_AFFINE, _PALETTE):
            return
        parts = {name: self.array(value) for name, value in maker.attributes.items() if name != "name"}
        wanted = (
            {"quantized_data", "zero_point", "scale", "axis"} if maker.type == _AFFINE else {"indices", "lut", "shape"}
        )
        if set(parts) != wanted:
            self.fault(key, f"{maker.type} of {', '.join(sorted(parts))}")
            return
        encoding, codes = self.affine(key, parts) if maker.type == _AFFINE else self.palette(key, parts)
        if encoding is not None and codes is not None:
            self.content.tensors[key], self.content.integers[key] = encoding, codes

    def affine(self, key: str, parts: Mapping[str, np.ndarray]) -> tuple[Encoding | None, np.ndarray | None]:
        """Return symmetric int8 with its codes."""
        codes, scale, zero, axis = (parts[name] for name in ("quantized_data", "scale", "zero_point", "axis"))
        types = [(one.dtype.name, one.ndim) for one in (zero, axis)]
        whole = codes.dtype == np.int8 and types == [("int8", 0), ("int32", 0)]
        if not whole or zero.any() or scale.dtype != np.float16 or axis.any():
            self.fault(key, "it is not symmetric int8 with float16 scales along axis 0")
            return None, None
        if codes.size and codes.min() < _LOWEST:
            self.fault(key, "it holds -128, which no weight has")
            return None, None
        held, along = scale.astype(np.float32), 0 if scale.ndim else None
        encoding = Affine(8, signed=True, axis=along, scale=held, zero_point=np.zeros(held.shape, np.int32))
        return encoding, codes.astype(np.int32)

    def palette(self, key: str, parts: Mapping[str, np.ndarray]) -> tuple[Encoding | None, np.ndarray | None]:
        """Return a palette with its indices."""
        packed, entries, shape = (parts[name] for name in ("indices", "lut", "shape"))
        bits = entries.size.bit_length() - 1
        if entries.dtype != np.float16 or entries.ndim != 1 or entries.size != 1 << bits or not bits:
            self.fault(key, f"a palette of {entries.size} values of {entries.dtype}")
            return None, None
        lengths = tuple(int(size) for size in shape)
        indices = unpack(packed.reshape(-1), bits, math.prod(lengths)).reshape(lengths)
        return Codebook(bits, entries.astype(np.float32)), indices
