"""House rule: small files, small functions, names with an idea."""

from __future__ import annotations

from pathlib import Path

from rules import sizes


def test_file_lines(root: Path) -> None:
    assert sizes.check_file_lines(root) == []


def test_function_lines(root: Path) -> None:
    assert sizes.check_function_lines(root) == []


def test_file_names(root: Path) -> None:
    assert sizes.check_file_names(root) == []
