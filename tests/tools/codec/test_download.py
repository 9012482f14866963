"""The download form: everything comes back, nothing malformed gets through, and Zstandard alone is never smaller."""

from __future__ import annotations

import hashlib
import math
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.errors import Refused
from haversack.base.stored import Stored
from haversack.tools.codec import body, download, zstd

skewed = st.tuples(st.integers(0, 9000), st.floats(0.1, 60), st.integers(0, 99)).map(
    lambda drawn: (
        np.clip(np.round(np.random.default_rng(drawn[2]).normal(0, drawn[1], drawn[0])), -128, 127)
        .astype(np.int8)
        .tobytes()
    )
)
mixed = st.lists(st.one_of(st.binary(max_size=700), skewed, st.just(b"tensor" * 300)), max_size=4).map(b"".join)


def alone(content):
    return len(zstandard.ZstdCompressor(level=19).compress(content))


def form(packed):
    return packed[5]


@given(st.one_of(st.binary(max_size=3000), skewed, mixed))
def test_everything_comes_back_and_zstandard_is_never_smaller(content):
    packed = download.pack(content)
    assert download.unpack(packed, limit=len(content)) == content
    assert len(packed) <= alone(content) + download.HEADER.size


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\xff" * 70_000, bytes(range(256)), bytes(range(256)) * 300, b"ab" * 5000]
)
def test_edges(content):
    packed = download.pack(content)
    assert download.unpack(packed, limit=len(content)) == content
    assert len(packed) <= alone(content) + download.HEADER.size


@pytest.mark.parametrize("spread", [2, 12, 45])
def test_within_a_hundredth_of_the_entropy(bell, spread):
    content = bell(300_000, spread)
    packed = download.pack(content)
    counts = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
    entropy = sum(count * math.log2(len(content) / count) for count in counts.tolist() if count) / 8
    assert form(packed) == 2
    assert entropy <= len(packed) <= 1.01 * entropy
    assert len(packed) < alone(content)


def test_a_models_file_is_smaller_than_with_zstandard(model_file):
    packed = download.pack(model_file)
    assert form(packed) == 2
    assert len(packed) < 0.95 * alone(model_file)
    assert download.unpack(packed, limit=len(model_file)) == model_file


def test_repetitions_are_zstandards():
    content = np.random.default_rng(1).integers(0, 256, 20_000, np.uint8).tobytes() * 3
    packed = download.pack(content)
    assert form(packed) == 1
    assert len(packed) <= alone(content) + 48


@pytest.mark.parametrize("far", [False, True])
def test_large_files_that_repeat(bell, far):
    noise = np.random.default_rng(1).integers(0, 256, 700_000, np.uint8).tobytes()
    content = noise + noise if far else b"".join(bytes([k % 251]) * 3 + b"tensor" for k in range(130_000))
    packed = download.pack(content)
    assert len(content) > download._SURELY
    assert len(packed) <= alone(content) + 48
    assert download.unpack(packed, limit=len(content)) == content


def test_large_weights_are_not_left_to_the_slow_level(bell, floats, monkeypatch):
    levels = []
    compress = zstd.compress
    monkeypatch.setattr(
        zstd, "compress", lambda data, level: levels.append((len(data), level)) or compress(data, level)
    )
    content = bell(500_000, 40) + floats(200_000)
    packed = download.pack(content)
    assert {level for size, level in levels if size == len(content)} == {zstd.QUICK, zstd.DEEP}
    assert len(packed) <= alone(content) + 48


def test_the_same_bytes_in_another_process(model_file, tmp_path, environment):
    (tmp_path / "file").write_bytes(model_file)
    script = (
        "import hashlib, pathlib, sys; from haversack.tools.codec import download;"
        "print(hashlib.sha256(download.pack(pathlib.Path(sys.argv[1]).read_bytes())).hexdigest())"
    )
    # Another number of threads, and NumPy without the widest instructions of this processor.
    limits = {"OMP_NUM_THREADS": "2", "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX"}
    if not _has_avx512():
        limits.pop("NPY_DISABLE_CPU_FEATURES")
    command = [sys.executable, "-c", script, str(tmp_path / "file")]
    done = subprocess.run(command, env={**environment, **limits}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(download.pack(model_file)).hexdigest()


def test_tensors_make_it_smaller(layers):
    content, tensors = layers
    blind, packed = download.pack(content), download.pack(content, tensors)
    assert (blind[4], packed[4]) == (1, 2)
    assert len(packed) < 0.98 * len(blind)
    assert download.unpack(packed, limit=len(content)) == content


wrong = st.lists(
    st.builds(
        lambda start, length, dtype, shape: Stored("t", start, length, dtype, shape),
        st.integers(-9, 50_000),
        st.integers(-9, 50_000),
        st.sampled_from(["int4", "int8", "uint8", "float16", "float32", "int32", "int64", "blocks"]),
        st.lists(st.integers(-1, 300), max_size=4).map(tuple),
    ),
    max_size=6,
)


@settings(max_examples=15, deadline=None)
@given(wrong, st.integers(0, 60))
def test_wrong_tensors_cost_bytes_and_nothing_else(layers, tensors, shift):
    content, right = layers
    moved = [replace(each, start=each.start + shift) for each in right[:4]]
    packed = download.pack(content, [*tensors, *moved])
    assert download.unpack(packed, limit=len(content)) == content
    assert len(packed) < 1.02 * len(download.pack(content))


def test_the_same_bytes_with_tensors_in_another_process(layers, tmp_path, environment):
    content, tensors = layers
    (tmp_path / "file").write_bytes(content)
    told = [(each.name, each.start, each.length, each.dtype, each.shape) for each in tensors]
    script = (
        "import hashlib, pathlib, sys; from haversack.tools.codec import download;"
        "from haversack.base.stored import Stored;"
        f"tensors = [Stored(*each) for each in {told}];"
        "print(hashlib.sha256(download.pack(pathlib.Path(sys.argv[1]).read_bytes(), tensors)).hexdigest())"
    )
    # In NumPy, where this process may have the loops in C; threads, so that sums have another order.
    limits = {"OMP_NUM_THREADS": "2", "HAVERSACK_NATIVE": "0"}
    command = [sys.executable, "-c", script, str(tmp_path / "file")]
    done = subprocess.run(command, env={**environment, **limits}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(download.pack(content, tensors)).hexdigest()


def test_memory_is_the_file_its_form_and_little_more(bell):
    rows = b"".join(bell(100_000, 4 + 20 * (index % 2), index) for index in range(40))
    inner = body.pack(rows, [Stored("w", 0, len(rows), "int8", (40, 100_000))])
    assert 0.6 < len(inner) / len(rows) < 0.8
    packed = download.HEADER.pack(b"HVDL", 2, 2, 0, len(rows), hashlib.sha256(rows).digest()) + inner
    tracemalloc.start()
    assert download.unpack(packed, limit=len(rows)) == rows
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # What is returned, what it is made in, a copy of the form, and what is decoded at once with its tables.
    assert most < 2 * len(rows) + 2 * len(packed) + 10_000_000


def _has_avx512():
    told = Path("/proc/cpuinfo")
    return told.exists() and " avx512f " in told.read_text()


def small_of_version_2():
    """Return a small container with a grid and a product, and its content."""
    page = (Path(__file__).parents[3] / "docs" / "spec" / "download.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```text\n([0-9a-f\n]+)```", page)[-2:]
    container, content = (bytes.fromhex(block.replace("\n", "")) for block in blocks)
    return container, content


def test_every_damage_of_version_2_is_refused():
    container, content = small_of_version_2()
    assert download.unpack(container, limit=100) == content
    changed = [
        container[:at] + bytes([container[at] ^ 1 << bit]) + container[at + 1 :]
        for at in range(len(container))
        for bit in range(8)
    ]
    for damaged in [*changed, *(container[:size] for size in range(len(container))), container + b"\x00\x00"]:
        try:
            assert download.unpack(damaged, limit=100) == content
        except Refused as error:
            assert error.where.startswith("byte ")


SMALL = bytes([3, 0, 1, 255, 0, 0, 1, 0, 255, 0, 2, 254]) * 9 + b"tensor" * 9


def small(kind):
    """Return a small container of one form, whichever ``pack`` would choose."""
    inner = body.pack(SMALL) if kind == 2 else zstd.compress(SMALL, zstd.BEST)
    digest = hashlib.sha256(SMALL).digest()
    return download.HEADER.pack(download.MAGIC, 1, kind, 0, len(SMALL), digest) + inner


@pytest.mark.parametrize("kind", [1, 2])
def test_every_flip_of_a_bit_is_refused(kind):
    container = small(kind)
    assert download.unpack(container, limit=1000) == SMALL
    for at in range(len(container)):
        for bit in range(8):
            flipped = bytearray(container)
            flipped[at] ^= 1 << bit
            try:
                assert download.unpack(bytes(flipped), limit=1000) == SMALL  # a frame may say a thing in two ways
            except Refused as error:
                assert error.where.startswith("byte ")
                assert error.exit_code == 7


@pytest.mark.parametrize("kind", [1, 2])
def test_every_truncation_and_every_trailing_byte_is_refused(kind):
    container = small(kind)
    for size in range(len(container)):
        with pytest.raises(Refused):
            download.unpack(container[:size], limit=1000)
    for more in (b"\x00", b"\x00\x00", container):
        with pytest.raises(Refused):
            download.unpack(container + more, limit=1000)


@settings(max_examples=300)
@given(st.sampled_from([1, 2]), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=12))
def test_any_damage_is_refused(kind, damage):
    container = bytearray(small(kind))
    for at, value in damage:
        container[at % len(container)] = value
    try:
        assert download.unpack(bytes(container), limit=10_000) == SMALL
    except Refused as error:
        assert error.cause


@given(st.binary(max_size=400), st.integers(1, 2), st.integers(0, 5000))
def test_any_bytes_behind_a_header_are_refused(rest, kind, size):
    head = download.HEADER.pack(download.MAGIC, 1, kind, 0, size, bytes(32))
    with pytest.raises(Refused):
        download.unpack(head + rest, limit=5000)


@pytest.mark.parametrize(
    "head, told",
    [
        (b"", "byte 0 (header): a header of 48 bytes ends after 0"),
        (b"HVDL" + bytes(43), "byte 0 (header): a header of 48 bytes ends after 47"),
        (download.HEADER.pack(b"PK\3\4", 1, 1, 0, 0, b""), "byte 0 (magic): no download form begins like this"),
        (
            download.HEADER.pack(b"HVDL", 3, 1, 0, 0, b""),
            "byte 4 (version): version 3 is unknown here, which reads 1 and 2",
        ),
        (download.HEADER.pack(b"HVDL", 1, 3, 0, 0, b""), "byte 5 (form): form 3 and reserved 0"),
        (download.HEADER.pack(b"HVDL", 1, 1, 9, 0, b""), "byte 5 (form): form 1 and reserved 9"),
        (download.HEADER.pack(b"HVDL", 1, 1, 0, 101, b""), "byte 8 (length): the file has 101 bytes, and 100 are"),
        (download.HEADER.pack(b"HVDL", 1, 1, 0, 0, b""), "byte 16 (sha256): the content has another sha256"),
        (download.HEADER.pack(b"HVDL", 1, 1, 0, 9, b""), "byte 48 (Zstandard frame): error when determining"),
    ],
)
def test_what_is_wrong_and_where(head, told):
    with pytest.raises(Refused) as caught:
        download.unpack(head, limit=100)
    assert told in str(caught.value)


def test_bombs_take_no_memory():
    zeros = bytes(50_000_000)
    frame, whole = zstd.compress(zeros, zstd.QUICK), download.pack(zeros)
    honest = download.HEADER.pack(b"HVDL", 1, 1, 0, len(zeros), hashlib.sha256(zeros).digest()) + frame
    lying = download.HEADER.pack(b"HVDL", 1, 1, 0, 1000, hashlib.sha256(zeros).digest()) + frame
    plan = body.SIZES.pack(0, 0, 1, 3, len(frame), 0) + frame
    planned = download.HEADER.pack(b"HVDL", 1, 2, 0, 1000, bytes(32)) + plan
    packed = body.SIZES.pack(0, 0, 1, 4, 13, len(frame)) + zstd.compress(bytes([0xE8, 0x07, 1, 1]), 3) + frame
    matched = download.HEADER.pack(b"HVDL", 1, 2, 0, 1000, bytes(32)) + packed
    assert len(whole) < 5000
    tracemalloc.start()
    for bomb in (honest, lying, planned, matched, whole):
        with pytest.raises(Refused):
            download.unpack(bomb, limit=1000)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_few_bytes_may_be_a_large_file_within_the_limit():
    zeros = bytes(3_000_000)
    packed = download.pack(zeros)
    assert len(packed) < 400
    assert download.unpack(packed, limit=len(zeros)) == zeros
    with pytest.raises(Refused, match="2999999 are allowed"):
        download.unpack(packed, limit=len(zeros) - 1)
