"""Updates of a real home from a real repository: what is installed, what travels, what stays."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from shop import WIDTH, Shop, X, model, outputs, tried_here

from haversack.base.errors import EnvironmentFault, Refused, UsageError, VerificationError
from haversack.deliver.bandwidth import Allowed
from haversack.deliver.conditions import Readings
from haversack.deliver.home import Home
from haversack.deliver.update import Device
from haversack.flow.client import Client
from haversack.tools.store import atomic
from haversack.tools.trust import wrap


@pytest.fixture
def client(shop, tmp_path):
    return Client(tmp_path / "home", shop.url, shop.root, test=tried_here, tune=None)


@pytest.fixture
def careful(shop, tmp_path):
    """A client with the self-test in a child, as it is in use."""
    return Client(tmp_path / "home", shop.url, shop.root, tune=None)


def says(model_):
    return round(float(np.asarray(model_(X))[0, 0]), 3)


def asked(client):
    with client.open("digits", follow=False) as opened:
        return says(opened)


def test_a_first_install_and_a_delta(shop, careful):
    events = []
    careful._sink = events.append
    first = careful.update("digits")
    assert (first.action, first.installed.version, first.before) == ("installed", "1.0.0", None)
    assert first.verdict.vectors == 1
    assert asked(careful) == 1.0
    shop.publish("1.1.0", 2.0)
    second = careful.update("digits")
    assert (second.action, second.installed.version, second.before.version) == ("installed", "1.1.0", "1.0.0")
    assert second.forms["onnxruntime.onnx"] == "bsdiff"
    assert second.bytes < first.bytes / 2
    assert second.verdict.ratio > 0
    assert asked(careful) == 2.0
    third = careful.update("digits")
    assert (third.action, third.bytes) == ("current", 0)
    assert any(event.kind == "start" and "forecast_seconds" in event.data for event in events)
    assert [event.text for event in events if event.kind == "done" and event.stage == "deliver"] == [
        "digits 1.0.0 is in use",
        "digits 1.1.0 is in use",
    ]


def test_what_lies_in_a_home(shop, client, tmp_path):
    client.update("digits")
    home = tmp_path / "home"
    slot = home / "lines" / "digits" / "a"
    names = ["labels.txt", "manifest.json", "onnxruntime.golden.npz", "onnxruntime.json", "onnxruntime.onnx"]
    assert sorted(path.name for path in slot.iterdir()) == names
    assert all(path.stat().st_nlink == 2 for path in slot.iterdir())
    assert json.loads((home / "lines" / "digits" / "current").read_text())["current"]["sequence"] == 1
    assert json.loads((home / "floor.json").read_text())["sequences"] == {"digits": 1}
    assert list((home / "incoming").rglob("*.part")) == []
    shop.publish("1.1.0", 2.0)
    client.update("digits")
    assert sorted(path.name for path in (home / "lines" / "digits").iterdir()) == ["a", "b", "current", "lock"]
    assert slot.stat().st_ino  # the old one is the way back
    assert client.status().lines_held[0].pointer.other.version == "1.0.0"


def test_what_another_process_writes_is_not_tidied_away(client, tmp_path):
    """Rollback, retry, tuning and enrolment write into home and line while another process updates."""
    client.update("digits")
    for folder in (tmp_path / "home", tmp_path / "home" / "lines" / "digits"):
        with atomic.replacing(folder / "written.json") as stream:
            stream.write(b"{}")
            assert client.update("digits").action == "current"
        assert (folder / "written.json").read_bytes() == b"{}"
        left = folder / f".written.json.{_dead()}-0123456789ab.part"
        left.write_bytes(b"{")
        client.update("digits")
        assert not left.exists()


def _dead():
    """Return the number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_release_may_be_skipped(shop, client):
    client.update("digits")
    for number in range(1, 6):
        shop.publish(f"1.{number}.0", 1.0 + number)
    done = client.update("digits")
    assert done.installed.sequence == 6
    assert done.forms["onnxruntime.onnx"] in {"download", "plain"}  # deltas begin from the last three only
    assert asked(client) == 6.0


def test_rolling_back(shop, client):
    client.update("digits")
    with pytest.raises(EnvironmentFault, match="no other model"):
        client.rollback("digits")
    shop.publish("1.1.0", 2.0)
    client.update("digits")
    assert client.rollback("digits").version == "1.0.0"
    assert asked(client) == 1.0
    again = client.update("digits")
    assert (again.action, again.installed.version) == ("quarantined", "1.0.0")
    assert "rolled back by hand" in again.reason
    shop.publish("1.2.0", 3.0)
    assert client.update("digits").installed.version == "1.2.0"
    assert asked(client) == 3.0


@pytest.mark.parametrize(
    "bad, cause",
    [
        ({"golden": outputs(7.0)}, "relative error"),
        ({"data": b"\x08\x0a" + bytes(5000)}, "onnxruntime.onnx"),
        ({"data": model(float("nan"))}, "NaN"),
        ({"golden": outputs(2.0)[:, : WIDTH - 1]}, "instead of"),
        ({"golden": outputs(math.inf)}, "1 of its 400 values are NaN or infinite, and prove nothing"),
    ],
    ids=["wrong answers", "no model", "NaN", "shape", "golden of no numbers"],
)
def test_a_bad_release_is_quarantined_and_the_old_one_stays(shop, careful, bad, cause):
    careful.update("digits")
    shop.publish("1.1.0", 2.0, **bad)
    with pytest.raises(
        VerificationError, match="failed its self-test and is quarantined; 1.0.0 stays in use"
    ) as caught:
        careful.update("digits")
    assert caught.value.exit_code == 5
    assert cause in str(caught.value)
    assert asked(careful) == 1.0
    again = careful.update("digits")
    assert again.action == "quarantined"
    assert again.bytes == 0
    shop.publish("1.1.1", 3.0)
    assert careful.update("digits").installed.version == "1.1.1"


def test_a_bad_release_costs_no_way_back(shop, careful):
    careful.update("digits")
    shop.publish("1.1.0", 2.0)
    careful.update("digits")
    shop.publish("1.2.0", 3.0, golden=outputs(9.0))
    with pytest.raises(VerificationError, match="1.1.0 stays in use"):
        careful.update("digits")
    assert careful.rollback("digits").version == "1.0.0"
    assert asked(careful) == 1.0


def test_a_slower_model_is_refused(shop, client, monkeypatch):
    from haversack.deliver import update

    def slow(trial, last):
        from haversack.deliver.selftest import Demands, tried

        return tried(trial, last, Demands(slowest=1e-6, noise_ms=-1e9))

    client.update("digits")
    shop.publish("1.1.0", 2.0)
    with pytest.raises(VerificationError, match="times as long as the last model's"):
        update.update("digits", client._offer(str(shop.url)), client.device, test=slow)
    assert asked(client) == 1.0


def test_a_dead_repository_and_an_expired_one_stop_nothing(tmp_path, client, shop):
    client.update("digits")
    dead = Client(tmp_path / "home", "http://127.0.0.1:9/", shop.root)
    with pytest.raises(EnvironmentFault):
        dead.update("digits")
    assert asked(dead) == 1.0
    remembered = Client(tmp_path / "home", tune=None)  # a mistyped address does not take a good one's place
    assert remembered.update("digits").action == "current"
    old = Shop.create(tmp_path / "old", datetime.now(UTC) - timedelta(days=30))
    old.publish("1.0.0", 5.0)
    stale = Client(tmp_path / "stale", old.url, old.root, tune=None)
    with pytest.raises(EnvironmentFault, match="expired"):
        stale.update("digits")


def test_no_trust_on_first_use(tmp_path, shop):
    with pytest.raises(UsageError, match="whom to believe") as caught:
        Client(tmp_path / "home", shop.url).update("digits")
    assert "--root" in caught.value.next_step
    other = Shop.create(tmp_path / "other")
    Client(tmp_path / "home", shop.url, shop.root, test=tried_here, tune=None).update("digits")
    assert Client(tmp_path / "home", tune=None).update("digits").action == "current"
    with pytest.raises(Refused, match="other root metadata"):
        Client(tmp_path / "home", shop.url, other.root).update("digits")
    with pytest.raises(Refused):
        Client(tmp_path / "new", shop.url, other.root).update("digits")


def set_back(shop, client, tmp_path):
    """Bring a device to a second release, wipe its cache, and return a repository as it was before that release."""
    client.update("digits")
    kept = tmp_path / "kept"
    shutil.copytree(shop.site.root, kept)
    shop.publish("1.1.0", 2.0)
    client.update("digits")
    shutil.rmtree(tmp_path / "home" / "trust")
    return kept


def test_a_repository_that_is_set_back_is_refused_by_a_wiped_cache(shop, client, tmp_path):
    kept = set_back(shop, client, tmp_path)
    with pytest.raises(Refused, match="sequence 1, and 2 was seen"):
        Client(tmp_path / "home", kept).update("digits")
    assert asked(client) == 2.0


def test_an_encrypted_release(shop, client, tmp_path):
    shop.publish("1.1.0", 2.0, encrypt=True)
    with pytest.raises(UsageError, match="no key"):
        client.update("digits")
    device = client.enrol("kitchen")
    assert device.name == "kitchen"
    with pytest.raises(EnvironmentFault, match="not given to this device") as caught:
        client.update("digits")
    assert "device.pub" in caught.value.next_step
    public = wrap.device_of((tmp_path / "home" / "device.pub").read_bytes())
    shop.publish("1.2.0", 3.0, encrypt=True, devices=(public,))
    assert client.update("digits").installed.version == "1.2.0"
    assert asked(client) == 3.0
    shop.publish("1.3.0", 4.0, encrypt=True, devices=(public,))
    assert client.update("digits").forms["onnxruntime.onnx"] == "bsdiff"
    assert asked(client) == 4.0
    assert not list((tmp_path / "home" / "incoming").rglob("*.opened"))


class Held:
    """Conditions that are told."""

    def __init__(self, **told):
        self.told = Readings(**told)

    def read(self, home):
        return self.told


def test_conditions_that_do_not_hold_are_waited_for(shop, client, tmp_path):
    device = Device(Home(tmp_path / "home"), ("onnxruntime",), when=("charging", "unmetered"))
    client.device = replace(device, conditions=Held(charging=False))
    done = client.update("digits")
    assert (done.action, done.installed, done.bytes) == ("waiting", None, 0)
    assert "charging: it runs on its battery" in done.reason
    assert "unmetered: this device does not tell" in done.reason
    client.device = replace(device, conditions=Held(charging=True, unmetered=True))
    assert client.update("digits").action == "installed"
    client.device = replace(device, when=("moonlight",))
    with pytest.raises(UsageError, match="moonlight"):
        client.update("digits")


def test_an_update_that_costs_too_much_waits(shop, client):
    client.device = replace(client.device, allowed=Allowed(bytes=1000))
    done = client.update("digits")
    assert done.action == "waiting"
    assert "more than is allowed" in done.reason
    client.device = replace(client.device, allowed=Allowed(bytes=100_000, seconds=60))
    assert client.update("digits").action == "installed"


def test_and_asks_nothing_about_the_line_where_no_way_is_cheap_enough(shop, client):
    import onnx

    large = onnx.load_from_string(model(2.0))
    large.metadata_props.add(key="noise", value=np.random.default_rng(0).bytes(90_000).hex())
    client.update("digits")
    shop.publish("1.1.0", 2.0, data=large.SerializeToString())
    client.device = replace(client.device, allowed=Allowed(bytes=1000))
    done = client.update("digits")
    assert (done.action, "probe" in done.seconds) == ("waiting", False)
    assert done.bytes < 10_000  # the manifest
    client.device = replace(client.device, allowed=Allowed(bytes=10_000_000))
    done = client.update("digits")
    assert (done.action, "probe" in done.seconds) == ("installed", True)


def test_a_device_without_the_runtime(shop, client):
    client.device = replace(client.device, targets=("litert",))
    with pytest.raises(EnvironmentFault, match="made for onnxruntime, and this device runs litert"):
        client.update("digits")


def test_a_delta_of_no_use_is_replaced_by_the_whole_file(shop, client, tmp_path):
    """A blob that is signed and yields another file: the publisher erred."""
    client.update("digits")
    shop.publish("1.1.0", 2.0, deltas=lambda old, new: ("bsdiff", b"BSDIFF40" + bytes(40)))
    events = []
    client._sink = events.append
    done = client.update("digits")
    assert done.action == "installed"
    assert done.forms["onnxruntime.onnx"] in {"download", "plain"}
    assert any("its delta is of no use" in event.text for event in events)
    assert asked(client) == 2.0


def test_a_damaged_base_is_no_base(shop, client, tmp_path):
    client.update("digits")
    shop.publish("1.1.0", 2.0)
    path = tmp_path / "home" / "lines" / "digits" / "a" / "onnxruntime.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = client.update("digits")
    assert done.forms["onnxruntime.onnx"] in {"download", "plain"}
    assert asked(client) == 2.0


def test_a_blob_that_was_changed_on_the_way_is_refused(shop, client, tmp_path):
    client.update("digits")
    out = shop.publish("1.1.0", 2.0)
    for file in out.release.files:
        for blob in file.blobs:
            path = shop.site.root / blob.path
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Refused):
        client.update("digits")
    assert asked(client) == 1.0
    assert list((tmp_path / "home" / "incoming").rglob("*.part")) == []


def test_a_quota_that_does_not_do(shop, client):
    client.device = replace(client.device, quota=5000)
    with pytest.raises(EnvironmentFault, match="quota"):
        client.update("digits")


def test_the_store_forgets_what_no_slot_uses(shop, client, tmp_path):
    client.update("digits")
    for number in range(1, 5):
        shop.publish(f"1.{number}.0", 1.0 + number)
        client.update("digits")
    held = client.status().store_bytes
    used = sum(path.stat().st_size for slot in "ab" for path in (tmp_path / f"home/lines/digits/{slot}").iterdir())
    assert held > used
    client.device = replace(client.device, quota=held - 1)
    shop.publish("1.9.0", 9.0)
    client.update("digits")
    assert client.status().store_bytes < held
    assert asked(client) == 9.0


def test_a_release_that_failed_leaves_its_room_to_the_next(shop, client, tmp_path):
    """In a store with room for three releases: the two in the slots, and one that comes."""
    client.update("digits")
    one = sum(path.stat().st_size for path in (tmp_path / "home" / "lines" / "digits" / "a").iterdir())
    client.device = replace(client.device, quota=int(3.6 * one))
    shop.publish("1.1.0", 2.0, deltas=None)
    client.update("digits")
    shop.publish("1.2.0", 3.0, golden=outputs(9.0), deltas=None)
    with pytest.raises(VerificationError):
        client.update("digits")
    assert not (tmp_path / "home" / "lines" / "digits" / "next").exists()
    shop.publish("1.3.0", 4.0, deltas=None)
    assert client.update("digits").installed.version == "1.3.0"
    assert asked(client) == 4.0


@pytest.mark.parametrize("line", ["digits", "words"])
def test_what_a_killed_update_staged_is_cleared_before_room_is_made(shop, client, tmp_path, line):
    client.update("digits")
    staged = tmp_path / "home" / "lines" / line / "next"
    staged.mkdir(parents=True)
    (staged / "onnxruntime.onnx").hardlink_to(tmp_path / "home" / "lines" / "digits" / "a" / "onnxruntime.onnx")
    others = tmp_path / "home" / "lines" / "No line" / "next"
    others.mkdir(parents=True)
    assert client.update("digits").action == "current"
    assert not staged.exists()
    assert others.exists()
    assert asked(client) == 1.0


def test_a_damaged_pointer_lets_no_older_release_in(shop, client, tmp_path):
    kept = set_back(shop, client, tmp_path)
    (tmp_path / "home" / "lines" / "digits" / "current").write_bytes(b"x")
    with pytest.raises(Refused, match="sequence 1, and 2 was seen"):
        Client(tmp_path / "home", kept, test=tried_here, tune=None).update("digits")
    assert asked(client) == 2.0
    assert client.update("digits").installed.version == "1.1.0"


@pytest.mark.parametrize("line", ["../x", "", "a/b", "A", "."])
def test_a_line_is_no_path(client, line):
    with pytest.raises(UsageError, match="no name of a model line"):
        client.update(line)
    with pytest.raises(UsageError):
        client.open(line)
    with pytest.raises(UsageError):
        client.rollback(line)


def test_nothing_is_installed(client):
    with pytest.raises(EnvironmentFault, match="nothing is installed"):
        client.open("digits")
    assert client.status().lines()[0] == "nothing is installed"


def test_two_lines(shop, client):
    shop.publish("1.0.0", 8.0, line="words")
    client.update("digits")
    client.update("words")
    with client.open("words") as words, client.open("digits") as digits:
        assert (says(words), says(digits)) == (8.0, 1.0)
    assert [one.line for one in client.status().lines_held] == ["digits", "words"]


@pytest.mark.parametrize("content", [b"", b"x", b'{"format":1,"releases":null}\n'])
def test_a_damaged_list_of_what_was_set_aside_stops_no_way_back_and_no_update(shop, client, tmp_path, content):
    client.update("digits")
    shop.publish("1.1.0", 2.0)
    client.update("digits")
    path = tmp_path / "home" / "lines" / "digits" / "quarantine.json"
    path.write_bytes(content)
    (fault,) = client.status().lines_held[0].damage
    assert "; next: haversack client retry digits " in fault.cause
    assert client.rollback("digits", "worse").version == "1.0.0"
    assert [bad.version for bad in client.status().lines_held[0].quarantined] == ["1.1.0"]
    path.write_bytes(content)
    events = []
    client._sink = events.append
    assert client.update("digits").installed.version == "1.1.0"
    assert any("is not known any more" in event.text for event in events)
    assert asked(client) == 2.0
    assert client.retry("digits") == ()
    assert client.status().lines_held[0].quarantined == ()
