"""Bytes with known statistics, like those of a quantized model's file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from haversack.base.stored import Stored
from haversack.tools.codec import native

NATIVE = Path(__file__).parents[3] / "native"
Draws = Callable[..., bytes]


@pytest.fixture(scope="session")
def bell() -> Draws:
    """Return a function that draws int8 weights with a bell curve, as bytes."""

    def drawn(count, spread, seed=0):
        values = np.random.default_rng(seed).normal(0, spread, count)
        return np.clip(np.round(values), -127, 127).astype(np.int8).tobytes()

    return drawn


@pytest.fixture(scope="session")
def floats() -> Draws:
    """Return a function that draws small float32 numbers, as bytes."""

    def drawn(count, seed=0):
        return np.random.default_rng(seed).normal(0, 0.01, count).astype(np.float32).tobytes()

    return drawn


@pytest.fixture(scope="session")
def model_file(bell: Draws, floats: Draws) -> bytes:
    """Bytes like a model's: text, two layers of int8 weights and their scales, zeros, noise."""
    text = "".join(f"module.{index}.conv:conv2d#0:weight/codes;" for index in range(120)).encode()
    noise = np.random.default_rng(7).integers(0, 256, 3000, np.uint8).tobytes()
    return text + bell(30_000, 12, 1) + floats(1500, 2) + bell(20_000, 40, 3) + bytes(4000) + noise + floats(1000, 4)


@pytest.fixture(scope="session")
def layers(bell: Draws) -> tuple[bytes, tuple[Stored, ...]]:
    """Bytes like a quantized model's, and its tensors: weights, wide by row and column, scales, biases and theirs."""
    drawn = np.random.default_rng(11)
    parts: list[bytes] = []
    tensors: list[Stored] = []

    def add(name, values, dtype):
        parts.append(f"{name};".encode())
        start = sum(map(len, parts))
        parts.append(values.tobytes())
        tensors.append(Stored(name, start, values.nbytes, dtype, values.shape))

    for index, (rows, columns) in enumerate([(40, 300), (64, 9), (128, 256)]):
        spreads = 2 ** drawn.uniform(1, 5, (rows, 1)) * 2 ** drawn.normal(0, 0.5, columns)
        weights = np.clip(np.round(drawn.normal(0, spreads)), -127, 127).astype(np.int8)
        scales = drawn.uniform(1e-4, 1e-2, rows).astype(np.float32)
        add(f"layer{index}.bias/scale", scales * np.float32(0.0237), "float32")
        add(f"layer{index}.weight", weights, "int8")
        add(f"layer{index}.scale", scales, "float32")
        add(f"layer{index}.bias", np.round(drawn.normal(0, 9000, rows)).astype(np.int32), "int32")
    return b"".join([*parts, b"end"]), tuple(tensors)


@pytest.fixture(scope="session")
def build() -> ModuleType:
    """Return native/build.py."""
    spec = importlib.util.spec_from_file_location("native_build", NATIVE / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def library(build: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library of the coder's loops, built from the source as it is now."""
    if build.compiler() is None:
        pytest.skip("no C compiler is installed")
    place = tmp_path_factory.mktemp("native") / "_native.so"
    assert build.build(place) == ""
    return place


@pytest.fixture(scope="module", params=["numpy", "c"])
def loops(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have the coder's loops in NumPy, and once more in C."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setenv(native.SWITCH, "0")
        else:
            patch.delenv(native.SWITCH, raising=False)
            patch.setattr(native, "PLACE", request.getfixturevalue("library"))
        assert (native.library() is not None) == (request.param == "c")
        yield request.param
