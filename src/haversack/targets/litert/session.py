"""A file open in LiteRT with XNNPACK, without torch: rows of a batch run one after another, lengths are padded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from haversack.base.errors import ConversionError, MissingExtra, UsageError
from haversack.base.graph import TensorSpec
from haversack.base.model import Port

Arrays = Mapping[str, np.ndarray]
Side = Mapping[str, tuple[tuple[int, ...], "np.dtype[Any]"]]
"""Port name -> (shape, dtype)."""
BUILTIN = "builtin"
"""The delegate's name for none: the runtime's own kernels, without XNNPACK."""
MAIN = "serving_default"
"""Name of the first signature."""


def interpreter(model: Path | bytes, threads: int, where: str, *, delegate: str = "", **settings: bool) -> Any:  # noqa: ANN401 - untyped package
    """Return an interpreter with its tensors allocated.

    Args:
        model: a path, or the bytes of a file.
        threads: of one call.
        where: told when it cannot be opened.
        delegate: what computes; empty for the runtime's own choice, XNNPACK, or ``BUILTIN``.
        settings: further arguments of the interpreter.

    Raises:
        MissingExtra: ai_edge_litert is not installed.
        ConversionError: the runtime refuses the file.
        UsageError: there is no such delegate.
    """
    if delegate not in ("", BUILTIN):
        raise UsageError(f"LiteRT has no delegate {delegate!r}", next_step=f"leave it out, or say {BUILTIN}")
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise MissingExtra("ai-edge-litert", "pack", purpose="running a LiteRT file") from error
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if delegate else OpResolverType.AUTO
    source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
    try:
        found = Interpreter(**source, num_threads=threads, experimental_op_resolver_type=kernels, **settings)
        found.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        text = str(error).strip()
        raise ConversionError(
            f"LiteRT does not open it: {text.splitlines()[0] if text else type(error).__name__}", where=where
        ) from error
    return found


class LiteRTSession:
    """An open file; see ``targets.contract.Session``. Its shapes are the file's, channels last where it has them.

    A batch is cut into as many rows as the file takes. Where the file has several signatures, each of other lengths,
    the one of the smallest lengths that fit is taken; inputs are filled up with zeros, or with the code of zero (no
    token, masked), and outputs are cut to the length of the inputs.
    """

    def __init__(self, model: Path | bytes, threads: int, delegate: str = "") -> None:
        where = "the file" if isinstance(model, bytes) else str(model)
        self._interpreter = interpreter(model, threads, where, delegate=delegate)
        signatures = self._interpreter.get_signature_list()
        forms = [_Form(name, self._interpreter.get_signature_runner(name)) for name in signatures]
        self._forms = sorted(forms, key=lambda form: form.size)
        places = self._places()
        for form in self._forms:
            form.arrange(places)
        self._single = self._plain() if len(self._forms) == 1 else None

    @cached_property
    def inputs(self) -> tuple[Port, ...]:
        """The file's inputs, in order."""
        return _ports(self._forms[0].inputs, self._forms[0].free)

    @cached_property
    def outputs(self) -> tuple[Port, ...]:
        """The file's outputs, in order."""
        return _ports(self._forms[0].outputs, self._forms[0].free)

    def _places(self) -> tuple[list[str], list[str]]:
        """Return the names of inputs and outputs in the order in which the first signature's graph has them."""
        main = next(form for form in self._forms if form.name == MAIN)
        listed = (self._interpreter.get_input_details, self._interpreter.get_output_details)
        inputs, outputs = (_placed(named, told) for named, told in zip(main.details, listed, strict=True))
        return inputs, outputs

    def _plain(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return name -> number of inputs and outputs, for the quick way of a file with one signature."""
        self._forms[0].runner = None  # while one lives, the interpreter does not run
        sides = self._forms[0].details
        inputs, outputs = ({name: int(one["index"]) for name, one in side.items()} for side in sides)
        return inputs, outputs

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Return output name -> array for input name -> array, dtypes as ``inputs`` and ``outputs`` say.

        Raises:
            UsageError: the session is closed, an input is missing or unknown, or does not fit.
        """
        if self._interpreter is None:
            raise UsageError("the session is closed")
        form = self._fitting(inputs)
        form.check(inputs)
        pieces = [self._call(form, piece) for piece in _pieces(form, inputs)]
        if len(pieces) == 1:
            return pieces[0]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def signature(self, inputs: Arrays) -> str:
        """Return the name of the signature that takes these inputs (shapes and dtypes as ``inputs`` says).

        Raises:
            UsageError: none does.
        """
        return self._fitting(inputs).name

    def _fitting(self, inputs: Arrays) -> _Form:
        """Return the smallest signature that takes these inputs."""
        for form in self._forms:
            if form.takes(inputs):
                return form
        wanted = ", ".join(form.words(name) for form in self._forms[-1:] for name in form.inputs)
        given = ", ".join(f"{name} {list(array.shape)} {array.dtype}" for name, array in inputs.items())
        raise UsageError(f"the inputs do not fit: {given or 'none'}", next_step=f"give {wanted}")

    def _call(self, form: _Form, inputs: Arrays) -> dict[str, np.ndarray]:
        filled = {
            name: _filled(np.asarray(array), form.inputs[name][0], form.blank[name]) for name, array in inputs.items()
        }
        if self._single is not None:
            places, made = self._single
            for name, array in filled.items():
                self._interpreter.set_tensor(places[name], array)
            self._interpreter.invoke()
            found = {name: self._interpreter.get_tensor(number) for name, number in made.items()}
        else:
            found = form.runner(**filled)
        return {name: self._cut(form, name, found[name], inputs) for name in form.outputs}

    def _cut(self, form: _Form, name: str, array: np.ndarray, inputs: Arrays) -> np.ndarray:
        """Return an output without the places that were filled up."""
        for axis in form.free[name]:
            (real,) = form.lengths(inputs)[array.shape[axis]]
            array = array[(slice(None),) * axis + (slice(real),)]
        return array

    def close(self) -> None:
        """Let go of the runtime's memory."""
        self._interpreter = None
        self._forms = []


class _Form:
    """One signature: its runner, and (shape, dtype) of its inputs and outputs by name."""

    def __init__(self, name: str, runner: Any) -> None:  # noqa: ANN401 - untyped package
        self.name, self.runner = name, runner
        sides = self.details = (runner.get_input_details(), runner.get_output_details())
        self.inputs, self.outputs = (
            {name: (tuple(int(n) for n in one["shape"]), np.dtype(one["dtype"])) for name, one in side.items()}
            for side in sides
        )
        self.free = {
            name: [axis for axis, size in enumerate(one["shape_signature"]) if size == -1]
            for side in sides
            for name, one in side.items()
        }
        self.blank = {name: int(one["quantization"][1]) for name, one in sides[0].items()}
        self.size = sum(math.prod(shape) for shape, _ in self.inputs.values())

    def arrange(self, places: tuple[list[str], list[str]]) -> None:
        """Put inputs and outputs into an order of names."""
        sides = (self.inputs, self.outputs)
        self.inputs, self.outputs = (
            {name: side[name] for name in names} for side, names in zip(sides, places, strict=True)
        )

    def lengths(self, inputs: Arrays) -> dict[int, set[int]]:
        """Return length in the file -> those that inputs have instead."""
        found: dict[int, set[int]] = {}
        for name, array in inputs.items():
            for axis in self.free[name]:
                found.setdefault(self.inputs[name][0][axis], set()).add(array.shape[axis])
        return found

    def check(self, inputs: Arrays) -> None:
        """Make sure that it is known how long each output is.

        Raises:
            UsageError: inputs differ in a length that is one in the file, and an output has it.
        """
        real = self.lengths(inputs)
        for name, (shape, _) in self.outputs.items():
            for axis in self.free[name]:
                if len(several := real.get(shape[axis], set())) != 1:
                    lengths = " or ".join(map(str, sorted(several))) or "unknown"
                    raise UsageError(
                        f"the length of the output {name} is {lengths}: the file does not tell which",
                        next_step="give inputs of equal lengths",
                    )

    def words(self, name: str) -> str:
        """Return what an input takes: its shape, where it may be shorter ``up to`` how much, and its dtype."""
        shape, dtype = self.inputs[name]
        sizes = [f"up to {size}" if axis in self.free[name] else str(size) for axis, size in enumerate(shape)]
        return f"{name} [{', '.join(sizes)}] {dtype}"

    def takes(self, inputs: Arrays) -> bool:
        """Say whether inputs fit: names, dtypes, whole numbers of batches, lengths that are not too long."""
        if inputs.keys() != self.inputs.keys():
            return False
        counts = set()
        for name, array in inputs.items():
            shape, dtype = self.inputs[name]
            if array.dtype != dtype or array.ndim != len(shape):
                return False
            if shape:
                if not array.shape[0] or array.shape[0] % shape[0]:
                    return False
                counts.add(array.shape[0] // shape[0])
            for axis in range(1, len(shape)):
                size, most = array.shape[axis], shape[axis]
                if size > most or (size < most and axis not in self.free[name]):
                    return False
        return len(counts) <= 1


def _placed(named: Mapping[str, Any], listed: Callable[[], Sequence[Any]]) -> list[str]:
    """Return names in the order of a list of tensors, which is asked for where there are several."""
    if len(named) == 1:
        return [*named]
    numbers = [int(one["index"]) for one in listed()]
    return sorted(named, key=lambda name: numbers.index(int(named[name]["index"])))


def _pieces(form: _Form, inputs: Arrays) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs of one call each."""
    calls = max((len(array) // form.inputs[name][0][0] for name, array in inputs.items() if array.ndim), default=1)
    for index in range(calls):
        yield {
            name: array[index * rows : (index + 1) * rows] if array.ndim else array
            for name, array in inputs.items()
            for rows in [form.inputs[name][0][0] if array.ndim else 0]
        }


def _filled(array: np.ndarray, shape: tuple[int, ...], blank: int) -> np.ndarray:
    if array.shape == shape:
        return np.ascontiguousarray(array)
    return np.pad(
        array, [(0, most - size) for size, most in zip(array.shape, shape, strict=True)], constant_values=blank
    )


def _ports(side: Side, free: Mapping[str, list[int]]) -> tuple[Port, ...]:
    """Return ports; a length that may be shorter than the file's has a name."""
    found = []
    for name, (sizes, dtype) in side.items():
        shape = tuple(f"length{axis}" if axis in free[name] else size for axis, size in enumerate(sizes))
        found.append(Port(name, TensorSpec(shape, str(dtype))))
    return tuple(found)
