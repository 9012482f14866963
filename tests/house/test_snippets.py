"""House rule: every snippet of README and docs runs."""

from __future__ import annotations

from pathlib import Path

from rules import snippets


def test_python_snippets(root: Path) -> None:
    assert snippets.check_python_snippets(root) == []


def test_command_snippets(root: Path) -> None:
    assert snippets.check_command_snippets(root) == []


def test_fences(root: Path) -> None:
    assert snippets.check_fences(root) == []
