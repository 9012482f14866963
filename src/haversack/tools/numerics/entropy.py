"""Entropy: how many bits a code takes when codes are stored by how often they occur."""

from __future__ import annotations

import numpy as np


def bits_per_code(codes: np.ndarray) -> float:
    """Return the order-0 entropy of integers in bits (Shannon 1948): what a model for this array alone comes near to.

    Args:
        codes: integers of any shape; an empty array has 0 bits.
    """
    if not codes.size:
        return 0.0
    flat = codes.reshape(-1).astype(np.int64)
    counts = np.bincount(flat - flat.min())
    share = counts[counts > 0] / flat.size
    return float(-(share * np.log2(share)).sum()) + 0.0  # no -0.0
