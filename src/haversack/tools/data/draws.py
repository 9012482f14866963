"""Random numbers that belong to a row by its content: the same in every batch, every call and every process."""

from __future__ import annotations

import hashlib

import numpy as np


def of_row(row: np.ndarray, seed: int) -> np.random.Generator:
    """Return the random numbers of one row of a batch (any shape and number dtype) under a seed.

    Equal rows get equal numbers, wherever they stand in a batch; another seed gives others. The stream is Philox
    (Salmon et al., SC 2011), keyed with a BLAKE2b digest of seed, dtype, shape and the bytes in C order.
    """
    state = hashlib.blake2b(f"{seed}|{row.dtype.str}|{row.shape}|".encode(), digest_size=16)
    state.update(np.ascontiguousarray(row).data)
    return np.random.Generator(np.random.Philox(key=int.from_bytes(state.digest(), "little")))
