"""Laws of comparing bundles, against a plain model of each: which files travel, how far integers and values moved."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.bundle import BundleFile, Manifest, Variant
from haversack.base.encodings import Affine, Encodings
from haversack.bundle import changes
from haversack.bundle.changes import LayerChange
from haversack.bundle.variant import INEXACT, exact, unbundled
from haversack.tools.formats import encodings_file
from haversack.tools.trust.bundle import Bundle

LAYER = "fc:linear#0"
FIXED = {"litert.json": "artifact", "litert.tflite": "model"}  # the same in every bundle, and never read
QUICK = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
scales = st.floats(2**-10, 4.0, width=32)
codes = st.lists(st.integers(-8, 7), min_size=8, max_size=8).map(lambda found: np.array(found, np.int32).reshape(2, 4))


def affine(scale: float, zero: int = 0, bits: int = 8) -> Affine:
    return Affine(bits, True, None, np.array(scale, np.float32), np.array(zero, np.int32))


def held(tmp_path, number: int, found: Encodings, version: str = "1.0.0", more: dict[str, bytes] | None = None):
    """Return a bundle of these encodings, as if it had been opened, without models."""
    folder = tmp_path / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    encodings_file.write(found, folder / "encodings.safetensors")
    contents = {"encodings.safetensors": ("encodings", (folder / "encodings.safetensors").read_bytes())}
    contents |= {name: ("licence", data) for name, data in (more or {}).items()}
    entries = [BundleFile(name, role, 1, _sha256(b"."), "litert") for name, role in FIXED.items()]
    for name, (role, data) in sorted(contents.items()):
        (folder / name).write_bytes(data)
        entries.append(BundleFile(name, role, len(data), _sha256(data)))
    manifest = Manifest(1, "digits", version, tuple(sorted(entries, key=lambda one: one.name)), (Variant("litert"),))
    return Bundle(folder, manifest, f"{number:064x}", {})


def _sha256(data: bytes) -> str:
    from haversack.base import digest

    return digest.of_bytes(data)


def layer(found: np.ndarray, scale: float, key: str = LAYER) -> Encodings:
    return Encodings({f"{key}:weight": affine(scale)}, {f"{key}:weight": found})


@QUICK
@given(before=codes, after=codes, old=scales, new=scales)
def test_a_layer_is_as_far_as_its_values(tmp_path_factory, before, after, old, new):
    folder = tmp_path_factory.mktemp("far")
    found = changes.compare(held(folder, 1, layer(before, old)), held(folder, 2, layer(after, new)))
    ((target, layers),) = found.layers.items()
    assert target == "litert"
    if np.array_equal(before, after) and old == new:
        assert (layers, found.unchanged) == ((), {"litert": 1})
        return
    (one,) = layers
    assert (one.layer, one.how, one.integers, found.unchanged["litert"]) == (LAYER, "changed", 8, 0)
    assert one.changed == sum(a != b for a, b in zip(before.flat, after.flat, strict=True))
    assert one.step == max(abs(int(a) - int(b)) for a, b in zip(before.flat, after.flat, strict=True))
    values, others = before.astype(np.float64) * np.float64(old), after.astype(np.float64) * np.float64(new)
    length = np.sqrt((values**2).sum())
    moved = np.sqrt(((others - values) ** 2).sum())
    assert one.weight == pytest.approx(moved / length if length else moved, rel=1e-5, abs=1e-6)
    assert one.scale == pytest.approx(abs(new / old - 1), rel=1e-5, abs=1e-7)


@QUICK
@given(
    old=st.dictionaries(st.sampled_from(["licence.txt", "licence-2.txt", "licence-3.txt"]), st.binary(max_size=30)),
    new=st.dictionaries(st.sampled_from(["licence.txt", "licence-2.txt", "licence-3.txt"]), st.binary(max_size=30)),
)
def test_files_travel_if_their_content_is_new(tmp_path_factory, old, new):
    """The model: a device has contents, not names; what it has does not travel, whatever it is called."""
    folder, same = tmp_path_factory.mktemp("travel"), layer(np.zeros((2, 4), np.int32), 1.0)
    one, two = held(folder, 1, same, more=old), held(folder, 2, same, "1.1.0", more=new)
    found = {file.name: file for file in changes.compare(one, two).files if file.role == "licence"}
    assert set(found) == {*old, *new}
    known = {file.sha256 for file in one.manifest.files}
    for name, file in found.items():
        if name not in new:
            assert (file.how, file.bytes, file.travels) == ("gone", 0, 0)
            continue
        how = "new" if name not in old else "same" if old[name] == new[name] else "changed"
        assert (file.how, file.bytes) == (how, len(new[name]))
        assert (file.travels == 0) == (not new[name] or _sha256(new[name]) in known)


@QUICK
@given(
    old=st.sets(st.integers(0, 5), max_size=5),
    new=st.sets(st.integers(0, 5), max_size=5),
    moved=st.sets(st.integers(0, 5), max_size=5),
)
def test_layers_come_go_move_and_stay(tmp_path_factory, old, new, moved):
    folder = tmp_path_factory.mktemp("layers")

    def encodings(numbers, changed):
        keys = [(number, f"fc{number}:linear#0:weight") for number in sorted(numbers)]
        integers = {key: np.full((2, 4), 3 if number in changed else 1, np.int32) for number, key in keys}
        return Encodings({key: affine(0.5) for _, key in keys}, integers)

    found = changes.compare(held(folder, 1, encodings(old, ())), held(folder, 2, encodings(new, moved), "1.1.0"))
    told = {int(one.layer[2]): one.how for one in found.layers["litert"]}
    expected = dict.fromkeys(old - new, "gone") | dict.fromkeys(new - old, "new")
    assert told == expected | dict.fromkeys(old & new & moved, "changed")
    assert found.unchanged["litert"] == len((old & new) - moved)


@QUICK
@given(
    moves=st.lists(st.tuples(st.integers(0, 7), scales), min_size=2, max_size=5),
)
def test_what_moved_most_stands_first(tmp_path_factory, moves):
    folder = tmp_path_factory.mktemp("order")

    def side(move):
        keys = [f"fc{number}:linear#0:weight" for number in range(len(moves))]
        found = [(5 + step if move else 5, scale if move else 1.0) for step, scale in moves]
        integers = {key: np.full((2, 4), one, np.int32) for key, (one, _) in zip(keys, found, strict=True)}
        return Encodings({key: affine(scale) for key, (_, scale) in zip(keys, found, strict=True)}, integers)

    told = changes.compare(held(folder, 1, side(move=False)), held(folder, 2, side(move=True), "1.1.0")).layers
    order = [(-(one.weight or 0.0), -one.scale, one.layer) for one in told["litert"]]
    assert order == sorted(order)


def test_a_difference_as_json_is_json_and_as_lines_has_no_control_signs(tmp_path):
    hostile = "fc\x1b[2J:linear#0"
    old = held(tmp_path, 1, layer(np.zeros((2, 4), np.int32), 1.0, hostile))
    new = held(tmp_path, 2, layer(np.ones((2, 4), np.int32), 1.0, hostile), "1.1.0")
    found = changes.compare(old, new)
    assert "\x1b" not in "\n".join(found.lines())
    assert json.loads(json.dumps(found.data(), allow_nan=False))["layers"]["litert"][0]["changed"] == 8


@pytest.mark.parametrize(
    "change, said",
    [
        (LayerChange("fc", "new"), "fc: new"),
        (LayerChange("fc", "gone"), "fc: gone"),
        (
            LayerChange("fc", "changed", 1000, 12, 3, 0.015),
            "fc: weight moved by 1.50%; 12 of 1,000 integers, by up to 3",
        ),
        (LayerChange("fc", "changed", 8, 0, 0, 0.0, 0.25), "fc: weight moved by 0.00%; a scale by 25.00%"),
        (LayerChange("fc", "changed", text="weight: bits 4 instead of 8"), "fc: weight: bits 4 instead of 8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_layer_as_a_line(change, said):
    assert change.told() == said


@settings(max_examples=50)
@given(
    findings=st.sets(st.sampled_from([*sorted(INEXACT), "slower-than-float", "other"])),
    whole=st.booleans(),
    differing=st.integers(0, 2),
    compared=st.integers(0, 2),
)
def test_every_bit_is_demanded_only_where_every_bit_was_seen(findings, whole, differing, compared):
    got = exact(findings, whole=whole, differing=differing, compared=compared)
    if got:
        assert whole
        assert compared
        assert not differing
        assert not findings & INEXACT
    else:
        assert not whole or not compared or differing or findings & INEXACT


@settings(max_examples=50)
@given(name=st.text(max_size=12))
def test_no_strange_name_lies_beside_a_model(name):
    """The model: flat, of plain letters, digits, dots, dashes and underscores, and not hidden."""
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None
    said = unbundled(["m.onnx", name], runs_here=True)
    assert plain or said
    if said:
        assert said == f"{name} beside its model is no name in a bundle"
