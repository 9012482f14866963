"""Files spoiled on purpose: each ends in an error of ours, never in a crash of Python's, and soon."""

from __future__ import annotations

import json
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.errors import ConversionError, HaversackError, VerificationError
from haversack.targets.executorch import ExecuTorch, parse
from haversack.tools.formats.flat import Spoiled, Table, root

TARGET = ExecuTorch()
ON_DISK = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
KINDS = {"truncated": 0, "flipped": 1, "overwritten": 2, "swapped": 3}


@pytest.fixture(scope="module")
def good(lowered):
    """Return (artifact, bytes) of a file in int8 with convolutions, a concatenation and a pool."""
    _, _, _, artifact, path = lowered("branches")
    return artifact, path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "model.pte"


def spoiled(data, kind, at, number):
    """Return a file with one fault of a kind at about ``at``."""
    found, at = bytearray(data), at % (len(data) - 8)
    if kind == "truncated":
        del found[at:]
    elif kind == "flipped":
        found[at] ^= 1 << number % 8
    elif kind == "overwritten":
        found[at : at + 4] = struct.pack("<I", number)
    else:
        found[at : at + 4], found[at + 4 : at + 8] = found[at + 4 : at + 8], found[at : at + 4]
    return bytes(found)


EXTREMES = st.sampled_from([0, 1, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)


@ON_DISK
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 2**20), EXTREMES)
def test_no_fault_crashes_what_reads_a_file(good, place, kind, at, number):
    artifact, data = good
    place.write_bytes(spoiled(data, kind, at, number))
    try:
        found = TARGET.read(place, artifact)
        assert found.tensors
        TARGET.unfused(place, artifact)
    except VerificationError as error:
        assert str(place) in str(error)


@ON_DISK
@given(st.lists(st.tuples(st.integers(0, 2**20), EXTREMES), min_size=2, max_size=40))
def test_many_faults_at_once(good, place, faults):
    artifact, data = good
    for at, number in faults:
        data = spoiled(data, "overwritten", at & ~3, number)
    place.write_bytes(data)
    try:
        parse.parse(place)
        TARGET.read(place, artifact)
    except VerificationError as error:
        assert str(place) in str(error)


def test_every_word_of_the_structure_as_nowhere(good, place):
    """0xFFFFFFFF is an offset that is too long, a length that is too long, and an id that says "no value"."""
    artifact, data = good
    structure = range(0, min(len(data), 12000) - 4, 4)
    begun, refused = time.monotonic(), 0
    for at in list(structure)[:: max(1, len(structure) // 400)]:
        place.write_bytes(spoiled(data, "overwritten", at, 2**32 - 1))
        try:
            TARGET.read(place, artifact)
        except VerificationError:
            refused += 1
    assert refused > 40
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 31, 32, 100])
def test_a_file_cut_short_is_not_opened(good, place, cut):
    place.write_bytes(good[1][:cut])
    with pytest.raises(ConversionError, match="does not open"):
        TARGET.open_session(place)


def about(data, text):
    """Return a file that says something else about itself, in the room that is there."""
    start = data.index(b'{"alone"')
    (size,) = struct.unpack_from("<I", data, start - 4)
    assert len(text) <= size
    return data[: start - 4] + struct.pack("<I", len(text)) + text.ljust(size, b" ") + data[start + size :]


BAD_WORDS = {
    "not JSON": b"{",
    "no object": b"[1]",
    "an empty string": b"",
    "layers as a list": b'{"layers":["a"]}',
    "layers that are numbers": b'{"layers":{"0/1":7}}',
    "layers at no place": b'{"layers":{"nonsense":"a"}}',
    "half a character": b'{"layers":{"0/1":"\xc3"}}',
}


@pytest.mark.parametrize("name", BAD_WORDS)
def test_what_a_file_says_about_itself_is_not_believed(good, place, name):
    artifact, data = good
    place.write_bytes(about(data, BAD_WORDS[name]))
    with pytest.raises(VerificationError, match="not a .pte file that we have written"):
        TARGET.read(place, artifact)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"format":' + b"9" * 10_000 + b"}"])
def test_json_that_python_gives_up_on(text):
    with pytest.raises(Spoiled, match="no JSON"):
        parse.told(text.decode())


BAD_PORTS = {
    "none": {},
    "no list": {"inputs": 5, "outputs": []},
    "no triple": {"inputs": [["x", [1]]], "outputs": []},
    "no shape": {"inputs": [["x", 3, "float32"]], "outputs": []},
    "no inputs": {"inputs": [], "outputs": []},
    "null": {"inputs": None, "outputs": None},
}


@pytest.mark.parametrize("name", BAD_PORTS)
def test_an_interface_that_is_not_told_as_we_write_it(good, lowered, place, name):
    artifact, data = good
    place.write_bytes(about(data, json.dumps({"layers": {}} | BAD_PORTS[name]).encode()))
    with pytest.raises(ConversionError, match="does not open"):
        TARGET.open_session(place)
    sample = lowered("branches")[1]
    for look in (
        lambda: TARGET.layer_seconds(place, artifact, sample, 1),
        lambda: TARGET.tensors(place, artifact, sample, list(artifact.tensor_names)),
    ):
        with pytest.raises(VerificationError, match="told as we write them"):
            look()


@pytest.mark.parametrize("where", ["9/0", "0/99999", "nonsense", "0/", "/0", "-1/0", "0/" + "9" * 5000])
def test_a_place_that_the_file_does_not_have(lowered, where):
    import dataclasses

    _, sample, _, artifact, path = lowered("branches")
    key = next(iter(artifact.tensor_names))
    wrong = dataclasses.replace(artifact, tensor_names={key: where})
    with pytest.raises(HaversackError, match=r"no value|no place|not as it was written"):
        TARGET.read(path, wrong)
    with pytest.raises(VerificationError, match=r"no value|no place"):
        TARGET.tensors(path, wrong, sample, [key])


def test_delegates_that_share_their_bytes_are_refused(good, place, monkeypatch):
    """One delegate is as long as the file at most: many that name the same bytes would be parsed without end."""
    _, data = good
    program = root(data, b"ET12")
    (plan,) = [plan for plan in program.tables(1) if plan.text(0) == "forward"]
    (delegate,) = plan.tables(7)
    monkeypatch.setattr(Table, "tables", lambda self, slot: _many(self, slot, plan, delegate))
    place.write_bytes(data)
    with pytest.raises(VerificationError, match="delegates overlap"):
        parse.parse(place)


_tables = Table.tables


def _many(table, slot, plan, delegate):
    return (delegate,) * 500 if (table.at, slot) == (plan.at, 7) else _tables(table, slot)
