"""The page of the format: its bundle is one, its reader reads what we write, its operations and bounds are ours."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from haversack.base import bundle as records
from haversack.base.provenance import Provenance
from haversack.flow import bundle as flow
from haversack.tools.data.preprocess import Pipeline
from haversack.tools.trust import content
from haversack.tools.trust.bundle import open_bundle
from haversack.tools.trust.canonical import DEEPEST, dumps

PAGE = (Path(__file__).parents[2] / "docs" / "spec" / "bundle.md").read_text(encoding="utf-8")
LISTED = re.findall(r"\n`([a-z.]+)`, (\d+) bytes, sha256 `([0-9a-f]{64})`:\n\n```text\n(.*?)```", PAGE, re.DOTALL)
VECTORS = re.search(r"```text\n(\[\{\"op\".*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture
def tiny(tmp_path):
    """The page's bundle."""
    folder = tmp_path / "tiny-1.0.0.haversack"
    folder.mkdir()
    for name, size, sha256, text in LISTED:
        data = text.encode() if name.endswith((".json", ".txt")) else bytes.fromhex(text.replace("\n", ""))
        assert len(data) == int(size), name
        assert hashlib.sha256(data).hexdigest() == sha256, name
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def read():
    """The page's reader."""
    names: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], names)
    return names["read"]


def test_the_pages_bundle_is_one(tiny):
    assert len(LISTED) == 6
    found = open_bundle(tiny)
    assert (found.manifest.name, found.manifest.version) == ("tiny", "1.0.0")
    assert found.labels == ("left", "right")
    assert found.preprocess == ({"op": "scale", "input": 0, "factor": 0.5, "offset": 0.0},)
    for name in ("manifest.json", "onnxruntime.json", "preprocess.json"):
        data = (tiny / name).read_bytes()
        assert dumps(json.loads(data)) == data
    assert dumps(found.manifest) == (tiny / "manifest.json").read_bytes()
    assert dumps(found.artifacts["onnxruntime"]) == (tiny / "onnxruntime.json").read_bytes()


def test_its_golden_vector_is_what_the_runtime_gives(tiny):
    answer = flow.verify(tiny)
    assert answer.exit_code == 0, answer.lines()
    assert answer.checks[-1].text == "1 vectors in the runtime, bit for bit"


def test_the_pages_reader_reads_it(tiny, read):
    manifest, artifact, found = read(tiny, "onnxruntime")
    assert manifest["name"] == "tiny"
    assert artifact["inputs"][0]["name"] == "x"
    assert set(found) == {"labels", "golden", "artifact", "model", "preprocess"}


def test_the_pages_reader_reads_what_we_write(made, read):
    found = made()
    for target in ("litert", "second"):
        manifest, artifact, _ = read(found.folder, target)
        assert manifest["version"] == "1.0.0"
        assert artifact["target"] == target


@pytest.mark.parametrize("name", [one[0] for one in LISTED])
def test_the_pages_reader_refuses_what_was_spoiled(tiny, read, name):
    data = bytearray((tiny / name).read_bytes())
    data[-2] ^= 1
    (tiny / name).write_bytes(data)
    with pytest.raises((AssertionError, ValueError, KeyError)):
        read(tiny, "onnxruntime")


def test_the_vectors_of_operations_are_ours():
    reader, at, seen = json.JSONDecoder(), 0, set()
    while at < len(VECTORS.rstrip()):
        (operation, given, wanted), at = reader.raw_decode(VECTORS, at)
        at += 1
        array = np.array(given[2], given[0]).reshape(given[1])
        (found,) = Pipeline.parse([operation])((array,))
        assert (found.dtype.name, list(found.shape)) == (wanted[0], wanted[1]), operation
        assert found.ravel().tolist() == np.array(wanted[2], wanted[0]).tolist(), operation
        assert set(operation) - {"op"} == set(Pipeline.parse([operation]).data()[0]) - {"op", "input"}, "all settings"
        seen.add(operation["op"])
    assert seen == records.OPERATIONS


# The page's words, followed by hand


def resized(line: list[float], wanted: int, *, whole: bool) -> list[float]:
    length = len(line)
    if length == wanted:
        return line
    ratio = length / wanted
    support = max(ratio, 1.0)
    out = []
    for i in range(wanted):
        centre = (i + 0.5) * ratio
        first, stop = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), length)
        taps = range(first, first + 2 * math.ceil(support) + 1)
        weights = [max(1 - abs(j + 0.5 - centre) / support, 0) if j < stop else 0.0 for j in taps]
        total = sum(weights)
        weights = [weight / total for weight in weights]
        pixels = [line[min(j, length - 1)] for j in taps]
        if whole:
            summed = sum(math.floor(w * 2**22 + 0.5) * int(p) for w, p in zip(weights, pixels, strict=True))
            out.append(min(max((summed + 2**21) >> 22, 0), 255))
        else:
            out.append(float(np.float32(sum(w * p for w, p in zip(weights, pixels, strict=True)))))
    return out


IMAGES = arrays.arrays(np.uint8, st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9), st.just(1)))


@settings(max_examples=50)
@given(IMAGES, st.integers(1, 7), st.integers(1, 7), st.booleans())
def test_resize_as_the_page_says(image, height, width, whole):
    image = image if whole else image.astype(np.float32) / 7
    rows = [resized(list(row), width, whole=whole) for row in image[0, :, :, 0].tolist()]
    columns = [resized(list(column), height, whole=whole) for column in zip(*rows, strict=True)]
    wanted = np.array(columns).T
    found = Pipeline.parse([{"op": "resize", "height": height, "width": width}])((image,))[0][0, :, :, 0]
    np.testing.assert_array_equal(found, wanted.astype(found.dtype))


def blurred(line: list[float], sigma: float) -> list[float]:
    radius = math.ceil(4 * sigma)
    g = [math.exp(-0.5 * (d / sigma) ** 2) for d in range(1, radius + 1)]
    side = [math.floor(one / (1 + 2 * sum(g)) * 2**22 + 0.5) / 2**22 for one in g]
    weights = [*reversed(side), 1 - 2 * sum(side), *side]

    def mirrored(place: int) -> float:
        place %= 2 * len(line)
        return line[place if place < len(line) else 2 * len(line) - 1 - place]

    return [sum(w * mirrored(i + k - radius) for k, w in enumerate(weights)) for i in range(len(line))]


@settings(max_examples=50)
@given(IMAGES, st.floats(0.1, 3.0))
def test_blur_as_the_page_says(image, sigma):
    rows = [blurred(row, sigma) for row in image[0, :, :, 0].astype(float).tolist()]
    columns = [blurred(list(column), sigma) for column in zip(*rows, strict=True)]
    wanted = np.clip(np.rint(np.array(columns).T), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(Pipeline.parse([{"op": "blur", "sigma": sigma}])((image,))[0][0, :, :, 0], wanted)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_reals_are_written_as_the_page_says(value):
    text = dumps([value]).decode().strip()[1:-1]
    assert float(text) == value
    assert re.fullmatch(r"-?[0-9]+\.[0-9]+|-?[0-9](\.[0-9]+)?e[+-][0-9]{2,3}", text), text
    small = 0 < abs(value) < 1e-4
    assert ("e" in text) == (small or abs(value) >= 1e16)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_texts_are_written_as_the_page_says(text):
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    wanted = ""
    for one in text:
        units = one.encode("utf-16-be")
        escaped = "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
        wanted += short.get(one) or (one if " " <= one <= "~" else escaped)
    assert dumps([text]).decode() == f'["{wanted}"]\n'


def test_the_pages_bounds_are_ours():
    assert records.NAME.pattern in PAGE
    assert records.TARGET.pattern in PAGE
    assert records.LINE.pattern in PAGE
    assert f"{records.MOST_FILES + 1:,} entries" in PAGE
    assert f"at most {DEEPEST} deep" in PAGE
    assert records.LARGEST_MANIFEST == 4 << 20
    for role, most in records.LIMITS.items():
        (row,) = re.findall(rf"\n\| `{role}` \|.*\| (\d+) MiB \|", PAGE)
        assert int(row) << 20 == most, role
    assert records.LARGEST == 1 << 40
    assert content.LARGEST_ONNX == 2 << 30
    for name in records.FIGURES | records.OPERATIONS | set(vars(Provenance(1, "", {}, {}, {}, {}))):
        assert f"`{name}`" in PAGE, name
    for ending, (at, mark) in content.MARKS.items():
        assert f"`.{ending}`" in PAGE
        assert f"`{mark.decode()}` at byte {at}" in PAGE
