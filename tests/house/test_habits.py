"""House rule: no print, no hiding except, nothing unfinished."""

from __future__ import annotations

from pathlib import Path

from rules import habits


def test_print(root: Path) -> None:
    assert habits.check_print(root) == []


def test_broad_except(root: Path) -> None:
    assert habits.check_broad_except(root) == []


def test_unfinished(root: Path) -> None:
    assert habits.check_unfinished(root) == []
