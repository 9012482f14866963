"""Requirements and versions: what is written is read, what is there is held against it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import MissingExtra
from haversack.flow import requirements
from haversack.flow.requirements import Package, commands, demand, fits, packages, parsed, release


@pytest.mark.parametrize(
    "line, name, extra, wanted",
    [
        ("numpy>=2.1", "numpy", "core", ">=2.1"),
        ('torch==2.13.0; extra == "pack"', "torch", "pack", "==2.13.0"),
        ("onnx-ir>=1.1,<2 ; extra == 'pack'", "onnx-ir", "pack", ">=1.1,<2"),
        ('pillow; extra == "dev"', "pillow", "dev", ""),
        ('a.b_c>=1; python_version >= "3.11" and extra == "lm"', "a.b_c", "lm", ">=1"),
    ],
)
def test_a_requirement(line, name, extra, wanted):
    found = parsed(line)
    assert (found.name, found.extra, found.wanted) == (name, extra, wanted)


def test_what_is_no_requirement():
    with pytest.raises(ValueError, match="not a requirement"):
        parsed("==3")


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


def test_every_extra_of_this_very_project_is_known():
    found = packages()
    assert {"core", "pack", "dev"} <= {one.extra for one in found}
    assert found[0].extra == "core"
    assert {"torch", "onnxruntime"} <= {one.name for one in found if one.extra == "pack"}
    assert all(one.state == "installed" for one in found if one.extra in {"core", "pack"})


def test_states_and_commands():
    ones = [Package("a", "core", ">=1", ""), Package("b", "pack", ">=2", "1"), Package("c", "lm", "", "1")]
    assert [one.state for one in ones] == ["missing", "wrong version", "installed"]
    assert commands(ones) == {"core": "pip install 'haversack'", "pack": "pip install 'haversack[pack]'"}


def test_a_missing_extra_names_all_that_is_missing(monkeypatch):
    there = requirements._installed
    monkeypatch.setattr(requirements, "_installed", lambda name: "" if name in {"onnx", "scipy"} else there(name))
    with pytest.raises(MissingExtra) as caught:
        demand("pack", purpose="packing")
    assert "packing needs the package onnx, scipy" in str(caught.value)
    assert "pip install 'haversack[pack]'" in str(caught.value)
    assert caught.value.exit_code == 6
    demand("core", purpose="anything")


def test_without_installation_and_source_nothing_is_known(tmp_path):
    assert requirements._of_tree(tmp_path / "pyproject.toml") == []
