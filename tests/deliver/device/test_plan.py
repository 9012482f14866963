"""What an update needs: variants, blobs, and a manifest that is the release's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base import digest
from haversack.base.bundle import BundleFile, Manifest, Variant
from haversack.base.errors import EnvironmentFault, Refused
from haversack.base.release import Blob, Release, ReleaseFile
from haversack.deliver import plan
from haversack.deliver.bandwidth import Past, Transfer
from haversack.deliver.store import Store

LINE = Past(transfers=(Transfer(1_000_000, 0.0, 10.0),))


def number(text):
    return digest.of_bytes(text.encode())


def blob(text, size, form="download", base=""):
    return Blob(number(text), size, form, base)


def file(name, role, target, size, blobs):
    return ReleaseFile(name, role, size, number(name), blobs, target)


DELTA = blob("ld", 300_000, "hvd1", number("old"))
FILES = (
    file("litert.golden.npz", "golden", "litert", 900, (blob("lg", 400),)),
    file("litert.json", "artifact", "litert", 300, (blob("lj", 200),)),
    file(
        "litert.tflite",
        "model",
        "litert",
        5_000_000,
        (blob("lt", 4_000_000), blob("ld", 300_000, "hvd1", number("old"))),
    ),
    file("manifest.json", "manifest", "", 700, (blob("mf", 350),)),
    file("onnxruntime.json", "artifact", "onnxruntime", 300, (blob("oj", 200),)),
    file("onnxruntime.onnx", "model", "onnxruntime", 2_000_000, (blob("oo", 1_500_000),)),
)
RELEASE = Release(1, "digits", "1.0.0", 3, FILES)
MANIFEST = Manifest(
    1,
    "digits",
    "1.0.0",
    tuple(BundleFile(one.name, one.role, one.bytes, one.sha256, one.target) for one in FILES if one.role != "manifest"),
    (Variant("litert"), Variant("onnxruntime")),
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def hold(store, sha256):
    path = store.path(sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_a_plan_for_every_runtime_in_the_devices_order(store):
    both = plan.plans(RELEASE, MANIFEST, ["onnxruntime", "executorch", "litert"], store, LINE)
    assert [one.target for one in both] == ["onnxruntime", "litert"]
    assert [need.file.name for need in both[0].needs] == ["manifest.json", "onnxruntime.json", "onnxruntime.onnx"]
    choice = both[0].choice(LINE)
    assert (choice.target, choice.bytes) == ("onnxruntime", 350 + 200 + 1_500_000)
    assert choice.seconds == pytest.approx(choice.bytes / 100_000 + 1e-7 * (700 + 300 + 2_000_000))


def test_a_runtime_that_is_not_there(store):
    with pytest.raises(EnvironmentFault, match="made for litert, onnxruntime, and this device runs none of them"):
        plan.plans(RELEASE, MANIFEST, [], store, LINE)


def test_a_delta_only_where_its_base_is(store):
    (one,) = plan.plans(RELEASE, MANIFEST, ["litert"], store, LINE)
    assert one.blobs[2].form == "download"
    hold(store, number("old"))
    (one,) = plan.plans(RELEASE, MANIFEST, ["litert"], store, LINE)
    assert one.blobs[2].form == "hvd1"
    assert number("old") in one.kept
    assert one.room() == sum(need.file.bytes for need in one.needs) + 2 * 300_000


def test_what_is_here_does_not_travel(store):
    hold(store, number("litert.tflite"))
    (one,) = plan.plans(RELEASE, MANIFEST, ["litert"], store, LINE)
    assert [need.file.name for need in one.missing] == ["litert.golden.npz", "litert.json", "manifest.json"]
    assert number("litert.tflite") in one.kept
    for each in FILES:
        hold(store, each.sha256)
    (one,) = plan.plans(RELEASE, MANIFEST, ["litert"], store, LINE)
    assert (one.missing, one.blobs, one.room(), one.choice(LINE).bytes) == ((), (), 0, 0)


def test_a_manifest_that_is_the_releases():
    plan.demand_same(RELEASE, MANIFEST)
    assert plan.file_of(RELEASE, "manifest.json").role == "manifest"
    with pytest.raises(Refused, match="no labels.txt"):
        plan.file_of(RELEASE, "labels.txt")


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": 299},
        {"sha256": "0" * 64},
        {"role": "provenance", "target": ""},
        {"name": "litert.more.json", "role": "data"},
    ],
    ids=["size", "digest", "role", "name"],
)
def test_a_manifest_of_another_release_is_refused(change):
    """Mix and match: files of one release under the manifest of another."""
    files = [replace(one, **change) if one.name == "litert.json" else one for one in FILES]
    mixed = replace(RELEASE, files=tuple(sorted(files, key=lambda one: one.name)))
    with pytest.raises(Refused, match="its manifest is not the release's") as caught:
        plan.demand_same(mixed, MANIFEST)
    assert all("litert" in fault.where for fault in caught.value.faults)


@pytest.mark.parametrize("change", [{"line": "words"}, {"version": "1.0.1"}])
def test_a_manifest_of_another_line_or_version_is_refused(change):
    with pytest.raises(Refused) as caught:
        plan.demand_same(replace(RELEASE, **change), MANIFEST)
    assert caught.value.faults[-1].cause == "it is of digits 1.0.0"


def test_files_that_only_one_of_them_names():
    fewer = replace(RELEASE, files=tuple(one for one in FILES if one.name != "litert.golden.npz"))
    with pytest.raises(Refused) as caught:
        plan.demand_same(fewer, MANIFEST)
    assert [fault.where for fault in caught.value.faults] == ["litert.golden.npz"]


@given(
    here=st.sets(st.sampled_from([one.sha256 for one in FILES] + [number("old")])),
    rate=st.floats(1, 1e9),
    target=st.sampled_from(["litert", "onnxruntime"]),
)
def test_every_file_is_here_or_comes(tmp_path_factory, here, rate, target):
    store = Store(tmp_path_factory.mktemp("store"))
    for sha256 in here:
        hold(store, sha256)
    past = Past(transfers=(Transfer(1_000_000, 0.1, 1_000_000 / rate),))
    (one,) = plan.plans(RELEASE, MANIFEST, [target], store, past)
    assert {need.file for need in one.needs} == set(RELEASE.of(target))
    for need in one.needs:
        if need.file.sha256 in here:
            assert need.blob is None
        else:
            assert need.blob in need.file.blobs
            assert not need.blob.base or need.blob.base in here
    assert one.choice(past).seconds >= 0
