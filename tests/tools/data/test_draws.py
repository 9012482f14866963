"""Random numbers of a row: its own by content and seed, and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.tools.data import draws


def first(row, seed=0):
    return draws.of_row(row, seed).integers(0, 1 << 62)


def test_equal_rows_get_equal_numbers_wherever_they_lie():
    batch = np.arange(12, dtype=np.float32).reshape(2, 6)
    assert first(batch[1]) == first(batch[1].copy()) == first(np.concatenate([batch, batch])[3])


@pytest.mark.parametrize(
    "other, seed",
    [
        (np.arange(6, dtype=np.float32) + 1, 0),
        (np.arange(6, dtype=np.float64), 0),
        (np.arange(6, dtype=np.float32).reshape(2, 3), 0),
        (np.arange(6, dtype=np.float32), 1),
    ],
    ids=["values", "dtype", "shape", "seed"],
)
def test_what_differs_gets_other_numbers(other, seed):
    assert first(other, seed) != first(np.arange(6, dtype=np.float32))


def test_a_view_draws_as_its_copy_does():
    wide = np.arange(24).reshape(4, 6)
    assert first(wide[:, ::2]) == first(wide[:, ::2].copy())


def test_the_stream_is_written_down():
    """A change of the key would change what every degraded score was measured on."""
    assert first(np.arange(4, dtype=np.uint8)) == 1671349833612234074
