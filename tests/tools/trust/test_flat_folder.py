"""A flat folder that a stranger filled: what is plain, what is not, and what changes while it is read."""

from __future__ import annotations

import hashlib
import os
import socket

import pytest

from haversack.base.errors import EnvironmentFault, UsageError
from haversack.tools.trust import folder


@pytest.fixture
def strange(tmp_path):
    """A folder with one of each kind of entry."""
    (tmp_path / "plain").write_bytes(b"12345")
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to("plain")
    (tmp_path / "broken").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    return tmp_path


def test_everything_but_a_plain_file_is_a_fault(strange):
    with folder.opened(strange, "x") as inside:
        files, faults = folder.listed(inside, 100)
    assert files == {"plain": 5}
    assert {fault.where: fault.cause for fault in faults} == {
        "inner": "it is a folder, not a plain file",
        "link": "it is a link, not a plain file",
        "broken": "it is a link, not a plain file",
        "pipe": "it is a pipe, not a plain file",
        "socket": "it is a socket, not a plain file",
    }


@pytest.mark.parametrize("most", [0, 1, 5, 6])
def test_only_so_many_entries_are_looked_at(strange, most):
    with folder.opened(strange, "x") as inside:
        files, faults = folder.listed(inside, most)
    over = [fault for fault in faults if not fault.where]
    assert len(files) + len(faults) - len(over) == min(most, 6)
    assert [fault.cause for fault in over] == [f"there are more than {most} files in it"] * (most < 6)


@pytest.mark.parametrize("name", ["inner", "link", "broken", "pipe", "socket", "../x", "inner/x", "/etc/hostname"])
def test_only_a_plain_file_of_the_folder_is_read(strange, name):
    with folder.opened(strange, "x") as inside, pytest.raises(ValueError, match="it is not a plain file"):
        folder.whole(inside, name, 100)


def test_sizes_are_bounded_before_a_byte_is_read(strange, monkeypatch):
    with folder.opened(strange, "x") as inside:
        assert folder.whole(inside, "plain", 5) == b"12345"
        monkeypatch.setattr(os, "fdopen", None)
        with pytest.raises(ValueError, match="it has 5 bytes, and 4 are allowed"):
            folder.whole(inside, "plain", 4)


@pytest.mark.parametrize("later", [b"", b"1234", b"123456"])
def test_a_file_that_changes_its_size_has_another_digest(strange, later):
    with folder.opened(strange, "x") as inside, folder.plain(inside, "plain") as (descriptor, size):
        assert folder.digest_of(descriptor, size) == hashlib.sha256(b"12345").hexdigest()
        with (strange / "plain").open("r+b") as stream:
            stream.truncate(0)
            stream.write(later)
        assert folder.digest_of(descriptor, size) != hashlib.sha256(b"12345").hexdigest()


def test_an_endless_file_is_read_to_its_told_size_and_one_chunk(strange):
    """A file that grows faster than it is read ends after the size that it had."""
    with (strange / "plain").open("wb") as stream:
        stream.truncate(5 << 20)
    with folder.opened(strange, "x") as inside, folder.plain(inside, "plain") as (descriptor, _):
        assert folder.digest_of(descriptor, 10) == hashlib.sha256(bytes(1 << 20)).hexdigest()


def test_no_folder_is_told_with_the_step(strange):
    for place in (strange / "none", strange / "plain", strange / "broken"):
        with pytest.raises(UsageError, match="there is no such folder") as caught, folder.opened(place, "make it"):
            raise AssertionError
        assert (caught.value.where, caught.value.next_step) == (str(place), "make it")


def test_errors_within_are_told_and_the_folder_is_closed(strange):
    with pytest.raises(EnvironmentFault) as caught, folder.opened(strange, "x") as inside:
        folder.whole(inside, "gone", 5)
    assert caught.value.where == str(strange)
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(inside)
