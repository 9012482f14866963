"""What was fetched becomes the file it stands for, or nothing."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.errors import EnvironmentFault, Refused
from haversack.base.release import Blob, ReleaseFile
from haversack.deliver.rebuild import Rebuilder
from haversack.deliver.store import Store
from haversack.tools.codec import bsdiff, delta, delta_make, download
from haversack.tools.trust import stream, wrap

OLD = bytes(range(256)) * 40
NEW = OLD[:5000] + b"something else" + OLD[5000:]


MADE = {
    "plain": NEW,
    "download": download.pack(NEW),
    "bsdiff": bsdiff.make(OLD, NEW),
    "hvd1": delta_make.make(OLD, NEW),
}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    with made.adding(sha256(OLD)) as target:
        target.write(OLD)
    return made


@pytest.fixture
def rebuild(store, tmp_path):
    """A function that rebuilds a blob's bytes into a file that should be ``wanted``."""

    def do(data, form, wanted=NEW, *, base="", key=None, size=None):
        if key is not None:
            data = stream.sealed(data, key, sha256(data))
        blob = Blob(sha256(data), len(data), form, base)
        fetched = tmp_path / f"{blob.sha256}.part"
        fetched.write_bytes(data)
        size = len(wanted) if size is None else size
        file = ReleaseFile("model.onnx", "model", size, sha256(wanted), (Blob("0" * 64, 1, "plain"),), "onnxruntime")
        Rebuilder(store, key).rebuild(blob, fetched, file)
        return store.path(file.sha256).read_bytes()

    return do


@pytest.mark.parametrize("key", [None, wrap.new_key()], ids=["plain", "encrypted"])
@pytest.mark.parametrize("form", MADE)
def test_every_form(rebuild, tmp_path, form, key):
    assert rebuild(MADE[form], form, base=sha256(OLD) if form in {"bsdiff", "hvd1"} else "", key=key) == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("form", MADE)
def test_another_file_than_the_release_says_is_not_kept(rebuild, store, form):
    other = NEW[:-1] + b"x"
    base = sha256(OLD) if form in {"bsdiff", "hvd1"} else ""
    made = {
        "plain": lambda: other,
        "download": lambda: download.pack(other),
        "bsdiff": lambda: bsdiff.make(OLD, other),
        "hvd1": lambda: delta_make.make(OLD, other),
    }[form]()
    with pytest.raises(Refused):
        rebuild(made, form, base=base)
    assert not store.has(sha256(NEW))
    assert not store.has(sha256(other))


def test_no_more_bytes_are_made_than_the_file_has(rebuild):
    bomb = download.pack(bytes(50_000_000))
    assert len(bomb) < 10_000
    with pytest.raises(Refused, match="50000000 bytes, and 10254 are allowed"):
        rebuild(bomb, "download")
    with pytest.raises(Refused, match="bytes"):
        rebuild(bsdiff.make(OLD, bytes(1_000_000)), "bsdiff", base=sha256(OLD))
    with pytest.raises(Refused, match="bytes"):
        rebuild(delta_make.make(OLD, bytes(1_000_000)), "hvd1", base=sha256(OLD))
    with pytest.raises(Refused):
        rebuild(NEW + b"x", "plain")
    with pytest.raises(Refused, match="another sha256"):
        rebuild(download.pack(NEW[:-1]), "download")


def test_an_empty_file(rebuild):
    assert rebuild(b"", "plain", b"") == b""
    assert rebuild(download.pack(b""), "download", b"") == b""


def test_a_wrong_key_is_refused_and_leaves_nothing(rebuild, store, tmp_path):
    key = wrap.new_key()
    data = stream.sealed(NEW, key, sha256(NEW))
    with pytest.raises(Refused, match="of another key"):
        Rebuilder(store, wrap.new_key()).rebuild(
            Blob(sha256(data), len(data), "plain"),
            _written(tmp_path / "x.part", data),
            ReleaseFile("a.txt", "labels", len(NEW), sha256(NEW), (Blob("0" * 64, 1, "plain"),)),
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "x.part"]


def _written(path, data):
    path.write_bytes(data)
    return path


def test_a_base_that_is_damaged_or_gone(rebuild, store):
    patch = bsdiff.make(OLD, NEW)
    store.path(sha256(OLD)).write_bytes(OLD[:-1])
    with pytest.raises(EnvironmentFault, match="damaged"):
        rebuild(patch, "bsdiff", base=sha256(OLD))
    assert not store.has(sha256(OLD))
    with pytest.raises(EnvironmentFault):
        rebuild(patch, "bsdiff", base=sha256(OLD))


def test_a_plain_blob_is_moved_and_not_copied(store, tmp_path):
    fetched = _written(tmp_path / "x.part", NEW)
    inode = fetched.stat().st_ino
    file = ReleaseFile("a.txt", "labels", len(NEW), sha256(NEW), (Blob("0" * 64, 1, "plain"),))
    Rebuilder(store).rebuild(Blob(sha256(NEW), len(NEW), "plain"), fetched, file)
    assert store.path(sha256(NEW)).stat().st_ino == inode


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(sorted(MADE)),
    place=st.integers(0, 10**6),
    flip=st.integers(1, 255),
    cut=st.booleans(),
)
def test_no_damage_passes(rebuild, store, form, place, flip, cut):
    """A byte changed, or the end cut off: refused, or the file all the same; never another one, never another error."""
    data = MADE[form]
    at = place % len(data)
    spoiled = data[:at] if cut else data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
    store.path(sha256(NEW)).unlink(missing_ok=True)
    try:
        found = rebuild(spoiled, form, base=sha256(OLD) if form in {"bsdiff", "hvd1"} else "")
    except Refused:
        assert not store.has(sha256(NEW))
    else:
        assert found == NEW


def test_deltas_say_what_they_are():
    assert delta.header(MADE["hvd1"]).new_bytes == len(NEW)
