"""A flat folder that a stranger filled, also while he changes it under our hands."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest

from haversack.base.errors import EnvironmentFault, UsageError
from haversack.tools.trust import folder as folders


@pytest.fixture
def inside(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_plain_files_are_listed_with_their_sizes_and_all_else_is_a_fault(tmp_path, inside):
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").mkdir()
    os.mkfifo(tmp_path / "d\x07")
    files, faults = folders.listed(inside, 10)
    assert files == {"a": 3}
    assert sorted(map(str, faults)) == [
        "b: it is a link, not a plain file",
        "c: it is a folder, not a plain file",
        "d\\x07: it is a pipe, not a plain file",
    ]


def test_no_more_entries_are_looked_at_than_are_allowed(tmp_path, inside):
    for number in range(8):
        (tmp_path / str(number)).write_text("")
    files, faults = folders.listed(inside, 3)
    assert len(files) == 3
    assert [fault.cause for fault in faults] == ["there are more than 3 files in it"]


def test_a_file_is_read_whole_or_not_at_all(tmp_path, inside):
    (tmp_path / "a").write_bytes(b"12345")
    assert folders.whole(inside, "a", 5) == b"12345"
    with pytest.raises(ValueError, match="5 bytes, and 4 are allowed"):
        folders.whole(inside, "a", 4)
    with pytest.raises(ValueError, match="not a plain file"):
        folders.whole(inside, "../a", 4)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_takes_a_files_place_after_it_was_looked_at_is_not_read(tmp_path, inside, monkeypatch, kind):
    """The look before opening is outrun: only how the file is opened, and a look at what was opened, are left."""
    (tmp_path / "plain").write_bytes(b"1")
    state = (tmp_path / "plain").stat()
    (tmp_path / "a").unlink(missing_ok=True)
    {
        "link": lambda: (tmp_path / "a").symlink_to(tmp_path / "plain"),
        "pipe": lambda: os.mkfifo(tmp_path / "a"),
        "folder": (tmp_path / "a").mkdir,
    }[kind]()
    monkeypatch.setattr(folders.os, "stat", lambda *_, **__: state)
    with pytest.raises(ValueError, match="not a plain file"):
        folders.whole(inside, "a", 10)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, inside, monkeypatch):
    (tmp_path / "a").write_bytes(b"1" * 100)
    real = os.read

    def late(*words):
        with (tmp_path / "a").open("ab") as stream:
            stream.write(b"2")
        return real(*words)

    monkeypatch.setattr(folders.os, "read", late)
    with pytest.raises(ValueError, match="changed while it was read"):
        folders.whole(inside, "a", 1000)


@pytest.mark.parametrize("size", [0, 1, folders._CHUNK - 1, folders._CHUNK, folders._CHUNK + 1, 3 * folders._CHUNK])
def test_digests_are_of_all_bytes(tmp_path, inside, size):
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    with folders.plain(inside, "a") as (descriptor, told):
        assert told == size
        assert folders.digest_of(descriptor, size) == hashlib.sha256(data).hexdigest()


def test_a_file_that_never_ends_is_not_read_without_end(tmp_path, inside, monkeypatch):
    (tmp_path / "a").write_bytes(b"1" * 100)
    calls = 0

    def endless(_, count, __):
        nonlocal calls
        calls += 1
        assert calls < 5, "it goes on reading"
        return b"1" * count

    monkeypatch.setattr(folders.os, "pread", endless)
    with folders.plain(inside, "a") as (descriptor, size):
        assert folders.digest_of(descriptor, size) != hashlib.sha256(b"1" * 100).hexdigest()


def test_what_no_folder_is(tmp_path):
    (tmp_path / "a").write_text("")
    for name in ("a", "nowhere", "a/b"):
        with (
            pytest.raises(UsageError, match="there is no such folder") as caught,
            folders.opened(tmp_path / name, "next"),
        ):
            pytest.fail("it was opened")
        assert caught.value.next_step == "next"
    with pytest.raises(EnvironmentFault), folders.opened(tmp_path, "next") as inside:
        folders.whole(inside, "nowhere", 10)


def test_threads_share_nothing(tmp_path):
    for number in range(8):
        (tmp_path / str(number)).write_bytes(bytes([number]) * 1000)
    wrong: list[int] = []

    def look(number: int) -> None:
        with folders.opened(tmp_path, "next") as inside:
            for _ in range(20):
                if folders.whole(inside, str(number), 1000) != bytes([number]) * 1000:
                    wrong.append(number)

    threads = [threading.Thread(target=look, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
