"""Disks that refuse: real mounts where the machine lets us, and a limit on file sizes everywhere."""

from __future__ import annotations

import resource
import subprocess

import pytest


def _mounted(folder, options):
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this machine lets nobody mount: {done.stderr.strip()}")
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = _mounted(tmp_path / "small", "size=64k")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only_disk(tmp_path):
    """A file system that nobody may write to, root included."""
    folder = _mounted(tmp_path / "read_only", "size=64k,ro")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def file_size_limit():
    """A function that makes every write beyond so many bytes of a file fail, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
