"""What an update needs and how it comes, and what was fetched made into files: each lie of a blob is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.bundle import MANIFEST, BundleFile, Manifest, Variant
from haversack.base.errors import EnvironmentFault, HaversackError, Refused
from haversack.base.release import Blob, Release, ReleaseFile
from haversack.deliver import plan
from haversack.deliver.bandwidth import Past, Transfer
from haversack.deliver.rebuild import Rebuilder
from haversack.deliver.store import Store
from haversack.tools.codec import bsdiff, delta, download
from haversack.tools.trust import stream

OLD = bytes(range(256)) * 40
NEW = OLD[:4000] + b"new weights" + OLD[4100:]
KEY = bytes(range(32))


def name_of(data):
    return hashlib.sha256(data).hexdigest()


def put(store, data):
    with store.adding(name_of(data)) as place:
        place.write(data)


def a_file(name, data, *blobs, target="", role="licence"):
    whole = Blob(name_of(data), len(data), "plain")
    return ReleaseFile(name, role, len(data), name_of(data), (whole, *blobs), target)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def release():
    """Two runtimes that share labels; the model of one may come as a delta from ``OLD``."""
    step = Blob("d" * 64, 100, "hvd1", name_of(OLD))
    files = (
        a_file("a.json", b"{1}", target="onnxruntime", role="artifact"),
        a_file("a.onnx", NEW, step, target="onnxruntime", role="model"),
        a_file("b.json", b"{2}", target="litert", role="artifact"),
        a_file("b.tflite", NEW[:9000], target="litert", role="model"),
        a_file("labels.txt", b"one\n", role="labels"),
        a_file(MANIFEST, b"{}", role="manifest"),
    )
    return Release(1, "digits", "1.0.0", 1, files)


@pytest.fixture
def manifest(release):
    files = tuple(
        BundleFile(one.name, one.role, one.bytes, one.sha256, one.target)
        for one in release.files
        if one.name != MANIFEST
    )
    return Manifest(1, "digits", "1.0.0", files, (Variant("litert"), Variant("onnxruntime")))


def test_each_runtime_gets_its_own_files_and_the_shared_ones(release, manifest, store):
    found = plan.plans(release, manifest, ["onnxruntime", "executorch", "litert"], store, Past())
    assert [one.target for one in found] == ["onnxruntime", "litert"]  # in the order of the device
    assert [[need.file.name for need in one.needs] for one in found] == [
        ["a.json", "a.onnx", "labels.txt", MANIFEST],
        ["b.json", "b.tflite", "labels.txt", MANIFEST],
    ]
    assert all(one.missing == one.needs for one in found)


def test_what_is_here_does_not_travel_and_is_kept(release, manifest, store):
    put(store, b"one\n")
    [found] = plan.plans(release, manifest, ["onnxruntime"], store, Past())
    assert [need.file.name for need in found.missing] == ["a.json", "a.onnx", MANIFEST]
    assert found.kept == {name_of(data) for data in (b"{1}", NEW, b"one\n", b"{}")}
    assert found.room() == len(NEW) + 3 + 2 + 2 * len(NEW)
    for data in (NEW, b"{1}", b"{}"):
        put(store, data)
    [found] = plan.plans(release, manifest, ["onnxruntime"], store, Past())
    assert (found.missing, found.blobs, found.room()) == ((), (), 0)


def test_a_delta_travels_only_where_its_base_is_here(release, manifest, store):
    [found] = plan.plans(release, manifest, ["onnxruntime"], store, Past())
    assert found.needs[1].blob.form == "plain"
    put(store, OLD)
    [found] = plan.plans(release, manifest, ["onnxruntime"], store, Past())
    assert found.needs[1].blob.form == "hvd1"
    assert name_of(OLD) in found.kept
    assert found.room() == len(NEW) + 3 + 4 + 2 + 2 * 100


def test_a_forecast_is_that_of_what_is_missing(release, manifest, store):
    past = Past(transfers=(Transfer(100_000, 0.5, 1.0),), work={"plain": 0.0})
    put(store, b"one\n")
    [found] = plan.plans(release, manifest, ["litert"], store, past)
    choice = found.choice(past)
    assert choice.target == "litert"
    assert choice.bytes == 9000 + 3 + 2
    assert choice.seconds == pytest.approx(3 * 0.5 + 9005 / 100_000)


@pytest.mark.parametrize(
    "targets, told", [([], "this device runs none of them"), (["executorch"], "this device runs executorch")]
)
def test_a_device_without_a_runtime_is_told_what_there_is(release, manifest, store, targets, told):
    with pytest.raises(EnvironmentFault, match=told) as caught:
        plan.plans(release, manifest, targets, store, Past())
    assert "it is made for litert, onnxruntime" in caught.value.cause
    assert caught.value.where == "digits 1.0.0"
    assert caught.value.next_step == "haversack doctor"


def test_files_by_name(release):
    assert plan.file_of(release, MANIFEST).role == "manifest"
    with pytest.raises(Refused, match="no other.bin") as caught:
        plan.file_of(release, "other.bin")
    assert caught.value.exit_code == 7


def test_a_manifest_that_agrees(release, manifest):
    plan.demand_same(release, manifest)
    with pytest.raises(Refused):
        plan.demand_same(release, replace(manifest, version="1.0.1"))


@pytest.mark.parametrize(
    "change, places",
    [
        ({"bytes": 1}, ["a.onnx"]),
        ({"sha256": "0" * 64}, ["a.onnx"]),
        ({"name": "c.onnx"}, ["a.onnx", "c.onnx"]),
    ],
)
def test_every_difference_to_the_manifest_is_told(release, manifest, change, places):
    files = (replace(manifest.files[1], **change), manifest.files[0], *manifest.files[2:])
    told = replace(manifest, files=tuple(sorted(files, key=lambda one: one.name)), name="letters")
    with pytest.raises(Refused, match="its manifest is not the release's") as caught:
        plan.demand_same(release, told)
    assert [fault.where for fault in caught.value.faults] == [*places, MANIFEST]
    assert caught.value.faults[-1].cause == "it is of letters 1.0.0"


FORMS = {
    "plain": lambda: NEW,
    "download": lambda: download.pack(NEW),
    "hvd1": lambda: delta.wrapped(OLD, NEW, bsdiff.make(OLD, NEW)),
    "bsdiff": lambda: bsdiff.make(OLD, NEW),
}


def sealed(data):
    return stream.sealed(data, KEY, name_of(data))


@pytest.fixture
def fetched(tmp_path):
    """A function that lays down what was fetched, and returns its blob and place."""

    def make(form, data):
        place = tmp_path / f"{name_of(data)}.part"
        place.write_bytes(data)
        base = name_of(OLD) if form in ("hvd1", "bsdiff") else ""
        return Blob(name_of(data), len(data), form, base), place

    return make


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("form", [*FORMS])
def test_every_form_becomes_the_file(store, fetched, tmp_path, form, key):
    put(store, OLD)
    blob, place = fetched(form, FORMS[form]() if key is None else sealed(FORMS[form]()))
    Rebuilder(store, key).rebuild(blob, place, a_file("m.onnx", NEW))
    assert store.sound(name_of(NEW))
    assert store.path(name_of(NEW)).read_bytes() == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("form", ["plain", "download", "hvd1", "bsdiff"])
def test_another_file_than_was_signed_is_refused(store, fetched, tmp_path, form):
    """Of the same length with one bit changed, shorter, and longer: nothing of it is kept."""
    put(store, OLD)
    blob, place = fetched(form, sealed(FORMS[form]()))
    for other in (b"x" + NEW[1:], NEW[:-1], NEW + b"x", b""):
        with pytest.raises(HaversackError) as caught:
            Rebuilder(store, KEY).rebuild(blob, place, a_file("m.onnx", other))
        assert caught.value.exit_code in {5, 7}
        assert not store.has(name_of(other))
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([place.name, "store"])


@pytest.mark.parametrize("form", ["hvd1", "bsdiff"])
def test_a_delta_without_its_base_is_no_lie_of_the_publisher(store, fetched, form):
    blob, place = fetched(form, FORMS[form]())
    with pytest.raises(EnvironmentFault, match="the delta begins from is damaged") as caught:
        Rebuilder(store).rebuild(blob, place, a_file("m.onnx", NEW))
    assert caught.value.where == "m.onnx"
    put(store, OLD)
    store.path(name_of(OLD)).write_bytes(OLD[:-1] + b"?")
    with pytest.raises(EnvironmentFault):
        Rebuilder(store).rebuild(blob, place, a_file("m.onnx", NEW))
    assert not store.has(name_of(OLD))  # it lost its name
    assert place.exists()


@pytest.mark.parametrize("key", [bytes(32), None], ids=["another", "none"])
def test_a_wrong_key_opens_nothing(store, fetched, tmp_path, key):
    blob, place = fetched("plain", sealed(NEW))
    with pytest.raises(Refused):
        Rebuilder(store, key).rebuild(blob, place, a_file("m.onnx", NEW))
    assert not list(tmp_path.glob("*.opened"))
    assert not store.has(name_of(NEW))


@settings(max_examples=12)
@given(
    form=st.sampled_from(["download", "hvd1", "bsdiff"]),
    place=st.integers(0, 10**6),
    flip=st.integers(1, 255),
    cut=st.booleans(),
)
def test_a_spoiled_blob_gives_the_file_or_is_refused(tmp_path_factory, form, place, flip, cut):
    """Even with a sha256 that fits: a publisher's key may be stolen, and no decoder may write anything else."""
    folder = tmp_path_factory.mktemp("spoiled")
    store = Store(folder / "store")
    put(store, OLD)
    data = bytearray(FORMS[form]())
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= flip
    part = folder / "x.part"
    part.write_bytes(data)
    blob = Blob(name_of(data), len(data), form, name_of(OLD) if form != "download" else "")
    try:
        Rebuilder(store).rebuild(blob, part, a_file("m.onnx", NEW))
    except HaversackError as error:
        assert error.exit_code in {5, 7}
        assert not store.has(name_of(NEW))
    else:
        assert store.path(name_of(NEW)).read_bytes() == NEW
    assert store.path(name_of(OLD)).read_bytes() == OLD
