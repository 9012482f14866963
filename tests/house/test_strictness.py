"""House rule: strict tools, enough tests, and each asserts."""

from __future__ import annotations

from pathlib import Path

from rules import strictness


def test_settings(root: Path) -> None:
    assert strictness.check_settings(root) == []


def test_test_lines(root: Path) -> None:
    assert strictness.check_test_lines(root) == []


def test_tests_assert(root: Path) -> None:
    assert strictness.check_tests_assert(root) == []
