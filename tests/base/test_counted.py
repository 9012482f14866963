"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from haversack.base.counted import counted


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("layer",), "0 layers"),
        (1, ("layer",), "1 layer"),
        (2, ("layer",), "2 layers"),
        (1_200, ("layer",), "1,200 layers"),
        (1, ("batch", "batches"), "1 batch"),
        (11, ("batch", "batches"), "11 batches"),
    ],
)
def test_one_is_one_and_others_are_many(number, words, said):
    assert counted(number, *words) == said
