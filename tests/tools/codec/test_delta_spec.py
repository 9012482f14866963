"""The page of HVD1: its vector is right, and its decoder, made from the page alone, reads what we write."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from pairs import changed, drawn, filed

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.codec import delta, delta_make, delta_plan, delta_tilt, delta_words
from haversack.tools.codec.delta_plan import KEPT, MOST_POWER, PRODUCT
from haversack.tools.codec.delta_words import KINDS, LEAST_FACTOR, MOST_FACTOR, ONE

PAGE = (Path(__file__).parents[3] / "docs" / "spec" / "delta.md").read_text(encoding="utf-8")
VECTORS = [bytes.fromhex(block.replace("\n", "")) for block in re.findall(r"```text\n([0-9a-f\n]+)```", PAGE)]


@pytest.fixture(scope="module")
def page():
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], names)
    return names


def test_the_vector(page):
    old, new, patch = VECTORS
    assert [int(size) for size in re.findall(r"(?:file|delta), (\d+) bytes", PAGE)] == [len(old), len(new), len(patch)]
    assert delta.apply(old, patch, limit=len(new)) == page["decode"](old, patch) == new


def test_no_damaged_vector_passes():
    old, new, patch = VECTORS
    for at in range(len(patch)):
        damaged = patch[:at] + bytes([patch[at] ^ 0x55]) + patch[at + 1 :]
        try:
            assert delta.apply(old, damaged, limit=1000) == new
        except Refused as error:
            assert error.where


def test_the_decoder_of_the_page_reads_every_kind_of_word(page):
    arrays = drawn()
    old, before = filed(arrays, bytes(5000))
    new, after = filed(changed(arrays), bytes(4000))
    assert page["decode"](old, delta_make.make(old, new, before, after)) == new


def test_the_decoder_of_the_page_makes_products(page):
    random = np.random.default_rng(0)
    before = random.uniform(0.001, 0.1, 300).astype(np.float32)
    after = (before * random.uniform(1, 1.3, 300)).astype(np.float32)
    old, new = (one.tobytes() + (one * np.float32(3.7)).tobytes() for one in (before, after))
    hint = [Stored(name, 1200 * at, 1200, "float32", (300,)) for at, name in enumerate("ab")]
    patch = delta_make.make(old, new, hint, hint)
    assert page["decode"](old, patch) == new
    assert len(patch) < 2000


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 90), st.integers(1, 40), st.floats(0, 1))
def test_the_decoder_of_the_page_reads_rows_and_columns(page, seed, rows, columns, share):
    random = np.random.default_rng(seed)
    old = random.integers(-100, 100, (rows, columns)).astype(np.int8)
    loud = (random.random((rows, 1)) < share) * random.choice([-3, 1, 2], (rows, 1))
    new = old + (loud * random.integers(0, 3, old.shape)).astype(np.int8)
    hint = [Stored("w", 0, old.size, "int8", old.shape)]
    patch = delta_make.make(old.tobytes(), new.tobytes(), hint, hint)
    assert page["decode"](old.tobytes(), patch) == new.tobytes()


@given(st.integers(0, 255), st.integers(-delta_tilt.MOST_TILT, delta_tilt.MOST_TILT))
def test_tilts_are_those_of_the_page(page, word, tilt):
    found = delta_tilt.lean(np.array([word], np.uint8), np.array([tilt]), 1)
    assert tuple(one[0] for one in found) == page["tilted"](word, tilt)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(8, 60), st.floats(0.3, 3), st.booleans())
@example(0, 2, 13, 0.375, True)  # a ladder of one table
def test_the_decoder_of_the_page_reads_rows_with_tilts(page, seed, rows, columns, ratio, few):
    random = np.random.default_rng(seed)
    old = random.integers(-127, 128, (rows, columns)).astype(np.int8)
    loud = np.where(random.random((rows, 1)) < 0.5, ratio, 1)
    new = np.rint(old * loud + random.normal(0, 0.05 if few else 2, old.shape)).clip(-127, 127).astype(np.int8)
    hint = [Stored("w", 0, old.size, "int8", old.shape)]
    patch = delta_make.make(old.tobytes(), new.tobytes(), hint, hint)
    assert page["decode"](old.tobytes(), patch) == new.tobytes() == delta.apply(old.tobytes(), patch, limit=1 << 20)


POWERS = st.just(0) | st.integers(-MOST_POWER, MOST_POWER)


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 6]), st.integers(LEAST_FACTOR, MOST_FACTOR), POWERS)
def test_predictions_are_those_of_the_page(page, word, kind, factor, power):
    power = power if kind == 6 else 0
    data = np.frombuffer(word.to_bytes(4, "little"), np.uint8)
    none = np.zeros(1, np.uint32)
    found = delta_words.restore(data, none, KINDS[kind], factor, power)
    assert int.from_bytes(found.tobytes(), "little") == page["predicted"](word, kind, factor, power)
    assert page["predicted"](word, kind, ONE) == word


@given(st.sampled_from([2, 4, 8]), st.data())
def test_ranks_are_in_the_order_of_the_numbers(page, width, drawn_):
    kind = {2: "<f2", 4: "<f4", 8: "<f8"}[width]
    words = sorted(drawn_.draw(st.lists(st.integers(0, 2 ** (8 * width) - 1), min_size=2, max_size=2)))
    one, two = (np.frombuffer(word.to_bytes(width, "little"), kind)[0] for word in words)
    first, second = (page["rank"](word, 8 * width) for word in words)
    if not (np.isnan(one) or np.isnan(two)) and one != two:
        assert (first < second) == (one < two)
    assert page["unrank"](first, 8 * width) == words[0]


def test_the_bounds_of_the_page_are_ours():
    assert f"## Header: {delta.HEADER.size} bytes" in PAGE
    assert f"| {delta_plan.MOST_PLAN:,} |" in PAGE
    assert f"(at most {delta_plan.MOST_TABLES}): tables" in PAGE
    assert f"(at most {delta_plan.MOST_WRITTEN:,})" in PAGE
    assert f"at most {delta_plan.MOST_SYMBOLS:,}" in PAGE
    assert f"at most {KEPT:,} bytes" in PAGE
    assert f"from −{MOST_POWER} to {MOST_POWER}" in PAGE
    assert f"| {PRODUCT} | table, source" in PAGE
    assert len(KINDS) == 8
    assert (LEAST_FACTOR, MOST_FACTOR, ONE) == (2**20, 2**32 - 1, 2**28)
