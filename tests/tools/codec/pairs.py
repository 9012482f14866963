"""Pairs of files like those of a model before and after a change, with where their tensors are."""

from __future__ import annotations

import numpy as np

from haversack.base.stored import Stored

TENSORS = (
    ("first", "int8", (40, 64)),
    ("scale", "float32", (40,)),
    ("bias", "int32", (40,)),
    ("fours", "int4", (30, 32)),
    ("halves", "float16", (120,)),
    ("wide", "int64", (30,)),
    ("doubles", "float64", (30,)),
    ("words", "int16", (50,)),
    ("bytes", "uint8", (9, 40)),
)
DTYPES = {"int4": "<u1", "float16": "<f2", "bfloat16": "<u2"}


def drawn(seed=0):
    """Return name -> array of each tensor; two halves to a byte are one byte."""
    random = np.random.default_rng(seed)
    found = {}
    for name, dtype, shape in TENSORS:
        kind = np.dtype(DTYPES.get(dtype, dtype)).newbyteorder("<")
        count = int(np.prod(shape)) // (2 if dtype == "int4" else 1)
        if kind.kind == "f":
            found[name] = random.normal(0, 1, count).astype(kind)
        else:
            info = np.iinfo(kind)
            spread = random.normal(0, 30 if kind.itemsize == 1 else 9000, count)
            whole = np.rint(spread) % 251 if info.min == 0 else np.rint(spread)
            found[name] = np.clip(whole, info.min, info.max).astype(kind)
    return found


def changed(arrays, seed=1, *, share=0.2):
    """Return arrays of which a share of words moved a little; scales and biases are all multiplied by one number."""
    random = np.random.default_rng(seed)
    found = {}
    for name, array in arrays.items():
        moves = random.random(array.size) < share
        if name == "scale":
            found[name] = (array * np.float32(1.1)).astype(array.dtype)
        elif name == "bias":
            found[name] = np.rint(array * 1.1).astype(array.dtype)
        elif array.dtype.kind == "f":
            found[name] = np.where(moves, array * array.dtype.type(1.001), array).astype(array.dtype)
        else:
            step = random.integers(-2, 3, array.size)
            found[name] = (array.astype(np.int64) + np.where(moves, step, 0)).astype(array.dtype)
    return found


def filed(arrays, head=b"a head", *, order=None, between=b"|between|", named=str):
    """Return (a file of arrays with bytes between them, where they are)."""
    data, where = bytearray(head), []
    shapes = {name: (dtype, shape) for name, dtype, shape in TENSORS}
    for name in order or arrays:
        content = arrays[name].tobytes()
        where.append(Stored(named(name), len(data), len(content), *shapes[name]))
        data += content + between
    return bytes(data), tuple(where)
