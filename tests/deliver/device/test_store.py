"""The store of a home: what is in it is what its name says, and what a slot uses stays."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import EnvironmentFault, Refused
from haversack.deliver.store import Store

NOTHING = frozenset()


def put(store, data, age=0):
    name = hashlib.sha256(data).hexdigest()
    with store.adding(name) as stream:
        stream.write(data)
    os.utime(store.path(name), ns=(10**9 * (1000 - age),) * 2)
    return name


def test_a_file_is_added_and_read(tmp_path):
    store = Store(tmp_path / "store")
    name = put(store, b"one")
    assert store.has(name)
    assert store.sound(name)
    assert store.path(name).read_bytes() == b"one"
    assert store.bytes() == 3


def test_other_content_than_its_name_is_not_kept(tmp_path):
    store = Store(tmp_path)
    name = hashlib.sha256(b"one").hexdigest()
    with pytest.raises(Refused, match="another sha256"), store.adding(name) as stream:
        stream.write(b"two")
    assert not store.has(name)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_damaged_file_loses_its_name(tmp_path):
    store = Store(tmp_path)
    name = put(store, b"one")
    store.path(name).write_bytes(b"eno")
    assert not store.sound(name)
    assert not store.has(name)
    assert not store.sound(name)


def test_the_one_used_longest_ago_goes_first(tmp_path):
    store = Store(tmp_path, quota=100)
    old, new, newest = put(store, b"a" * 40, age=3), put(store, b"b" * 40, age=2), put(store, b"c" * 20, age=1)
    assert store.make_room(0, NOTHING) == 0
    assert store.make_room(30, NOTHING) == 40
    assert [store.has(name) for name in (old, new, newest)] == [False, True, True]


def test_what_is_linked_or_kept_stays(tmp_path):
    store = Store(tmp_path / "store", quota=100)
    linked, kept, loose = put(store, b"a" * 40, age=3), put(store, b"b" * 30, age=2), put(store, b"c" * 30)
    store.link(linked, tmp_path / "link")
    assert store.make_room(20, frozenset({kept})) == 30
    assert [store.has(name) for name in (linked, kept, loose)] == [True, True, False]
    with pytest.raises(EnvironmentFault, match="do not fit the quota of 100: 70 are in use") as caught:
        store.make_room(31, frozenset({kept}))
    assert "--quota" in caught.value.next_step
    (tmp_path / "link").unlink()
    assert store.make_room(100, NOTHING) == 70


def test_a_disk_without_room_is_told_before_it_is_full(tmp_path):
    store = Store(tmp_path, quota=1 << 60)
    name = put(store, b"a")
    with pytest.raises(EnvironmentFault, match="the disk has"):
        store.make_room(1 << 59, frozenset({name}))
    assert store.has(name)


def test_a_link_is_the_same_file(tmp_path):
    store = Store(tmp_path / "store")
    name = put(store, b"one")
    store.link(name, tmp_path / "link")
    assert (tmp_path / "link").stat().st_ino == store.path(name).stat().st_ino


@pytest.mark.parametrize("code", [errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_a_disk_without_links_gets_copies(tmp_path, monkeypatch, code):
    def no_links(*_):
        raise OSError(code, os.strerror(code))

    store = Store(tmp_path / "store")
    name = put(store, b"one")
    monkeypatch.setattr(os, "link", no_links)
    store.link(name, tmp_path / "link")
    assert (tmp_path / "link").read_bytes() == b"one"
    assert (tmp_path / "link").stat().st_ino != store.path(name).stat().st_ino


def test_other_errors_of_links_are_told(tmp_path):
    store = Store(tmp_path / "store")
    name = put(store, b"one")
    with pytest.raises(EnvironmentFault):
        store.link(name, tmp_path / "no" / "folder")
    with pytest.raises(EnvironmentFault):
        store.link("0" * 64, tmp_path / "link")


def test_leftovers_go_and_files_stay(tmp_path):
    store = Store(tmp_path)
    name = put(store, b"one")
    left = store.path(name).parent / ".x.1-abc.part"
    left.write_bytes(b"half")
    store.remove_leftovers()
    assert not left.exists()
    assert store.has(name)
    assert store.bytes() == 3


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    linked=st.sets(st.integers(0, 11)),
    needed=st.integers(0, 200),
    quota=st.integers(1, 400),
)
def test_room_is_made_or_it_is_said_that_there_is_none(tmp_path_factory, sizes, linked, needed, quota):
    folder = tmp_path_factory.mktemp("room")
    store = Store(folder / "store", quota=quota)
    names = [put(store, bytes([place]) * size, age=place) for place, size in enumerate(sizes)]
    for place in linked & set(range(len(names))):
        store.link(names[place], folder / str(place))
    held = sum(sizes[place] for place in linked if place < len(sizes))
    try:
        removed = store.make_room(needed, NOTHING)
    except EnvironmentFault:
        assert held + needed > quota
    else:
        assert store.bytes() == sum(sizes) - removed <= quota - needed
    assert all(store.has(names[place]) for place in linked if place < len(names))
