"""What stands on a far device: files by their content within bounds, and nothing outside of its folder."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import sys
from pathlib import Path

import pytest

from haversack.tools.worker import keeper
from haversack.tools.worker.keeper import Store, key_of


def listed(**files):
    """Return what a near end tells of files, and their bytes one after the other."""
    entries = [
        [name.replace("__", "/"), len(data), hashlib.sha256(data).hexdigest()] for name, data in sorted(files.items())
    ]
    return entries, b"".join(data for _, data in sorted(files.items()))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "kept", bound=1000)


def test_files_are_kept_by_what_is_in_them(store):
    entries, data = listed(model=b"weights", inner__more=b"x" * 300)
    assert store.path(key_of(entries)) is None
    folder = store.put(entries, io.BytesIO(data))
    assert (folder / "model").read_bytes() == b"weights"
    assert (folder / "inner" / "more").read_bytes() == b"x" * 300
    assert folder == store.path(key_of(entries)) == store.root / key_of(entries)
    assert store.root.stat().st_mode & 0o077 == 0, "nobody else reads models"


def test_the_key_is_that_of_the_content_whatever_the_order(store):
    entries, _ = listed(a=b"1", b=b"2")
    assert key_of(entries) == key_of(entries[::-1])
    assert key_of(entries) != key_of(listed(a=b"1", b=b"3")[0])
    assert key_of(entries) != key_of(listed(a=b"1", c=b"2")[0])


def test_the_same_files_twice_are_one_folder(store):
    entries, data = listed(a=b"1")
    assert store.put(entries, io.BytesIO(data)) == store.put(entries, io.BytesIO(data))
    assert len(list(store.root.iterdir())) == 1


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a//b", "", ".hidden", "a/../b", "a/.b", "a\nb", "x" * 300, "a/"]
)
def test_a_name_that_could_leave_the_folder_is_refused(store, name):
    with pytest.raises(ValueError, match="not a file to keep"):
        store.put([[name, 1, "0" * 64]], io.BytesIO(b"x"))
    assert not store.root.exists(), "nothing was made"


@pytest.mark.parametrize("size, digest", [(-1, "0" * 64), ("1", "0" * 64), (1, "0" * 63), (1, "G" * 64), (1, 7)])
def test_a_size_or_a_digest_that_is_none_is_refused(store, size, digest):
    with pytest.raises(ValueError, match="not a file to keep"):
        store.put([["a", size, digest]], io.BytesIO(b"x"))


@pytest.mark.parametrize("count", [0, keeper.MOST_FILES + 1])
def test_so_many_files_are_refused(store, count):
    with pytest.raises(ValueError, match="files are none, or too many"):
        store.put([[f"f{number}", 0, "0" * 64] for number in range(count)], io.BytesIO())


def test_other_bytes_than_were_sent_leave_nothing(store):
    entries, _ = listed(a=b"12345")
    with pytest.raises(ValueError, match="a arrived with other bytes"):
        store.put(entries, io.BytesIO(b"12346"))
    assert list(store.root.iterdir()) == []


def test_a_connection_that_ends_within_a_file_leaves_nothing(store):
    entries, _ = listed(a=b"12345")
    with pytest.raises(OSError, match="the connection ended within a"):
        store.put(entries, io.BytesIO(b"123"))
    assert list(store.root.iterdir()) == []
    assert store.path(key_of(entries)) is None


def test_what_was_not_used_for_the_longest_time_goes_first(store):
    folders = []
    for number in range(3):
        entries, data = listed(a=bytes([number]) * 300)
        folders.append(store.put(entries, io.BytesIO(data)))
        os.utime(folders[-1], (1000 + number, 1000 + number))
    assert store.path(folders[0].name) == folders[0], "it is used, and by that the youngest"
    entries, data = listed(a=b"9" * 300)
    store.put(entries, io.BytesIO(data))
    assert [folder.exists() for folder in folders] == [True, False, True]
    entries, data = listed(a=b"8" * 900)
    store.put(entries, io.BytesIO(data))
    assert len(list(store.root.iterdir())) == 1


def test_more_than_the_bound_is_refused_and_costs_nobody(store):
    entries, data = listed(a=b"1" * 300)
    kept = store.put(entries, io.BytesIO(data))
    entries, data = listed(a=b"1" * 1001)
    with pytest.raises(ValueError, match="1001 bytes are over the bound of 1000"):
        store.put(entries, io.BytesIO(data))
    assert kept.exists()


def test_a_full_disk_is_told_in_numbers(store, monkeypatch):
    entries, data = listed(a=b"1")
    monkeypatch.setattr(keeper.shutil, "disk_usage", lambda _: os.terminal_size((0, 0)) and type("D", (), {"free": 5}))
    with pytest.raises(OSError, match=f"has 5 bytes left, and {1 + keeper.LEAST_DISK} are needed"):
        store.put(entries, io.BytesIO(data))


@pytest.mark.parametrize("key", ["../../etc", "", "0" * 63, "0" * 64, None, 5])
def test_a_key_that_is_none_is_nowhere(store, key):
    assert store.path(key) is None


def test_it_says_what_it_is(tmp_path):
    told = keeper.about(tmp_path / "not" / "yet", ["numpy", "no-such-distribution"])
    assert told["python"] == list(sys.version_info[:3])
    assert told["packages"]["no-such-distribution"] == ""
    assert told["packages"]["numpy"][0].isdigit()
    assert told["disk_bytes"] > 0
    assert told["folder"] == str(tmp_path / "not" / "yet")
    assert json.loads(json.dumps(told)) == told


def test_its_text_needs_the_standard_library_only_and_is_ascii():
    text = Path(keeper.__file__).read_text(encoding="ascii")
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported <= set(sys.stdlib_module_names)
    assert "haversack" not in imported


def test_its_text_is_read_by_a_python_that_is_too_old_to_work():
    tree = ast.parse(Path(keeper.__file__).read_text(encoding="ascii"), feature_version=(3, 7))
    newer = [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr | ast.Match)]
    assert newer == []
