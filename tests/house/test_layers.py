"""House rule: who may import whom."""

from __future__ import annotations

from pathlib import Path

from rules import layers


def test_layers(root: Path) -> None:
    assert layers.check_layers(root) == []


def test_ranks(root: Path) -> None:
    assert layers.check_ranks(root) == []


def test_cycles(root: Path) -> None:
    assert layers.check_cycles(root) == []
