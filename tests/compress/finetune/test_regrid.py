"""Grids of a release on new data: what leaves them, and which are set anew."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine, Encodings
from haversack.base.plan import Step
from haversack.compress.finetune import regrid
from haversack.profile.ranges import ranges
from haversack.targets.contract import SHELF as TARGETS

MINMAX = Step("minmax")


@pytest.fixture(scope="module")
def demands(released):
    return TARGETS.build("onnxruntime").demands(released.model)


def seen(released, shift, count=64):
    images = np.random.default_rng(5).normal(0, 0.3, (count, 1, 6, 6)).astype(np.float32) + np.float32(shift)
    return ranges(released.model, [(images,)])


def test_data_within_the_ranges_leave_none(released):
    found = regrid.outside(released.encodings, seen(released, 0.2, 8))
    assert found.get(f"{released.model.graph.inputs[0]}:out", 0.0) < 0.01
    assert regrid.told({}, ()) is None


def test_the_fraction_outside_is_that_of_the_values(released):
    found = seen(released, 3.0)
    key = f"{released.model.graph.inputs[0]}:out"
    encoding = released.encodings.affine(key)
    images = np.random.default_rng(5).normal(0, 0.3, (64, 1, 6, 6)).astype(np.float32) + np.float32(3.0)
    high = float(encoding.scale) * (encoding.high - int(encoding.zero_point) + 0.5)
    assert regrid.outside(released.encodings, found)[key] == pytest.approx(float((images > high).mean()), abs=0.01)


def test_grids_that_do_not_hold_are_set_anew_and_then_hold(released, demands):
    found, model = seen(released, 3.0), released.model
    clipped = regrid.outside(released.encodings, found)
    wrong = [key for key, share in clipped.items() if share > regrid.MOST]
    assert wrong
    encodings, anew = regrid.regridded(model.graph, released.encodings, found, MINMAX, demands, wrong)
    assert set(wrong) <= anew
    after = regrid.outside(encodings, found)
    assert all(after.get(key, 0.0) < 0.005 for key in wrong)
    for key, value in released.encodings.tensors.items():
        same = encodings.tensors[key] is value
        assert same is (key not in anew)
    told = regrid.told(clipped, anew)
    assert told.kind == "ranges-exceeded"
    assert f"{len(anew)} were calibrated anew" in told.text


def test_where_all_hold_nothing_changes(released, demands):
    found = seen(released, 3.0)
    encodings, anew = regrid.regridded(released.model.graph, released.encodings, found, MINMAX, demands, ())
    assert encodings is released.encodings
    assert not anew
    assert "all were kept" in regrid.told({"a:relu#0:out": 0.01}, ()).text


def test_what_is_bound_by_a_ratio_goes_along(released, demands):
    from dataclasses import replace

    from haversack.base.constraints import Ratio

    found, graph = seen(released, 3.0), released.model.graph
    held = [key for key, one in released.encodings.tensors.items() if isinstance(one, Affine) and key.endswith(":out")]
    first, last = held[0], held[-1]
    bound = replace(demands, ratios=(*demands.ratios, Ratio(first, last, 501)))
    _, alone = regrid.regridded(graph, released.encodings, found, MINMAX, demands, [first])
    _, both = regrid.regridded(graph, released.encodings, found, MINMAX, bound, [first])
    assert last not in alone
    assert {first, last} <= both


def test_weights_and_what_was_not_seen_do_not_count():
    one = Affine(8, signed=True, axis=None, scale=np.float32(0.1), zero_point=np.int32(0))
    weight, out = "a:linear#0:weight", "a:linear#0:out"
    assert regrid.outside(Encodings({weight: one, out: one}, {weight: np.ones(3, np.int32)}), {}) == {}
