"""House rule: frameworks stand where they are used."""

from __future__ import annotations

from pathlib import Path

from rules import frameworks


def test_frameworks(root: Path) -> None:
    assert frameworks.check_frameworks(root) == []
