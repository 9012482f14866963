"""rANS: what goes in comes out, at the size that the tables promise, and the same as a decoder one symbol at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.tools.codec import rans, tables

pytestmark = pytest.mark.usefixtures("loops")


def made(symbols, models, count):
    """Return frequencies that have every symbol of every table."""
    counts = np.zeros((count, 256), np.int64)
    np.add.at(counts, (models, symbols), 1)
    counts[counts.sum(axis=1) == 0, 0] = 1
    return tables.to_frequencies(tables.to_levels(counts))


@given(st.binary(max_size=600), st.integers(1, 3), st.integers(1, 70), st.integers(0, 99))
def test_round_trip(content, count, lanes, seed):
    symbols = np.frombuffer(content, np.uint8)
    models = np.random.default_rng(seed).integers(0, count, symbols.size).astype(np.uint16)
    frequencies = made(symbols, models, count)
    states, words = rans.encode(symbols, models, frequencies, lanes)
    assert (states.dtype, states.shape, words.dtype) == (np.uint32, (lanes,), np.uint16)
    np.testing.assert_array_equal(rans.decode(states, words, models, frequencies), symbols)


@given(st.binary(min_size=1, max_size=80), st.integers(1, 9))
def test_one_symbol_at_a_time(content, lanes):
    symbols = np.frombuffer(content, np.uint8)
    models = np.zeros(symbols.size, np.uint16)
    frequencies = made(symbols, models, 1)
    states, words = rans.encode(symbols, models, frequencies, lanes)
    row = frequencies[0].tolist()
    held, left, found = states.tolist(), words.tolist(), []
    for index in range(len(content)):
        state = held[index % lanes]
        slot = state % rans.TOTAL
        symbol = next(s for s in range(256) if sum(row[: s + 1]) > slot)
        state = row[symbol] * (state // rans.TOTAL) + slot - sum(row[:symbol])
        held[index % lanes] = state * 65536 + left.pop(0) if state < 65536 else state
        found.append(symbol)
    assert bytes(found) == content
    assert not left
    assert set(held) == {65536}


@pytest.mark.parametrize("spread", [0.3, 3, 30])
def test_size_is_the_entropy(spread):
    drawn = np.clip(np.round(np.random.default_rng(1).normal(0, spread, 400_000)), -127, 127).astype(np.int8)
    symbols = drawn.view(np.uint8)
    models = np.zeros(symbols.size, np.uint16)
    frequencies = made(symbols, models, 1)
    lanes = rans.lanes_for(symbols.size)
    states, words = rans.encode(symbols, models, frequencies, lanes)
    counts = np.bincount(symbols, minlength=256)
    bits = sum(count * math.log2(symbols.size / count) for count in counts.tolist() if count)
    assert bits / 8 <= words.nbytes + states.nbytes <= bits / 8 * 1.005 + 4 * lanes


def test_one_symbol_takes_no_words():
    symbols = np.full(10_000, 77, np.uint8)
    models = np.zeros(symbols.size, np.uint16)
    frequencies = np.zeros((1, 256), np.int64)
    frequencies[0, 77] = rans.TOTAL
    states, words = rans.encode(symbols, models, frequencies, 4)
    assert words.size == 0
    assert set(states.tolist()) == {1 << 16}
    np.testing.assert_array_equal(rans.decode(states, words, models, frequencies), symbols)


def test_the_rarest_symbol_beside_the_most_frequent():
    frequencies = np.zeros((1, 256), np.int64)
    frequencies[0, [0, 255]] = rans.TOTAL - 1, 1
    symbols = np.array([255] * 50 + [0] * 50 + [255, 0] * 50, np.uint8)
    models = np.zeros(symbols.size, np.uint16)
    for lanes in (1, 3, 256):
        states, words = rans.encode(symbols, models, frequencies, lanes)
        np.testing.assert_array_equal(rans.decode(states, words, models, frequencies), symbols)


def test_more_than_a_chunk(monkeypatch):
    symbols = np.random.default_rng(0).integers(0, 9, 5000).astype(np.uint8)
    models = (symbols % 2).astype(np.uint16)
    frequencies = made(symbols, models, 2)
    whole = rans.encode(symbols, models, frequencies, 8)
    monkeypatch.setattr(rans, "_CHUNK", 96)
    parts = rans.encode(symbols, models, frequencies, 8)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_array_equal(whole[1], parts[1])


def test_what_an_encoder_refuses():
    frequencies = np.zeros((1, 256), np.int64)
    frequencies[0, 0] = rans.TOTAL
    symbols, models = np.array([0, 0, 5], np.uint8), np.zeros(3, np.uint16)
    with pytest.raises(ValueError, match="symbol 2 has no frequency"):
        rans.encode(symbols, models, frequencies, 1)
    with pytest.raises(ValueError, match="add up to 16384"):
        rans.encode(symbols, models, frequencies - 1, 1)
    with pytest.raises(ValueError, match="add up to 16384"):
        rans.encode(symbols, models, np.resize(frequencies, (257, 256)), 1)
    below = frequencies.copy()
    below[0, :2] = rans.TOTAL + 1, -1
    with pytest.raises(ValueError, match="add up to 16384"):
        rans.encode(symbols, models, below, 1)
    with pytest.raises(ValueError, match="1 to 4096 lanes, not 0"):
        rans.encode(symbols, models, frequencies, 0)
    with pytest.raises(ValueError, match="a symbol has table 1, and there are 1"):
        rans.encode(symbols, models + 1, frequencies, 1)
    for lengths in ([1, 1, 0], [2, 2, -1], [3]):
        with pytest.raises(ValueError, match="runs have"):
            rans.encode(symbols, models, frequencies, 1, np.array(lengths))


def test_what_a_decoder_refuses():
    symbols = np.arange(200, dtype=np.uint8)
    models = np.zeros(200, np.uint16)
    frequencies = made(symbols, models, 1)
    states, words = rans.encode(symbols, models, frequencies, 2)
    with pytest.raises(ValueError, match="the words end at symbol"):
        rans.decode(states, words[:-1], models, frequencies)
    with pytest.raises(ValueError, match="1 words are left over"):
        rans.decode(states, np.append(words, np.uint16(0)), models, frequencies)
    with pytest.raises(ValueError, match="below 2\\^16"):
        rans.decode(states >> 16, words, models, frequencies)
    with pytest.raises(ValueError, match="last states"):
        rans.decode(states, words[:0], models[:0], frequencies)
    with pytest.raises(ValueError, match="a symbol has table 300, and there are 1"):
        rans.decode(states, words, models + 300, frequencies)


def test_the_symbol_without_a_word_is_named():
    symbols = np.full(100, 9, np.uint8)
    frequencies = np.ones((1, 256), np.int64)
    frequencies[0, 0] = rans.TOTAL - 255
    states, words = rans.encode(symbols, np.zeros(100, np.uint8), frequencies, 8)
    decoder = rans.Decoder(states, words[:-1], frequencies)
    decoder.take(np.zeros(50, np.uint8))
    # Of a lane the first symbol that is encoded, its last, fills no word: 92 to 99 are those.
    with pytest.raises(ValueError, match="the words end at symbol 91"):
        decoder.take(np.zeros(50, np.uint8))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 70)), max_size=9), st.integers(1, 40), st.integers(0, 1 << 32)
)
def test_runs_in_parts(runs, lanes, seed):
    drawn = np.random.default_rng(seed)
    models, lengths = (np.array([each[at] for each in runs], np.int64) for at in (0, 1))
    each = np.repeat(models, lengths)
    symbols = drawn.integers(0, 9, each.size).astype(np.uint8)
    frequencies = made(symbols, each, 3)
    states, words = rans.encode(symbols, models, frequencies, lanes, lengths)
    whole = rans.encode(symbols, each, frequencies, lanes)
    np.testing.assert_array_equal(states, whole[0])
    np.testing.assert_array_equal(words, whole[1])
    decoder = rans.Decoder(states, words, frequencies)
    cut = int(drawn.integers(0, len(runs) + 1))
    found = [decoder.take(models[:cut], lengths[:cut])]
    found += [decoder.take(part) for part in np.array_split(each[int(lengths[:cut].sum()) :], 3)]
    decoder.finish()
    np.testing.assert_array_equal(np.concatenate(found), symbols)


@pytest.mark.parametrize("count, lanes", [(0, 1), (1, 1), (4095, 1), (4096, 2), (1 << 20, 512), (1 << 30, 4096)])
def test_lanes(count, lanes):
    assert rans.lanes_for(count) == lanes
