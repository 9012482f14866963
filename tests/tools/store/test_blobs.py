from __future__ import annotations

import hashlib
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import EnvironmentFault, Refused
from haversack.tools.store import atomic
from haversack.tools.store.blobs import Blobs


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path):
    return Blobs(tmp_path / "blobs")


@given(content=st.binary(max_size=300))
def test_content_comes_back_under_its_digest(tmp_path_factory, content):
    store = Blobs(tmp_path_factory.mktemp("blobs"))
    sha256 = store.put(content)
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert store.has(sha256)
    assert store.get(sha256) == content
    store.verify(sha256)


def test_a_file_is_copied_and_larger_than_one_chunk(store, tmp_path):
    source = tmp_path / "model.onnx"
    source.write_bytes(bytes(range(256)) * 10_000)
    sha256 = store.put(source)
    source.write_bytes(b"changed")
    assert hashlib.sha256(store.path(sha256).read_bytes()).hexdigest() == sha256
    assert store.path(sha256).stat().st_size == 2_560_000


def test_the_same_content_is_stored_once(store, tmp_path):
    (tmp_path / "same").write_bytes(b"content")
    assert store.put(b"content") == store.put(b"content") == store.put(tmp_path / "same")
    sha256 = hashlib.sha256(b"content").hexdigest()
    assert everything(store.folder) == [f"{sha256[:2]}/{sha256[2:]}"]


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", "é" * 64])
def test_a_name_that_is_no_digest_never_becomes_a_path(store, name):
    for method in (store.path, store.has, store.get, store.verify):
        with pytest.raises(ValueError, match="not a sha256"):
            method(name)


def test_a_changed_byte_shows_and_putting_the_content_again_repairs_it(store):
    sha256 = store.put(b"content")
    store.path(sha256).write_bytes(b"contenu")
    for method in (store.verify, store.get):
        with pytest.raises(EnvironmentFault, match="is not what its name says") as caught:
            method(sha256)
        assert caught.value.where == str(store.path(sha256))
    assert store.put(b"content") == sha256
    assert store.get(sha256) == b"content"


def test_a_missing_blob_is_told(store):
    sha256 = hashlib.sha256(b"never put").hexdigest()
    assert not store.has(sha256)
    for method in (store.verify, store.get):
        with pytest.raises(EnvironmentFault) as caught:
            method(sha256)
        assert caught.value.where == str(store.path(sha256))


def test_a_missing_source_is_told_and_stores_nothing(store, tmp_path):
    with pytest.raises(EnvironmentFault) as caught:
        store.put(tmp_path / "missing")
    assert caught.value.where == str(tmp_path / "missing")
    assert everything(store.folder) == []


def test_what_is_over_the_limit_is_refused_and_nothing_is_left(tmp_path):
    store = Blobs(tmp_path / "blobs", limit_bytes=10)
    store.put(b"x" * 10)
    before = everything(store.folder)
    with pytest.raises(Refused, match="over the limit of 10 bytes"):
        store.put(b"x" * 11)
    assert everything(store.folder) == before


def test_a_full_disk_is_told_and_nothing_is_left(small_disk):
    store = Blobs(small_disk / "blobs")
    kept = store.put(b"small")
    before = everything(store.folder)
    with pytest.raises(EnvironmentFault, match="the disk is full"):
        store.put(b"x" * 1_000_000)
    assert everything(store.folder) == before
    store.verify(kept)


def test_a_read_only_disk_is_told(read_only_disk):
    with pytest.raises(EnvironmentFault, match="read-only"):
        Blobs(read_only_disk / "blobs").put(b"x")


def test_leftovers_of_the_dead_go(store):
    assert store.remove_leftovers() == 0
    store.put(b"content")
    dead = store.folder / atomic.temporary_name("blob")
    dead = dead.with_name(dead.name.replace(f".{os.getpid()}-", ".4194305-"))  # over pid_max
    dead.touch()
    assert store.remove_leftovers() == 1
    assert not dead.exists()
    assert store.get(hashlib.sha256(b"content").hexdigest()) == b"content"


def test_several_writers_of_the_same_content_do_not_disturb_each_other(store):
    content = [bytes([n]) * 50_000 for n in range(5)]
    threads = [threading.Thread(target=lambda: [store.put(c) for c in content]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [hashlib.sha256(c).hexdigest() for c in content]
    assert everything(store.folder) == sorted(f"{sha[:2]}/{sha[2:]}" for sha in expected)
    for sha256 in expected:
        store.verify(sha256)
