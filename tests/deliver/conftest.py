"""One small repository for each test of delivering."""

from __future__ import annotations

from pathlib import Path

import pytest
from sites import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Return a repository with keys, in which nothing is published yet."""
    return Site.create(tmp_path)
