"""What holds for every maker of palettes on the shelf."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haversack.base.encodings import Codebook, Encodings
from haversack.base.errors import JobError, UsageError
from haversack.compress.palettize.contract import SHELF, Palettizer
from haversack.tools.numerics import palette

PARTS = SHELF.names()
few = settings(max_examples=30)
weights = hnp.arrays(
    np.float32,
    st.tuples(st.sampled_from([2, 4, 6]), st.integers(1, 9)),
    elements=st.floats(-100, 100, width=32, allow_subnormal=False),
)


def test_the_shelf_has_what_plans_name():
    assert set(PARTS) == {"kmeans", "log"}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_a_frozen_record_with_defaults_and_a_catalogue_line(name):
    part = SHELF.build(name)
    assert isinstance(part, Palettizer)
    assert part == SHELF.build(name, {field.name: getattr(part, field.name) for field in fields(part)})
    assert SHELF.catalogue()[name].endswith(".")
    with pytest.raises((FrozenInstanceError, AttributeError)):
        part.other = 1
    with pytest.raises(UsageError):
        SHELF.build(name, {"no_such_setting": 1})


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("setting", [{"bits": 0}, {"bits": 9}, {"bits": "4"}, {"group": -1}])
def test_settings_outside_their_range_are_refused(name, setting):
    with pytest.raises(UsageError):
        SHELF.build(name, setting)


@pytest.mark.parametrize("name", PARTS)
@few
@given(weights, st.integers(2, 8), st.sampled_from([0, 1, 2]), st.booleans(), st.integers(0, 99))
def test_indices_fit_and_lead_to_the_nearest_entry(name, weight, bits, group, weighted, seed):
    importance = np.random.default_rng(seed).exponential(1.0, weight.shape) if weighted else None
    book, indices = SHELF.build(name, {"bits": bits, "group": group}).palette(weight, importance)
    Encodings({"a:linear#0:weight": book}, {"a:linear#0:weight": indices})  # it refuses what does not fit
    assert (book.bits, book.group) == (bits, group)
    assert np.array_equal(book.entries, book.entries.astype(np.float16))
    palettes = np.repeat(book.entries, group, axis=0) if group else np.tile(book.entries, (len(weight), 1))
    least = np.abs(palettes[:, None, :] - weight[:, :, None].astype(np.float64)).min(-1)
    found = np.abs(palette.values(indices, book) - weight.astype(np.float64))
    assert (found <= least + 1e-6 * (1 + np.abs(weight))).all()


@pytest.mark.parametrize("name", PARTS)
@few
@given(weights, st.integers(0, 99))
def test_the_same_weight_gives_the_same_palette(name, weight, seed):
    importance = np.random.default_rng(seed).exponential(1.0, weight.shape)
    one, two = (SHELF.build(name).palette(weight, importance) for _ in range(2))
    assert one[0].entries.tobytes() == two[0].entries.tobytes()
    assert np.array_equal(one[1], two[1])


@pytest.mark.parametrize("name", PARTS)
def test_importance_counts_only_where_it_is_asked_for(name):
    rng = np.random.default_rng(0)
    weight, importance = rng.normal(0, 1, (8, 32)).astype(np.float32), np.exp(rng.normal(0, 3, (8, 32)))
    found = {
        (weighted, given): SHELF.build(name, {"bits": 3, "weighted": weighted}).palette(weight, counts)[0].entries
        for weighted in (True, False)
        for given, counts in (("counts", importance), ("none", None))
    }
    assert not np.array_equal(found[True, "counts"], found[True, "none"])
    assert np.array_equal(found[False, "counts"], found[False, "none"])
    assert np.array_equal(found[True, "none"], found[False, "none"])


@pytest.mark.parametrize("name", PARTS)
def test_what_is_not_finite_or_does_not_divide_is_refused(name):
    with pytest.raises(JobError, match="NaN or an infinity"):
        SHELF.build(name).palette(np.array([[1.0, np.nan]], np.float32))
    with pytest.raises(UsageError, match="groups of 2 rows do not divide the 3 rows"):
        SHELF.build(name, {"group": 2}).palette(np.ones((3, 2), np.float32))


def test_one_bit_is_too_few_for_signs_and_zero():
    assert SHELF.build("kmeans", {"bits": 1}).palette(np.array([[1.0, -1.0]], np.float32))[0].bits == 1
    with pytest.raises(UsageError, match=r"bits must be in \[2, 8\], not 1"):
        SHELF.build("log", {"bits": 1})


@dataclass(frozen=True)
class _Careless(Palettizer):
    """A planted fault: it gives every weight the first entry, and makes palettes of other numbers."""

    entries: tuple[float, ...] = (0.0, 1.0)
    bits: int = 1

    def _palette(self, weight, importance):
        return Codebook(1, np.array(self.entries, np.float32)), np.zeros(weight.shape, np.int32)


@pytest.mark.parametrize(
    "part, cause",
    [
        (_Careless(), "gives 2 weights what is not nearest"),
        (_Careless(entries=(1.0, 0.0)), "do not ascend"),
        (_Careless(entries=(0.0, 0.1)), "float16"),
        (_Careless(bits=2), "another palette"),
    ],
)
def test_the_contract_catches_a_bad_part(part, cause):
    with pytest.raises(AssertionError, match=cause):
        part.palette(np.array([[1.0, 0.9, 0.1]], np.float32))
