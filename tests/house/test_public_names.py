"""House rule: few public names, all documented."""

from __future__ import annotations

from pathlib import Path

from rules import public_names


def test_public_names(root: Path) -> None:
    assert public_names.check_public_names(root) == []


def test_root_shadows(root: Path) -> None:
    assert public_names.check_root_shadows(root) == []
