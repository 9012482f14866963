"""House rule: the field half works without torch, and imports are quick."""

from __future__ import annotations

from pathlib import Path

from rules import imports_run


def test_field_half(root: Path) -> None:
    assert imports_run.check_field_half(root) == []


def test_import_time(root: Path) -> None:
    assert imports_run.check_import_time(root) == []
