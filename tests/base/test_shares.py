"""Small answers of the records: shares of time, what cannot be united, near names, and whether a file ran here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.candidate import Candidate
from haversack.base.constraints import Constraints
from haversack.base.finding import KINDS, Finding
from haversack.base.plan import LayerPlan, Plan, Step
from haversack.base.profile import Profile
from haversack.base.shelf import nearest

SECONDS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1e3), min_size=1)


@given(st.dictionaries(st.sampled_from(["litert", "ncnn"]), SECONDS, min_size=1))
def test_shares_of_a_target_make_a_whole_and_no_other_target_counts(seconds):
    profile = Profile(seconds)
    for target, times in seconds.items():
        shares = {key: profile.share(target, key) for key in times}
        assert all(0 <= share <= 1 for share in shares.values())
        assert sum(shares.values()) == pytest.approx(1.0 if any(times.values()) else 0.0)
        assert shares == {key: Profile({target: times}).share(target, key) for key in times}
        slowest = max(times, key=times.__getitem__)
        assert shares[slowest] == max(shares.values())


@pytest.mark.parametrize("target, key, share", [("a", "x", 0.75), ("a", "y", 0.25), ("a", "z", 0.0), ("b", "x", 0.0)])
def test_what_was_not_seen_has_no_share(target, key, share):
    assert Profile({"a": {"x": 3.0, "y": 1.0}}).share(target, key) == share


@given(st.lists(st.booleans(), min_size=1, max_size=5), st.lists(st.booleans(), min_size=1, max_size=5))
def test_targets_that_are_symmetric_and_those_that_are_not_have_no_union(kinds, halves):
    several = [Constraints(symmetric=kind) for kind in kinds]
    if len(set(kinds)) > 1:
        with pytest.raises(ValueError, match="symmetric activations only"):
            Constraints.union(several)
    else:
        assert Constraints.union(several).symmetric is kinds[0]
    assert Constraints.union(Constraints(half_scales=half) for half in halves).half_scales is any(halves)


WIDTHS = st.dictionaries(st.sampled_from("abcd"), st.frozensets(st.integers(1, 7)))


@given(st.lists(WIDTHS, min_size=1, max_size=4))
def test_a_layer_has_the_widths_that_all_targets_give_it(several):
    found = Constraints.union(Constraints(widths=widths) for widths in several).widths
    for layer in "abcd":
        shared = {bits for bits in range(1, 8) if all(bits in widths.get(layer, ()) for widths in several)}
        assert found.get(layer, frozenset()) == shared
    assert all(found.values())


@pytest.mark.parametrize(
    "name, found",
    [("litret", "; did you mean litert?"), ("onnx", "; did you mean onnxruntime?"), ("zzz", ""), ("", "")],
)
def test_a_misspelt_name_has_a_near_one_or_none(name, found):
    assert nearest(name, iter(["litert", "onnxruntime"])) == found
    assert nearest(name, []) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_file_that_is_said_to_be_exported_did_not_run(kind):
    plan = Plan("coreml", {"a:conv2d#0": LayerPlan("palette", weights=Step("kmeans", {"bits": 4}))})
    candidate = Candidate(plan, None, None, None, None, None, None, (Finding(kind, "text"), Finding("noisy", "text")))
    assert candidate.exported is (kind == "export-only")
