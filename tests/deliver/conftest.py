"""Small repositories for the tests of delivering: made once, and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sites import Site


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with keys, of a repository in which nothing is published."""
    return Site.create(tmp_path_factory.mktemp("empty")).folder


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory, empty: Path) -> Path:
    """Return a folder with keys and two releases of digits."""
    folder = tmp_path_factory.mktemp("full")
    shutil.copytree(empty, folder, dirs_exist_ok=True)
    site = Site(folder)
    site.publish("1.0.0")
    site.publish("1.1.0")
    return folder


@pytest.fixture
def site(tmp_path: Path, empty: Path) -> Site:
    """Return a repository with keys, in which nothing is published yet."""
    shutil.copytree(empty, tmp_path, dirs_exist_ok=True)
    return Site(tmp_path)


@pytest.fixture
def published(tmp_path: Path, full: Path) -> Site:
    """Return a repository with the releases 1.0.0 and 1.1.0 of digits."""
    shutil.copytree(full, tmp_path, dirs_exist_ok=True)
    return Site(tmp_path)
