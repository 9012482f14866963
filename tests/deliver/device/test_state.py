"""What a device tells of its home, and keys of encrypted releases."""

from __future__ import annotations

import json

import pytest

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.base.release import Blob, Encryption, Release, ReleaseFile
from haversack.deliver.floor import Floor
from haversack.deliver.home import Home
from haversack.deliver.release_key import release_key
from haversack.deliver.slots import Slots
from haversack.deliver.starts import Starts
from haversack.deliver.store import Store
from haversack.deliver.trusted import Missing
from haversack.flow.device_state import state
from haversack.tools.trust import wrap

UNMEASURED = "1 thread; an update on an idle device measures which are best, or haversack run {} INPUT --tune"


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def installed(home, line, version, sequence):
    """Install a release without files."""
    slots = Slots(home.line(line))
    slots.stage({}, Store(home.store))
    slots.activate(version, sequence, "litert", 1.25)
    return slots


def test_a_home_that_is_not_there(home):
    found = state(home)
    assert found.lines() == ["nothing is installed", f"0.000 MB of files in {home.folder}"]
    assert found.data()["lines"] == []
    assert not home.folder.exists()


def test_a_home_with_two_lines(home):
    installed(home, "words", "2.0.0", 4)
    slots = installed(home, "digits", "1.0.0", 1)
    installed(home, "digits", "1.1.0", 2)
    slots.quarantine(3, "1.2.0", "it answers wrongly")
    Floor(home.floor).lift("digits", 3, 1_780_000_000.0)
    with Starts(slots.folder).marked(2):
        pass
    (slots.folder / "starts" / "2-0").write_bytes(b"\0")  # as if its process had died
    found = state(home)
    lines = [text for text in found.lines() if "damaged" not in text]  # these releases have no files
    assert lines[:4] == [
        "digits 1.1.0 (sequence 2) on litert, 1.25 ms a call",
        "  way back: 1.0.0",
        "  " + UNMEASURED.format("digits"),
        "  1 process ended while it was opened or gave its first answer",
    ]
    assert lines[4].startswith("  quarantined 1.2.0 on 20")
    assert lines[4].endswith(": it answers wrongly")
    assert lines[5] == "  an update leaves these out until you type haversack client retry digits"
    assert lines[6:9] == [
        "words 2.0.0 (sequence 4) on litert, 1.25 ms a call",
        "  no way back",
        "  " + UNMEASURED.format("words"),
    ]
    assert "metadata were signed 2026-05-28 20:26 UTC" in lines
    told = json.loads(json.dumps(found.data()))
    assert told["lines"][0]["floor"] == 3
    assert told["lines"][0]["quarantined"][0]["reason"] == "it answers wrongly"
    assert told["enrolled"] is False


def test_what_is_no_line_is_left_alone(home):
    installed(home, "digits", "1.0.0", 1)
    (home.lines / "lost+found").mkdir()
    (home.lines / "Digits").mkdir()
    assert [line.line for line in state(home).lines_held] == ["digits"]


def test_a_damaged_home_is_told(home):
    installed(home, "digits", "1.0.0", 1)
    (home.line("digits") / "current").write_text("x")
    found = state(home)
    assert found.damaged
    assert found.lines()[0] == "digits: it is not known what is in use"
    assert found.lines()[1].startswith(f"  damaged: {home.line('digits')}/current: it is no JSON")


KEY = wrap.new_key()
FILE = ReleaseFile("manifest.json", "manifest", 1, "0" * 64, (Blob("0" * 64, 1, "plain"),))
RELEASE = Release(1, "digits", "1.0.0", 1, (FILE,), Encryption("aes-256-gcm-stream", wrap.key_id(KEY)))


@pytest.fixture
def device(home):
    home.folder.mkdir()
    return wrap.create_device(home.device_key, "kitchen")


class Server:
    """Files by their paths, and how often one was asked for."""

    def __init__(self, **files):
        self.files, self.asked = dict(files), []

    def small(self, path, limit):
        self.asked.append(path)
        if path not in self.files:
            raise Missing("no such file", where=path)
        assert len(self.files[path]) <= limit
        return self.files[path]


def key_of(home, server, release=RELEASE):
    return release_key(release, home.device_key, home.release_keys, server.small)


def test_a_plain_release_has_no_key(home):
    plain = Release(1, "digits", "1.0.0", 1, (FILE,))
    assert key_of(home, Server(), plain) is None


def test_a_device_that_is_not_enrolled(home):
    with pytest.raises(UsageError, match="this device has no key") as caught:
        key_of(home, Server())
    assert "haversack client enrol" in caught.value.next_step


def test_a_key_is_fetched_once(home, device):
    path = wrap.path(wrap.key_id(KEY), device)
    server = Server(**{path: wrap.wrap(KEY, device, "digits", "1.0.0")})
    assert key_of(home, server) == KEY
    assert key_of(home, server) == KEY
    assert server.asked == [path]
    (kept,) = home.release_keys.iterdir()
    assert KEY not in kept.read_bytes()


def test_a_key_that_was_not_given_to_this_device(home, device):
    with pytest.raises(EnvironmentFault, match="was not given to this device") as caught:
        key_of(home, Server())
    assert "device.pub" in caught.value.next_step


def test_a_kept_key_that_is_damaged_is_fetched_again(home, device):
    path = wrap.path(wrap.key_id(KEY), device)
    server = Server(**{path: wrap.wrap(KEY, device, "digits", "1.0.0")})
    key_of(home, server)
    (kept,) = home.release_keys.iterdir()
    kept.write_bytes(bytes(wrap.WRAPPED_BYTES))
    assert key_of(home, server) == KEY
    assert len(server.asked) == 2


@pytest.mark.parametrize("what", ["version", "line", "key", "bytes"])
def test_a_key_of_something_else_is_refused(home, device, what):
    other = wrap.new_key()
    data = {
        "version": wrap.wrap(KEY, device, "digits", "1.0.1"),
        "line": wrap.wrap(KEY, device, "words", "1.0.0"),
        "key": wrap.wrap(other, device, "digits", "1.0.0"),
        "bytes": bytes(wrap.WRAPPED_BYTES),
    }[what]
    server = Server(**{wrap.path(wrap.key_id(KEY), device): data})
    with pytest.raises(Refused):
        key_of(home, server)
    assert not home.release_keys.exists()
