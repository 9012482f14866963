"""The format's page: its vectors are right, and its decoder, made from the page alone, reads what we write."""

from __future__ import annotations

import ast
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.errors import Refused
from haversack.tools.codec import body, download, plan, rans, tables, zstd

PAGE = (Path(__file__).parents[3] / "docs" / "spec" / "download.md").read_text(encoding="utf-8")
VECTORS = [bytes.fromhex(block.replace("\n", "")) for block in re.findall(r"```text\n([0-9a-f\n]+)```", PAGE)]


@pytest.fixture(scope="module")
def decode():
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], names)
    return names["decode"]


def test_the_vectors(decode):
    first, second, content, third, grid = VECTORS
    assert len(first) == int(re.search(r"Form 1, (\d+) bytes", PAGE)[1])
    assert len(second) == int(re.search(r"Form 2, (\d+) bytes", PAGE)[1])
    assert download.unpack(first, limit=40) == decode(first) == b"haversack haversack haversack haversack\n"
    assert download.unpack(second, limit=68) == decode(second) == content
    assert (first[5], second[5], len(content)) == (1, 2, 68)
    assert len(third) == int(re.search(r"Version 2, (\d+) bytes", PAGE)[1])
    assert download.unpack(third, limit=42) == decode(third) == grid
    assert (third[4], third[5], len(grid)) == (2, 2, 42)


@pytest.mark.parametrize("which", [0, 1, 3])
def test_no_damaged_vector_passes(which):
    vector = VECTORS[which]
    content = download.unpack(vector, limit=68)
    for at in range(len(vector)):
        damaged = vector[:at] + bytes([vector[at] ^ 0x55]) + vector[at + 1 :]
        try:
            assert download.unpack(damaged, limit=68) == content
        except Refused as error:
            assert error.where


def test_what_the_page_says_on_the_way():
    second = VECTORS[1]
    sizes = body.SIZES.unpack_from(second, 48)
    assert sizes[:4] == (2, 2, 3, 12)
    assert (
        re.search(r"the directory is `([0-9a-f]+)`", PAGE)[1]
        == plan.write(
            [
                (plan.Run(0, 27, 1, 1),),
                tuple(plan.Run(27 + phase, 48, 4, model) for phase, model in enumerate((0, 0, 0, 2))),
                (plan.Run(48, 68, 1, 3),),
            ]
        )[0].hex()
    )
    numbers = [int(number, 16) for number in re.findall(r"`0x([0-9a-f]+)`", PAGE)]
    assert second.endswith(struct.pack("<IIHH", *numbers))
    told = [ast.literal_eval(table) for table in re.findall(r"`(\{\d+: [^`]*\})`", PAGE)]
    planned = zstd.decompress(second[72 : 72 + sizes[4]], 512 + 12)
    found = tables.to_frequencies(np.frombuffer(planned, np.uint8, 512).reshape(2, 256))
    assert [{symbol: count for symbol, count in enumerate(row) if count} for row in found.tolist()] == told


def test_what_the_page_says_of_version_2():
    third, content = VECTORS[3:]
    count, _, segments, size, planned, _ = body.SIZES.unpack_from(third, 48)
    directory = zstd.decompress(third[72 : 72 + planned], 256 * count + size)[256 * count :]
    assert directory.hex() == "".join(re.search(r"is `(\w+)`, and .*`(\w+)` of the rows\nand `(\w+)`", PAGE).groups())
    grid, product, _ = plan.read(directory, segments, len(content), count, 2)
    ((place, numbers),) = grid.pieces(100)
    told = re.search(r"the tables of the grid's bytes are (`.*?);", PAGE, re.DOTALL)[1]
    assert numbers.tolist() == [int(each) for each in re.findall(r"[01]", told)]
    assert (place, product.start, product.source) == (slice(0, 18), 18, 30)
    numbers = np.frombuffer(content, np.float32, 6, 18)
    factor = np.array([product.factor], np.uint32).view(np.float32)
    np.testing.assert_array_equal(numbers[:3], numbers[3:] * factor)


def test_the_bounds_of_the_page_are_ours():
    assert rans.TOTAL == 16384
    for bound in (plan.MOST_TABLES, rans.MOST_LANES, plan.MOST_SEGMENTS):
        assert f"| {bound:,} |" in PAGE
    assert f"{plan.MOST_ENTRY} · `S`; in version 2 {plan.MOST_ENTRY_2 + 1} · `S` + `size`" in PAGE
    assert plan.most_bytes(7, 1000, 1) == plan.MOST_ENTRY * 7
    assert plan.most_bytes(7, 1000, 2) == 26 * 7 + 1000
    assert tables.LEVELS == 129
    assert f"## Header: {download.HEADER.size} bytes" in PAGE
    assert f"## Sizes: {body.SIZES.size} bytes" in PAGE


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0, 0, 0, 1, 2, 254, 255]), max_size=1500).map(bytes), st.binary(max_size=300))
def test_the_pages_decoder_reads_what_we_write(decode, low, noise):
    content = low + noise + b"tensor" * 50
    assert decode(download.pack(content)) == content


def test_the_pages_decoder_reads_a_models_file(decode, model_file):
    packed = download.pack(model_file)
    assert (packed[4], packed[5]) == (1, 2)
    assert decode(packed) == model_file


def test_the_pages_decoder_reads_grids_and_products(decode, layers):
    content, tensors = layers
    packed = download.pack(content, tensors)
    assert (packed[4], packed[5]) == (2, 2)
    assert decode(packed) == content
