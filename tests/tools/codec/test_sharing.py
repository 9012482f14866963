"""Sharing: alike histograms have one table, others have their own, and never are there more than may be."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.tools.codec import entropy, segments, sharing


def histograms(spreads, count=20_000):
    drawn = np.random.default_rng(5)
    rows = []
    for spread in spreads:
        values = np.clip(np.round(drawn.normal(0, spread, count)), -127, 127).astype(np.int8)
        rows.append(np.bincount(values.view(np.uint8), minlength=256))
    return np.array(rows)


def test_alike_ones_are_one():
    counts = histograms([5, 40, 5, 40, 5, 1])
    assert sharing.share(counts, segments.model_bits(counts), 99).tolist() == [0, 1, 0, 1, 0, 2]


def test_a_table_that_costs_nothing_is_not_shared():
    counts = histograms([5, 5, 40])
    assert sharing.share(counts, np.zeros(3, np.int64), 99).tolist() == [0, 1, 2]
    assert sharing.share(counts[:1], np.zeros(1, np.int64), 99).tolist() == [0]
    assert sharing.share(counts[:0], np.zeros(0, np.int64), 99).tolist() == []


def test_it_saves_bits():
    counts = histograms(np.linspace(2, 50, 40), 3000)
    price = segments.model_bits(counts)
    owner = sharing.share(counts, price, 99)
    joint = np.zeros((owner.max() + 1, 256), np.int64)
    np.add.at(joint, owner, counts)
    alone = (entropy.of_counts(counts) + price).sum()
    together = (entropy.of_counts(joint) + segments.model_bits(joint)).sum()
    assert 1 < len(joint) < 40
    assert together < alone


@pytest.mark.parametrize("most", [1, 2, 5])
def test_so_many_at_most(most):
    counts = histograms([1, 2, 4, 8, 16, 32, 64])
    owner = sharing.share(counts, np.zeros(7, np.int64), most)
    assert len(set(owner.tolist())) <= most
    assert owner[0] == 0


def test_in_batches(monkeypatch):
    counts = histograms([5, 40, 5, 40, 40, 5, 1, 1])
    price = segments.model_bits(counts)
    monkeypatch.setattr(sharing, "_BATCH", 3)
    assert sharing.share(counts, price, 12).tolist() == [0, 1, 0, 1, 1, 0, 2, 2]
    assert len(set(sharing.share(counts, np.zeros(8, np.int64), 3).tolist())) <= 3


def test_the_same_twice():
    counts = histograms([3, 3.1, 3.2, 30, 31, 32] * 5, 500)
    price = segments.model_bits(counts)
    np.testing.assert_array_equal(sharing.share(counts, price, 9), sharing.share(counts, price, 9))
