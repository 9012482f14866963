"""Bytes with known statistics, like those of a quantized model's file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

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
