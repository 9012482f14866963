"""Reading the two files back: every scale, integer and bias they hold, and whether the rest follows from these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from haversack.base.encodings import Affine, Float
from haversack.base.errors import Fault, VerificationError
from haversack.targets.ncnn import blobs, numbers, text
from haversack.targets.ncnn.blobs import Array, Form
from haversack.targets.ncnn.naming import CODES, FACTOR, ROUND, SCALE, SCALES, SETTLE, WHOLE, key_of
from haversack.targets.ncnn.text import Line
from haversack.tools.graph.injection import Content
from haversack.tools.numerics import affine

_OUT, _WEIGHT = ":out", ":weight"
_ONE = np.ones(1, np.float32)
_SUMS = ("Pooling", "Convolution", "InnerProduct")
"""Types of layers that sum whole numbers."""


@dataclass(frozen=True)
class Files:
    """Both files, parsed: layers in order, their arrays, and blob -> the blob that it is a copy of."""

    lines: tuple[Line, ...]
    arrays: Mapping[str, Mapping[str, Array]]
    origins: Mapping[str, str]

    def source(self, line: Line, place: int = 0) -> str:
        """Return the name of a blob that a layer reads, before it was split; empty when it reads none."""
        name = line.inputs[place] if place < len(line.inputs) else ""
        return self.origins.get(name, name)


def beside(path: Path) -> Path:
    """Return the .bin file that belongs to a .param file."""
    return path.with_suffix(".bin")


def files(path: Path) -> Files:
    """Return what is in a .param file and the .bin file beside it; nothing runs.

    Raises:
        VerificationError: they are not ncnn's, not whole, or hold layers that we never write.
        OSError: one cannot be read.
    """
    if path.stat().st_size > text.LARGEST:
        raise VerificationError(f"a .param file of {path.stat().st_size} bytes", where=str(path))
    lines = text.parse(path.read_bytes(), str(path))
    arrays = blobs.read(beside(path), lines)
    origins = {copy: line.inputs[0] for line in lines if line.type == "Split" and line.inputs for copy in line.outputs}
    return Files(lines, arrays, origins)


def read(path: Path, absorbed: Mapping[str, str]) -> Content:
    """Return what the files hold.

    Args:
        path: the .param file.
        absorbed: encoded tensor key -> the blob that serves it, for pads that a convolution does itself.

    Raises:
        VerificationError: a file is not one of ours, or a number in it is not the one that its scales ask for.
        OSError: a file cannot be read.
    """
    found = files(path)
    try:
        content = _Reader(found).content()
    except ValueError as error:  # sizes that do not go together, a number that is no whole one
        raise VerificationError(
            f"its layers do not go with their numbers: {error}", where=str(path), next_step="lower the model again"
        ) from error
    for key, blob in absorbed.items():
        if (held := content.tensors.get(f"{key_of(blob)}{_OUT}")) is not None:
            content.tensors[key] = held
    return content.sound(path)


@dataclass
class _Reader:
    files: Files
    found: Content = field(default_factory=Content)

    def content(self) -> Content:
        """Read all layers: constants first, they hold the scales."""
        for line in self.files.lines:
            if line.type == "MemoryData":
                self._scale(line)
        for line in self.files.lines:
            if "weight" in self.files.arrays[line.name]:
                self._layer(line)
        for line in self.files.lines:
            if line.type == "Quantize":
                self._quantize(line)
            elif line.type == "Eltwise":
                self._add(line)
            elif line.type in ("Scale", "BinaryOp"):
                self._multiply(line)
        weights = {key for key in self.found.tensors if key.endswith(_WEIGHT)}
        for key in sorted(weights - {f"{name}" for name in self.found.integers} - self._halves()):
            self._fault(key, "a scale without integers")
        return self.found

    def _halves(self) -> set[str]:
        return {key for key, one in self.found.tensors.items() if isinstance(one, Float)}

    def _fault(self, where: str, cause: str) -> None:
        self.found.faults.append(Fault(where, cause))

    def _scale(self, line: Line) -> None:
        """Take a scale."""
        for suffix in (SCALES, SCALE):
            key = line.outputs[0].removesuffix(suffix) if line.outputs else ""
            if not key_of(key) or key == line.outputs[0]:
                continue
            values = np.array(self.files.arrays[line.name]["data"].values, np.float32)
            try:
                if key.endswith(_WEIGHT):
                    axis = 0 if suffix == SCALES else None
                    encoding = affine.symmetric(values if axis == 0 else values.reshape(()), 8, axis)
                else:
                    middle = np.array(128, np.int32)
                    encoding = Affine(8, signed=False, axis=None, scale=values.reshape(()), zero_point=middle)
            except ValueError as error:
                self._fault(key, str(error))
                return
            self.found.tensors[key] = encoding
            return

    def _grid(self, blob: str) -> Affine | None:
        """Return the encoding of the tensor that a blob of codes or whole numbers belongs to."""
        one = self.found.tensors.get(f"{key_of(blob)}{_OUT}")
        return one if isinstance(one, Affine) and blob.endswith((CODES, WHOLE)) else None

    def _layer(self, line: Line) -> None:
        """Take a weight, and the bias of a layer in integers."""
        node = key_of(line.name)
        key, array = f"{node}{_WEIGHT}", self.files.arrays[line.name]["weight"]
        if array.form is Form.FLOAT16:
            self.found.tensors[key] = Float("float16")
        if array.form not in (Form.INT8, Form.TABLE):
            return
        encoding = self.found.tensors.get(key)
        if not node or not isinstance(encoding, Affine):
            self._fault(node or line.name, "integers without a scale")
            return
        shape = _shape(line, array.values.size)
        if not shape or (encoding.axis == 0 and len(encoding.scale) != shape[0]):
            self._fault(key, f"{array.values.size} integers for {line.whole(0)} channels")
            return
        codes = np.array(array.values, np.int32).reshape(shape)
        if codes.min() < encoding.low:
            self._fault(key, "the lowest code is used")
            return
        self.found.integers[key] = codes
        self._arithmetic(line, node, encoding, shape[0])

    def _arithmetic(self, line: Line, node: str, weight: Affine, channels: int) -> None:
        """Check the factors of a layer in integers, and take its bias."""
        source, out = self._grid(self.files.source(line)), self._out(line)
        arrays = self.files.arrays[line.name]
        bias = arrays.get("bias")
        if source is None or out is None:
            if "weight scale" in arrays:
                self._fault(node, "integers whose input or output has no scale")
            return
        factors = numbers.multiplier(source, weight, out, channels)
        codes = None if bias is None else numbers.bias_codes(bias.values, _ONE)
        if "weight scale" in arrays:
            wanted = {"weight scale": numbers.inverse(factors), "input scale": _ONE, "output scale": _ONE}
            for role in wanted.keys() & arrays.keys():
                self._same(node, f"the {role}", arrays[role].values, wanted[role])
            codes = None if bias is None else numbers.bias_codes(bias.values, factors)
            if bias is not None and codes is not None:
                self._same(node, "the bias", bias.values, numbers.bias_values(codes, factors))
        elif bias is not None and codes is not None:
            self._same(node, "the bias", bias.values, codes.astype(np.float32))
        if codes is not None:
            self.found.biases[node] = codes, affine.bias_scale(source.scale, weight.scale)

    def _out(self, line: Line) -> Affine | None:
        """Return the encoding of what leaves the unit that a layer computes: of the next blob of codes."""
        name = line.outputs[0] if line.outputs else ""
        for _ in range(4):
            if (found := self._grid(name)) is not None:
                return found
            name = next((one.outputs[0] for one in self._readers(name) if one.type != "Split"), "")
        return None

    def _readers(self, blob: str) -> Iterator[Line]:
        return (line for line in self.files.lines if blob and blob in line.inputs and line.outputs)

    def _quantize(self, line: Line) -> None:
        """Check what values are multiplied by before they are rounded."""
        made = line.outputs[0] if line.outputs else ""
        grid, node = self._grid(made), key_of(line.name)
        array = self.files.arrays[line.name]["scale"].values
        if grid is None:
            self._fault(line.name, "codes without a scale")
        elif line.name.endswith(ROUND):
            self._same(node, "the factor of rounding", array, numbers.steps(grid))
        elif line.name.endswith(SETTLE) and (wanted := self._factors(line, grid)) is not None:
            self._same(node, "the factor of the sum", array, wanted)
        else:
            self._same(node, "the factor of codes", array, _ONE)

    def _multiply(self, line: Line) -> None:
        """Check the factors of sums that a layer of their own applies: a Scale, or a product with a constant."""
        name = self.files.source(line, 1)
        if line.type == "BinaryOp" and not name.endswith(FACTOR):
            return
        role, holder = ("scale", line.name) if line.type == "Scale" else ("data", name)
        found, wanted = self.files.arrays.get(holder, {}).get(role), self._factors(line, self._out(line))
        if found is None or wanted is None:
            self._fault(key_of(line.name) or line.name, "factors that no scale asks for")
            return
        self._same(key_of(line.name), "the factor of the sum", found.values, wanted)

    def _factors(self, line: Line, out: Affine | None) -> np.ndarray | None:
        """Return what sums are multiplied by: of whole numbers, or of stored integers; None where that was done."""
        first = self._before(line)
        if first is None or not first.type.startswith(_SUMS) or "weight scale" in self.files.arrays[first.name]:
            return None
        source = self._grid(self.files.source(first))
        weight = self.found.tensors.get(f"{key_of(first.name)}{_WEIGHT}")
        if first.type == "Pooling":
            return None if source is None or out is None else numbers.ratio(source, out)
        if not isinstance(weight, Affine):
            return None
        channels = first.whole(0)
        if source is None or out is None:
            return np.ascontiguousarray(np.broadcast_to(weight.scale, (channels,)), np.float32)
        return numbers.multiplier(source, weight, out, channels)

    def _before(self, line: Line) -> Line | None:
        """Return the layer whose sums a Quantize takes, past limits and shapes; None where factors were applied."""
        made_by = {name: one for one in self.files.lines for name in one.outputs}
        for _ in range(4):
            before = made_by.get(self.files.source(line))
            if before is None or before.type not in ("ReLU", "Reshape"):
                return before
            line = before
        return None

    def _add(self, line: Line) -> None:
        """Check the ratios of an add."""
        out = self._out(line)
        sources = [self._grid(self.files.source(line, place)) for place in range(len(line.inputs))]
        node = key_of(line.name)
        if out is None or any(source is None for source in sources):
            self._fault(node or line.name, "an add of whole numbers without scales")
            return
        wanted = np.concatenate([numbers.ratio(source, out) for source in sources if source is not None])
        given = line.settings.get(1, ())
        self._same(node, "a ratio of the add", np.array(given, np.float32).reshape(-1), wanted)

    def _same(self, node: str, what: str, found: np.ndarray, wanted: np.ndarray) -> None:
        if found.shape != wanted.shape or np.asarray(found, np.float32).tobytes() != wanted.tobytes():
            self._fault(node, f"{what} does not follow from the scales: {_few(found)} instead of {_few(wanted)}")


def _few(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in list(values)[:4])


def _shape(line: Line, size: int) -> tuple[int, ...]:
    """Return the shape of a layer's weight, empty when there is none."""
    channels = line.whole(0)
    kernel: tuple[int, ...] = ()
    if line.type.startswith("Convolution"):
        width = line.whole(1)
        kernel = (width,) if line.type.endswith("1D") else (line.whole(11, width), width)
    taps = channels * int(np.prod(kernel, dtype=np.int64))
    if taps <= 0 or size % taps:
        return ()
    return (channels, size // taps, *kernel)
