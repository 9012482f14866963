"""HVD1: the new file comes back from any pair and any hints, and nothing else comes from a damaged delta."""

from __future__ import annotations

import hashlib
import struct
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from pairs import TENSORS, changed, drawn, filed

from haversack.base.errors import Refused
from haversack.base.stored import WIDTHS, Stored
from haversack.tools.codec import bsdiff, delta, delta_make, delta_plan, zstd
from haversack.tools.codec.delta_plan import (
    COPIED,
    FIRST_KIND,
    KEPT,
    MOST_SYMBOLS,
    PRODUCT,
    WRITTEN,
    Block,
    Segment,
)

LIMIT = 1 << 24


def made(seed=0, *, share=0.2, **told):
    """Return (old, new, delta) of a small model whose words moved."""
    arrays = drawn(seed)
    old, before = filed(arrays)
    new, after = filed(changed(arrays, seed + 1, share=share), b"another head", **told)
    return old, new, delta_make.make(old, new, before, after)


@pytest.fixture(scope="module")
def small():
    return made()


def planned(old, new, patch):
    told = delta.header(patch)
    content = zstd.decompress(patch[delta.HEADER.size :][: told.plan[1]], told.plan[0])
    return delta_plan.read(content, len(old), len(new))


def ways(old, new, patch):
    return [one.how for block in planned(old, new, patch).blocks for one in block.segments]


def test_a_model_comes_back_and_its_words_are_residuals(small):
    old, new, patch = small
    assert delta.apply(old, patch, limit=len(new)) == new
    kinds = set(ways(old, new, patch))
    assert {WRITTEN, *range(FIRST_KIND, FIRST_KIND + 8)} <= kinds | {FIRST_KIND}
    assert len(patch) < 0.5 * len(zstd.compress(new, 19))
    assert delta.header(patch).codec == "hvd1"


def test_the_same_files_give_the_same_delta(small):
    assert made() == small


def test_hints_make_it_smaller_than_bsdiff(small):
    old, new, patch = small
    assert len(patch) < 0.75 * len(bsdiff.make(old, new))
    assert len(patch) < len(delta_make.make(old, new))


def test_what_moved_or_bears_another_name_is_found():
    arrays = drawn()
    old, before = filed(arrays)
    order = [name for name, _, _ in reversed(TENSORS)]
    new, after = filed(changed(arrays), order=order, named=lambda name: f"renamed {name}")
    found = delta_make.make(old, new, before, after)
    assert delta.apply(old, found, limit=LIMIT) == new
    assert len(found) < 1.1 * len(made()[2])


def test_equal_files_cost_a_header():
    old = bytes(range(256)) * 4000
    found = delta_make.make(old, old)
    assert len(found) < delta.HEADER.size + 40
    assert ways(old, old, found) == [COPIED]
    assert delta.apply(old, found, limit=LIMIT) == old


@pytest.mark.parametrize(("old", "new"), [(b"", b""), (b"", b"new"), (b"old", b""), (b"x", b"y"), (b"ab" * 9000, b"b")])
def test_empty_and_tiny_files(old, new):
    assert delta.apply(old, delta_make.make(old, new), limit=LIMIT) == new


PIECES = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 700)), max_size=6)
HINTS = st.lists(
    st.builds(
        Stored,
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 1500),
        st.integers(0, 900),
        st.sampled_from(sorted(WIDTHS)),
        st.lists(st.integers(0, 60), max_size=3).map(tuple),
    ),
    max_size=5,
)


def woven(source, pieces, noise):
    """Return bytes made of pieces of others, with noise between."""
    return b"".join(source[start : start + length] + noise[: length // 9] for start, length in pieces)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60), st.integers(1, 40), PIECES, st.binary(max_size=80), HINTS, HINTS)
def test_any_pair_comes_back_whatever_the_hints(seed, times, pieces, noise, before, after):
    old = seed * times
    new = woven(old, pieces, noise)
    assert delta.apply(old, delta_make.make(old, new, before, after), limit=LIMIT) == new


@settings(max_examples=40)
@given(st.integers(0, 2**32), HINTS, HINTS, st.floats(0, 1))
def test_words_come_back_whatever_the_hints(seed, before, after, share):
    random = np.random.default_rng(seed)
    old = random.integers(0, 256, 1500, np.uint8)
    new = np.where(random.random(1500) < share, old, random.integers(0, 256, 1500, np.uint8)).astype(np.uint8)
    found = delta_make.make(old.tobytes(), new.tobytes(), before, after)
    assert delta.apply(old.tobytes(), found, limit=LIMIT) == new.tobytes()


def test_every_flipped_byte_is_refused_or_harmless():
    arrays = {name: array[:24] for name, array in drawn().items() if name in {"first", "scale", "bias", "fours"}}
    shapes = {"first": (6, 4)}
    old, before = filed(arrays)
    new, after = filed(changed(arrays))
    before = [Stored(o.name, o.start, o.length, o.dtype, shapes.get(o.name, ())) for o in before]
    after = [Stored(o.name, o.start, o.length, o.dtype, shapes.get(o.name, ())) for o in after]
    patch = delta_make.make(old, new, before, after)
    for at in range(len(patch)):
        for flip in (1, 0x80, 0xFF):
            damaged = patch[:at] + bytes([patch[at] ^ flip]) + patch[at + 1 :]
            try:
                assert delta.apply(old, damaged, limit=1 << 20) == new
            except Refused as error:
                assert error.where


def test_every_cut_and_every_addition_is_refused(small):
    old, _, patch = small
    for at in [*range(120), *range(120, len(patch), 37), len(patch) - 1]:
        with pytest.raises(Refused):
            delta.apply(old, patch[:at], limit=LIMIT)
    with pytest.raises(Refused, match="left over"):
        delta.apply(old, patch + b"x", limit=LIMIT)


def test_another_old_file_is_refused_with_what_it_was_made_for(small):
    old, _, patch = small
    for other in (old[:-1], old[:-1] + b"?", b""):
        with pytest.raises(Refused, match=f"made for a file of {len(old)} bytes with sha256 [0-9a-f]{{64}}"):
            delta.apply(other, patch, limit=LIMIT)


@pytest.mark.parametrize("at", [88, 92, 96, 100])
def test_sizes_that_say_too_much_are_refused_before_anything_is_allocated(small, at):
    old, _, patch = small
    bomb = patch[:at] + struct.pack("<I", 0xFFFFFFF0) + patch[at + 4 :]
    tracemalloc.start()
    with pytest.raises(Refused):
        delta.apply(old, bomb, limit=LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_new_file_over_the_limit_is_refused(small):
    old, new, patch = small
    with pytest.raises(Refused, match="are allowed"):
        delta.apply(old, patch, limit=len(new) - 1)


def test_a_frame_that_unpacks_to_more_than_is_stated_is_refused(small):
    old, new, patch = small
    told = delta.header(patch)
    bomb = zstd.compress(bytes(64 << 20), 19)
    head = delta.Header(len(old), len(new), told.old_sha256, told.new_sha256, (100, len(bomb)), (0, 0)).packed()
    tracemalloc.start()
    with pytest.raises(Refused, match="100 bytes belong"):
        delta.apply(old, head + bomb, limit=LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_much_is_made_of_little_only_within_the_limit():
    """A plan that copies one byte of the old file without end is what a bomb of this format would be."""
    old = bytes(1000)
    segments = tuple(Segment(COPIED, 1000, 0) for _ in range(2000))
    plan = delta_plan.write(np.zeros((0, 256), np.uint8), [Block(segments)])
    packed = zstd.compress(plan, 19)
    digest = hashlib.sha256(old).digest()
    head = delta.Header(1000, 2_000_000, digest, bytes(32), (len(plan), len(packed)), (0, 0))
    with pytest.raises(Refused, match="are allowed"):
        delta.apply(old, head.packed() + packed, limit=1_999_999)
    with pytest.raises(Refused, match="another sha256"):
        delta.apply(old, head.packed() + packed, limit=2_000_000)


def test_memory_is_that_of_a_block():
    random = np.random.default_rng(0)
    old = np.clip(np.rint(random.normal(0, 20, 6_000_000)), -127, 127).astype(np.int8)
    moves = random.random(old.size) < 0.01
    new = (old + np.where(moves, random.integers(-1, 2, old.size), 0)).astype(np.int8)
    hint = [Stored("w", 0, old.size, "int8", (6000, 1000))]
    patch = delta_make.make(old.tobytes(), new.tobytes(), hint, hint)
    before, peaks = memoryview(old.tobytes()), []
    for _ in range(3):  # a thread that another test has left may take memory meanwhile: it is traced as well
        found = []
        tracemalloc.start()
        delta.apply_to(before, patch, lambda piece, found=found: found.append(len(piece)), limit=1 << 23)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sum(found) == old.size
    assert min(peaks) < 16e6
    assert max(block_symbols(block) for block in planned(old.tobytes(), new.tobytes(), patch).blocks) <= MOST_SYMBOLS


def block_symbols(block):
    return sum(one.words for one in block.segments)


def test_silent_rows_cost_nothing():
    """What did not change in rows of a tensor is not coded at all."""
    random = np.random.default_rng(0)
    old = random.integers(-100, 100, (1000, 500)).astype(np.int8)
    new = old.copy()
    new[::100] += random.integers(-3, 4, (10, 500)).astype(np.int8)
    hint = [Stored("w", 0, old.size, "int8", old.shape)]
    patch = delta_make.make(old.tobytes(), new.tobytes(), hint, hint)
    assert delta.apply(old.tobytes(), patch, limit=LIMIT) == new.tobytes()
    assert len(patch) < delta.HEADER.size + 10 * 500 * 2.81 / 8 * 1.1 + 250


def test_a_few_words_here_and_there_cost_their_places():
    """As after a calibration with other pictures: nine words of a tensor, each alone, and no class of any row."""
    random = np.random.default_rng(0)
    old = random.integers(-100, 100, (1000, 500)).astype(np.int8)
    new = old.copy()
    new.reshape(-1)[np.arange(9) * 50_000 + 77] += 1
    hint = [Stored("w", 0, old.size, "int8", old.shape)]
    patch = delta_make.make(old.tobytes(), new.tobytes(), hint, hint)
    assert delta.apply(old.tobytes(), patch, limit=LIMIT) == new.tobytes()
    assert delta.header(patch).classes == (0, 0)
    assert len(patch) < delta.HEADER.size + 9 * 15
    assert len(patch) < len(bsdiff.make(old.tobytes(), new.tobytes()))


def test_changes_all_over_a_file_leave_room_in_the_plan():
    """Every seventieth byte changed: cut at each, the plan of a file of fifty million would be more than one may be."""
    old = np.random.default_rng(0).integers(0, 256, 8_000_000, np.uint8)
    new = old.copy()
    new[::70] += 1
    patch = delta_make.make(old.tobytes(), new.tobytes())
    assert delta.header(patch).plan[0] < delta_plan.MOST_PLAN / 16
    assert delta.apply(old.tobytes(), patch, limit=len(new)) == new.tobytes()


def moved(old, steps):
    hint = [Stored("w", 0, old.size, "int8", old.shape)]
    new = (old + steps).astype(np.int8)
    patch = delta_make.make(old.tobytes(), new.tobytes(), hint, hint)
    assert delta.apply(old.tobytes(), patch, limit=LIMIT) == new.tobytes()
    return len(patch)


def test_rows_that_lean_and_columns_that_are_loud_cost_less_than_noise():
    random = np.random.default_rng(0)
    old = random.integers(-90, 90, (300, 400)).astype(np.int8)
    steps = random.integers(-1, 2, old.shape)
    noise = moved(old, random.permuted(np.abs(steps), axis=1) * random.choice([-1, 1], old.shape))
    leaning = moved(old, np.abs(steps) * random.choice([-1, 1], (300, 1)))
    loud = moved(old, np.where(np.arange(400) % 2 > 0, random.integers(-1, 2, old.shape), 0))
    assert leaning < 0.75 * noise
    assert loud < 0.6 * noise


def test_rows_that_are_longer_as_a_whole_cost_less_than_noise():
    """A normalisation folded in anew moves a row by parts of a step: likelier the larger they are, to one side."""
    random = np.random.default_rng(0)
    old = np.rint(random.normal(0, 40, (300, 400))).clip(-110, 110).astype(np.int8)
    exact = old + random.uniform(-0.5, 0.5, old.shape)
    steps = np.rint(exact * random.uniform(0.99, 1.01, (300, 1))).astype(np.int64) - old
    tilted, noise = moved(old, steps), moved(old, random.permuted(steps, axis=1))
    assert tilted < 0.75 * noise


@pytest.mark.parametrize("ratio", [0.6, 0.9, 1.15, 1.8])
def test_rows_with_other_scales_take_what_rounding_leaves(ratio):
    """The same float weights packed with other steps: codes are what they were times the ratio of steps."""
    random = np.random.default_rng(0)
    old = np.rint(random.normal(0, 25, (200, 400))).clip(-127, 127).astype(np.int8)
    exact = old + random.uniform(-0.5, 0.5, old.shape)
    new = np.rint(exact * ratio * random.uniform(0.97, 1.03, (200, 1))).clip(-127, 127)
    assert moved(old, new.astype(np.int64) - old) < 0.35 * old.size


def test_biases_of_a_scale_that_changed_cost_next_to_nothing():
    random = np.random.default_rng(0)
    old = random.integers(-100_000, 100_000, 4000).astype("<i4")
    new = np.rint(old * 0.973).astype("<i4")
    hint = [Stored("b", 0, old.nbytes, "int32", (4000,))]
    patch = delta_make.make(old.tobytes(), new.tobytes(), hint, hint)
    assert delta.apply(old.tobytes(), patch, limit=LIMIT) == new.tobytes()
    assert len(patch) < 300
    first = planned(old.tobytes(), new.tobytes(), patch).blocks[0].segments[0]
    assert first.factor == pytest.approx(0.973 * 2**28, rel=1e-4)


def test_a_tensor_that_has_nothing_of_the_old_one_is_written_out():
    random = np.random.default_rng(0)
    old, new = (random.integers(0, 256, 5000, np.uint8).tobytes() for _ in range(2))
    hint = [Stored("w", 0, 5000, "uint8", (50, 100))]
    patch = delta_make.make(old, new, hint, hint)
    assert delta.apply(old, patch, limit=LIMIT) == new
    assert len(patch) < 5000 + 200


def test_a_patch_of_bsdiff_is_a_form(small):
    old, new, _ = small
    patch = delta.wrapped(old, new, bsdiff.make(old, new))
    assert delta.header(patch).codec == "bsdiff"
    assert delta.apply(old, patch, limit=len(new)) == new
    for at in range(0, len(patch), 7):
        damaged = patch[:at] + bytes([patch[at] ^ 0x10]) + patch[at + 1 :]
        try:
            assert delta.apply(old, damaged, limit=1 << 20) == new
        except Refused as error:
            assert error.cause


@pytest.mark.parametrize(
    ("at", "value", "match"),
    [(0, b"HVD2", "begins"), (4, b"\2\0", "version 2"), (6, b"\2\0", "form 2"), (6, b"\1\0", "form 1")],
)
def test_another_magic_version_or_form_is_refused(small, at, value, match):
    old, _, patch = small
    with pytest.raises(Refused, match=match):
        delta.apply(old, patch[:at] + value + patch[at + len(value) :], limit=LIMIT)


def scales(seed=0):
    """Return scales before and after training, and where they are: those of biases follow those of weights."""
    random = np.random.default_rng(seed)
    before = random.uniform(0.001, 0.1, 2000).astype(np.float32)
    after = (before * random.uniform(1, 1.3, 2000)).astype(np.float32)
    found = [b"".join((one, one * np.float32(0.0173), one * np.float32(-91.0))) for one in (before, after)]
    names = ("weights", "biases", "others")
    return *found, [Stored(name, 8000 * at, 8000, "float32", (2000,)) for at, name in enumerate(names)]


def test_scales_that_follow_others_cost_a_last_bit():
    old, new, hint = scales()
    patch = delta_make.make(old, new, hint, hint)
    assert delta.apply(old, patch, limit=LIMIT) == new
    segments = planned(old, new, patch).blocks[0].segments
    assert [one.how for one in segments] == [FIRST_KIND + 6, PRODUCT, FIRST_KIND + 6]
    assert segments[1].factor * 2.0 ** (segments[1].power - 28) == pytest.approx(0.0173)
    alone = delta_make.make(old[:8000], new[:8000], hint[:1], hint[:1])
    assert len(delta_make.make(old[:16000], new[:16000], hint[:2], hint[:2])) - len(alone) < 2000 * 1.7 / 8 + 60


def test_only_so_many_floats_are_kept():
    """A tensor behind the first mebibyte of them is no source, and what has no source is refused."""
    kept = delta.Kept()
    for _ in range(5):
        kept.add(np.zeros(300_000, np.uint8))
    assert (len(kept.data), kept.size) == (3, 900_000)
    kept.add(np.zeros(KEPT - 900_000, np.uint8))
    assert kept.size == KEPT
    for back, length in ((0, 300_000), (5, 300_000), (1, 300_000)):
        with pytest.raises(ValueError, match="a product of"):
            kept.back(back, length)
