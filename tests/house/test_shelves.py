"""House rule: every part has a catalogue line."""

from __future__ import annotations

from pathlib import Path

from rules import shelves


def test_catalogue(root: Path) -> None:
    assert shelves.check_catalogue(root) == []


def test_contracts(root: Path) -> None:
    assert shelves.check_contracts(root) == []
