"""A device's side in peace: what it asks for, what it keeps, what it remembers; and the first root."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sites import BEGIN, Memory, Site, files, later
from tuf.api.metadata import Metadata

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.base.release import Blob, Encryption, Release, ReleaseFile
from haversack.deliver.metadata import OWNER, first_root, newest_root, roots
from haversack.deliver.rotation import rotate, sequence
from haversack.deliver.trusted import LARGEST_ROOT, LARGEST_SNAPSHOT, LARGEST_TARGETS, LARGEST_TIMESTAMP, Missing
from haversack.tools.trust import canonical, keys


def noted(site: Site) -> tuple[list[str], object]:
    asked: list[str] = []
    plain = files(site.root)

    def fetch(path: str):
        asked.append(path)
        return plain(path)

    return asked, fetch


def test_a_new_device_asks_for_what_it_needs_and_no_more(published):
    published.publish("1.0.0", "words")
    asked, fetch = noted(published)
    release = published.device(fetch=fetch).release("digits")
    target = next((published.root / "targets" / "digits").glob("*.1.1.0.json")).name
    assert asked == [
        "metadata/2.root.json",
        "metadata/timestamp.json",
        "metadata/4.snapshot.json",
        "metadata/3.targets.json",
        "metadata/2.digits.json",
        f"targets/digits/{target}",
    ]
    assert release.version == "1.1.0"


def test_what_did_not_change_is_not_fetched_again(published):
    published.device().release("digits")
    asked, fetch = noted(published)
    published.device(fetch=fetch).release("digits")
    assert asked == ["metadata/2.root.json", "metadata/timestamp.json"]
    published.publish("1.0.0", "words")
    published.device(fetch=fetch).release("digits")
    assert asked[2:] == [
        "metadata/2.root.json",
        "metadata/timestamp.json",
        "metadata/4.snapshot.json",
        "metadata/3.targets.json",
    ]


def test_lines_share_a_cache(published):
    published.publish("3.0.0", "words")
    device = published.device()
    for _ in range(2):
        assert device.release("digits").version == "1.1.0"
        assert device.release("words").version == "3.0.0"


def test_refresh_and_targets_by_name(published):
    device = published.device()
    device.refresh()
    data = device.target("digits/1.0.0.json", 1 << 20)
    assert canonical.loads(data, Release, where="", limit=1 << 20).version == "1.0.0"
    with pytest.raises(Refused, match="nobody signed"):
        device.target("digits/7.0.0.json", 1 << 20)
    with pytest.raises(Refused, match="9 are allowed"):
        device.target("digits/1.0.0.json", 9)


def test_floors_only_rise(published):
    memory = Memory({"digits": 1, "words": 5}, 10.0)
    published.device(memory=memory).release("digits")
    assert memory.lines == {"digits": 2, "words": 5}
    assert memory.seconds == BEGIN.timestamp()
    ahead = Memory({}, BEGIN.timestamp() + 3600)
    published.device(memory=ahead).release("digits")
    assert ahead.seconds == BEGIN.timestamp() + 3600


def test_a_floor_above_the_release_is_kept(published):
    memory = Memory({"digits": 3})
    with pytest.raises(Refused, match="sequence 2, and 3 was seen"):
        published.device(memory=memory).release("digits")
    assert memory.lines == {"digits": 3}


def test_a_network_that_breaks_off_leaves_a_device_as_it_was(published):
    """At every file, after half of its bytes; then it works again."""
    for number in range(6):
        count = [0]
        plain = files(published.root)

        def broken(path: str, number=number, count=count, plain=plain):
            (data,) = plain(path)
            count[0] += 1
            if count[0] > number:
                yield data[: len(data) // 2]
                raise EnvironmentFault("the connection broke", where=path)
            yield data

        device = published.device(f"device{number}", fetch=broken)
        if number < 5:
            with pytest.raises(EnvironmentFault, match="broke"):
                device.release("digits")
        assert later(device, fetch=files(published.root)).release("digits").version == "1.1.0"


def test_pieces_of_any_size_are_one_file(published):
    plain = files(published.root)

    def dribble(path: str):
        (data,) = plain(path)
        yield from (data[start : start + 7] for start in range(0, len(data), 7))
        yield b""

    assert published.device(fetch=dribble).release("digits").version == "1.1.0"


def test_a_truncated_file_is_refused(published):
    for path in ("metadata/timestamp.json", "metadata/3.snapshot.json", "metadata/2.targets.json"):
        cut = files(published.root, lambda asked, data, path=path: data[:-1] if asked == path else data)
        with pytest.raises(Refused):
            published.device(fetch=cut).release("digits")


def test_devices_read_while_one_publishes(published):
    """Ten releases are published; three devices always find one, and never an older one than before."""
    stop, seen, failed = threading.Event(), [[], [], []], []

    def follow(number: int) -> None:
        device = published.device(f"follower{number}")
        while not stop.is_set():
            try:
                seen[number].append(device.release("digits").sequence)
            except (Refused, EnvironmentFault) as error:
                failed.append(error)
                return

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10):
        published.publish(f"2.{number}.0")
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert all(sequences == sorted(sequences) for sequences in seen)
    assert all(sequences for sequences in seen)


def test_bounds_hold_what_a_large_repository_has(published):
    """A thousand releases of a line, a thousand lines in the snapshot, and twenty keys fit."""
    state = published.repository.state()
    per_release = len(json.dumps(state.lines["digits"].signed.to_dict())) / 2
    assert per_release * 1000 < LARGEST_TARGETS
    assert len(state.snapshot.to_bytes()) * 1000 < LARGEST_SNAPSHOT * 2
    assert len(state.root.to_bytes()) * 3 < LARGEST_ROOT
    assert len(state.timestamp.to_bytes()) * 3 < LARGEST_TIMESTAMP


def test_no_such_file_is_an_error_of_the_environment():
    assert issubclass(Missing, EnvironmentFault)
    assert Missing("x").exit_code == 6


# The first root.


def test_the_first_root_names_three_owners(site):
    root = Metadata.from_bytes((site.keys / "1.root.json").read_bytes())
    owners = sorted(root.signed.keys[number].unrecognized_fields[OWNER] for number in root.signed.roles["root"].keyids)
    assert owners == ["root-1", "root-2", "root-3"]
    assert len(root.signatures) == 3
    assert {role: len(found.keyids) for role, found in root.signed.roles.items()} == {
        "root": 3,
        "targets": 1,
        "snapshot": 1,
        "timestamp": 1,
    }
    assert b"PRIVATE" not in (site.keys / "1.root.json").read_bytes()


def test_the_first_root_is_the_same_for_the_same_keys(site):
    """Ed25519 signs without chance."""
    again = first_root(keys.read(site.keys), BEGIN)
    assert again == (site.keys / "1.root.json").read_bytes()


def test_the_newest_root_beside_the_keys_is_the_one_of_the_highest_number(published):
    for number in range(2, 12):
        rotate(published.repository, f"root-{number % 3 + 1}")
    found = keys.read(published.keys)
    assert list(roots(found)) == list(range(1, 12))
    assert Metadata.from_bytes(newest_root(found)).signed.version == 11
    (published.keys / "x.root.json").write_text("not a root")
    assert list(roots(found)) == list(range(1, 12))
    for path in published.keys.glob("*.root.json"):
        path.unlink()
    with pytest.raises(UsageError, match="says whom to believe"):
        newest_root(found)


@pytest.mark.parametrize(
    "custom", [None, [], "2", {}, {"sequence": None}, {"sequence": -1}, {"sequence": 1.5}], ids=str
)
def test_what_is_no_sequence_counts_as_none(custom):
    assert sequence(custom) == 0
    assert sequence({"sequence": 7}) == 7


# The signed file itself.

DIGEST = st.text(alphabet="0123456789abcdef", min_size=64, max_size=64)
BLOBS = st.builds(Blob, DIGEST, st.integers(0, 1 << 40), st.sampled_from(["plain", "download"]))
DELTAS = st.builds(Blob, DIGEST, st.integers(0, 1 << 40), st.sampled_from(["hvd1", "bsdiff"]), DIGEST)


@st.composite
def any_release(draw) -> Release:
    names = sorted(draw(st.sets(st.sampled_from(["a.onnx", "b.json", "c-d.txt", "e_f.npz"]))) | {"manifest.json"})
    made = []
    for name in names:
        blobs = (draw(BLOBS), *draw(st.lists(DELTAS, max_size=3)))
        made.append(ReleaseFile(name, "data", draw(st.integers(0, 1 << 40)), draw(DIGEST), blobs, "onnx"))
    key = draw(st.none() | st.builds(Encryption, st.just("aes-256-gcm-stream"), DIGEST))
    return Release(1, "digits", "1.2.3", draw(st.integers(1, 1 << 50)), tuple(made), key)


@given(any_release())
def test_a_release_comes_back_from_its_canonical_form(release):
    data = canonical.dumps(release)
    assert canonical.loads(data, Release, where="", limit=1 << 20) == release
    with pytest.raises(Refused):
        canonical.loads(data[:-1] + b" \n", Release, where="", limit=1 << 20)


@given(any_release(), st.data())
def test_a_release_with_any_byte_changed_is_another_or_refused(release, chosen):
    data = bytearray(canonical.dumps(release))
    place = chosen.draw(st.integers(0, len(data) - 1))
    data[place] ^= 1 << chosen.draw(st.integers(0, 7))
    try:
        found = canonical.loads(bytes(data), Release, where="", limit=1 << 20)
    except Refused:
        return
    assert found != release
