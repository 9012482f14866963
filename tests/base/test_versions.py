"""Versions: what is within limits, and what is installed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.versions import fits, installed, lower, release


@pytest.mark.parametrize(
    "found, wanted, holds",
    [
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.13", "==2.13.0", True),
        ("2.13.1", "==2.13.0", False),
        ("1.23.2", ">=1.23", True),
        ("1.9", ">=1.23", False),
        ("2.0", ">=1.23,<2", False),
        ("1.99", ">=1.23,<2", True),
        ("1.9.0.post1", ">=1.9", True),
        ("1.4.9", "~=1.4.2", True),
        ("1.5", "~=1.4.2", False),
        ("3", "!=3.0", False),
        ("3.1", ">3.1", False),
        ("3.1", "<=3.1", True),
        ("anything", "", True),
    ],
)
def test_versions(found, wanted, holds):
    assert fits(found, wanted) is holds


@given(st.lists(st.integers(0, 99), min_size=1, max_size=4), st.lists(st.integers(0, 99), min_size=1, max_size=4))
def test_at_least_and_below_part_all_versions(one, other):
    left, right = (".".join(map(str, numbers)) for numbers in (one, other))
    assert fits(left, f">={right}") != fits(left, f"<{right}")
    assert fits(left, f"=={right}") == (release(left) == release(right))


def test_what_is_installed_is_told_and_what_is_not_is_empty(tmp_path, monkeypatch):
    assert installed("numpy")[:1].isdigit()
    assert installed("no-such-distribution-of-ours") == ""
    folder = tmp_path / "no_such_distribution_of_ours-7.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: no-such-distribution-of-ours\nVersion: 7.2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed("no-such-distribution-of-ours") == "7.2"


@pytest.mark.parametrize(
    "one, other, holds",
    [
        ("0.9.0", "1.0.0", True),
        ("1.9.0", "1.10.0", True),
        ("2.0.0-rc.1", "2.0.0", True),
        ("2.0.0", "2.0.0-rc.1", False),
        ("2.0.0-rc.1", "1.0.0", False),
        ("1.0.0", "1.0.0", False),
        ("1.0.0+b", "1.0.0+a", False),
    ],
)
def test_which_is_lower(one, other, holds):
    assert lower(one, other) is holds
