"""House rule: public functions are typed and documented."""

from __future__ import annotations

from pathlib import Path

from rules import documented


def test_documented(root: Path) -> None:
    assert documented.check_documented(root) == []


def test_typed(root: Path) -> None:
    assert documented.check_typed(root) == []


def test_arrays_described(root: Path) -> None:
    assert documented.check_arrays_described(root) == []
