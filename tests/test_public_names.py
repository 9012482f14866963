"""The package's front door: every public name is there, loaded only when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import haversack


def test_every_public_name_is_loaded_from_its_home() -> None:
    for name in haversack.__all__:
        value = getattr(haversack, name)
        assert value.__name__ == name
        assert value.__module__.startswith("haversack.")


def test_homes_and_public_names_are_the_same() -> None:
    assert sorted(name for names in haversack._HOMES.values() for name in names) == sorted(haversack.__all__)


def test_a_name_is_loaded_once() -> None:
    first = haversack.Budget
    assert vars(haversack)["Budget"] is first


def test_an_unknown_name_is_told_with_those_that_exist() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Bugdet' \(it has .*Budget"):
        haversack.Bugdet  # noqa: B018


def test_names_are_listed() -> None:
    assert set(haversack.__all__) < set(dir(haversack))


def test_importing_the_package_loads_nothing_else() -> None:
    script = (
        "import sys, haversack; print(sorted(name for name in sys.modules if name.startswith('haversack.')))\n"
        "haversack.Budget; print('haversack.base.budget' in sys.modules, 'torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["[]", "True False"]
