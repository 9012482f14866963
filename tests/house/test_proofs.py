"""House rule: the tests that docs/security.md names are there."""

from __future__ import annotations

from pathlib import Path

from rules import proofs


def test_proofs(root: Path) -> None:
    assert proofs.check_proofs(root) == []
