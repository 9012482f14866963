"""``keys`` and ``timestamp`` as they are typed: every role given a new key, what then counts, and what has expired."""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from commands import Told, typed
from sites import Memory, bundle, files

from haversack.base.errors import HaversackError
from haversack.deliver import repository as publisher
from haversack.deliver.repository import Repository
from haversack.deliver.storage import Folder
from haversack.deliver.trusted import Trusted
from haversack.flow import publish as flow
from haversack.tools.trust import keys

TOP = ("root-1", "root-2", "root-3", "targets", "snapshot", "timestamp")
PLACES = ("--repository", "site", "--keys", "keys")


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """Keys, and a repository with one release."""
    folder = tmp_path_factory.mktemp("first")
    bundle(folder, "1.0.0")
    assert typed("keys", "init", folder / "keys").code == 0
    place = ("--repository", folder / "site", "--keys", folder / "keys")
    assert typed("publish", folder / "digits-1.0.0.haversack", "--line", "digits", *place).code == 0
    return folder


@pytest.fixture
def home(first, tmp_path, monkeypatch) -> Path:
    """The same in a folder of its own, to work in."""
    shutil.copytree(first, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def turned(action: str, role: str, *more: str) -> Told:
    return typed("keys", action, "keys", "--role", role, "--repository", "site", *more)


def published(version: str) -> Told:
    if not Path(f"digits-{version}.haversack").exists():
        bundle(Path(), version, model=version.encode() * 99)
    return typed("publish", f"digits-{version}.haversack", "--line", "digits", *PLACES, "--json")


def released(home: Path, name: str = "device") -> str:
    """Return the version that a device with the first root finds."""
    root = (home / "keys" / "1.root.json").read_bytes()
    return Trusted(home / name, files(home / "site"), root, Memory()).release("digits").version


def at(monkeypatch, **later: float) -> datetime:
    """Let the publisher's clock be another."""
    now = publisher.utc() + timedelta(**later)
    monkeypatch.setattr(flow, "Repository", lambda storage, folder: Repository(storage, folder, lambda: now))
    return now


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_init_makes_a_key_of_every_role_that_its_owner_alone_reads(home):
    folder = home / "keys"
    for role in TOP:
        assert (folder / f"{role}.pem").stat().st_mode & 0o777 == 0o600
    assert len({(folder / f"{role}.pem").read_bytes() for role in TOP}) == len(TOP)


@pytest.mark.parametrize("role", [*TOP, "digits"])
@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_a_role_with_another_key(home, action, role):
    """Devices that know the first root go on, those that begin later too, and the publisher publishes."""
    assert released(home) == "1.0.0"
    before = content(home / "keys")
    done = turned(action, role, "--json")
    assert done.code == 0
    told = done.json
    assert told["role"] == role
    if action == "revoke" and role == "digits":
        assert told["new"] is None
        with pytest.raises(HaversackError):
            released(home)
    else:
        assert Path(told["new"]).is_file()
        assert Path(told["new"]).read_bytes() not in before.values()
        assert released(home) == "1.0.0"
    assert told["root"] == (1 if role == "digits" else 2)
    if action == "revoke":
        assert told["old"] == [f"keys/{role}.pem.revoked"]
        assert Path(told["old"][0]).read_bytes() == before[f"{role}.pem"]
        assert not Path(f"keys/{role}.pem").exists()
    assert published("1.1.0").code == 0
    assert released(home) == "1.1.0"
    assert released(home, "another device") == "1.1.0"
    assert typed("timestamp", *PLACES).code == 0


def test_keys_turned_one_after_another(home):
    """Root keys all, each once: a device that slept meanwhile walks from the first root to the last."""
    for number, role in enumerate(("root-1", "root-2", "root-3", "root-1"), 2):
        done = turned("rotate", role, "--json")
        assert (done.code, done.json["root"]) == (0, number)
        assert (home / "keys" / f"{number}.root.json").is_file()
    assert released(home) == "1.0.0"


def test_a_revoked_line_comes_back_above_its_last_sequence(home):
    assert published("1.1.0").json["sequence"] == 2
    assert turned("revoke", "digits").code == 0
    again = published("1.2.0").json
    assert again["sequence"] == 3
    assert again["new_key"]
    assert released(home) == "1.2.0"


@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_one_root_key_alone_changes_nothing(home, action):
    for role in ("root-2", "root-3"):
        Path(f"keys/{role}.pem").rename(role)
    before = content(home / "site")
    done = turned(action, "targets", "--json")
    assert done.code == done.json["exit_code"] == 2
    assert done.json["error"]["cause"]
    assert content(home / "site") == before
    assert released(home) == "1.0.0"


def test_what_signs_releases_is_not_enough_for_a_new_line(home):
    """A machine with the keys of digits, snapshot and timestamp publishes digits, and no other line."""
    for role in ("root-1", "root-2", "root-3", "targets"):
        Path(f"keys/{role}.pem").unlink()
    assert published("1.1.0").code == 0
    assert released(home) == "1.1.0"
    bundle(home, "1.0.0", "words")
    before = content(home / "site")
    done = typed("publish", "words-1.0.0.haversack", "--line", "words", *PLACES, "--json")
    assert done.code == done.json["exit_code"] == 2
    assert "targets" in done.err
    assert {name for name in content(home / "site") if name.endswith("root.json")} == {
        name for name in before if name.endswith("root.json")
    }
    assert released(home) == "1.1.0"


def test_words_of_a_new_key(home):
    said = turned("rotate", "snapshot").out.splitlines()
    assert said == [
        "snapshot has a new key, keys/snapshot.2.pem",
        "of no use any more: keys/snapshot.pem",
        "new devices may be given keys/2.root.json; others find it",
    ]
    said = turned("revoke", "digits").out.splitlines()
    assert said == [
        "the line digits is trusted no more: devices take none of its releases and go on with theirs",
        "its next release gets a new key, and devices take it again",
        "of no use any more: keys/digits.pem.revoked",
    ]


@pytest.mark.parametrize(
    "words, code, said, step",
    [
        (("init", "keys"), 2, "keys: it is not empty, and a key is never written over", ""),
        (("init", "digits-1.0.0.haversack"), 2, "it is not empty", ""),
        (
            ("init", "n", "--role", "targets"),
            2,
            "keys init takes no --role and no --repository",
            "haversack keys init n",
        ),
        (("init", "n", "--repository", "site"), 2, "keys init takes no --role", "haversack keys init n"),
        (("rotate", "keys", "--role", "targets"), 2, "keys rotate: --role and --repository must be there", "--role"),
        (("revoke", "keys", "--repository", "site"), 2, "keys revoke: --role and --repository", "keys revoke keys"),
        (
            ("rotate", "none", "--role", "targets", "--repository", "site"),
            2,
            "there is no such folder of keys",
            "give keys, which has keys",
        ),
        (("rotate", "keys", "--role", "root", "--repository", "site"), 2, "root", ""),
        (("rotate", "keys", "--role", "../x", "--repository", "site"), 2, "'../x' is no role: root-1", ""),
        (("rotate", "keys", "--role", "words", "--repository", "site"), 2, "words", ""),
        (("revoke", "keys", "--role", "words", "--repository", "site"), 2, "trusts no role words", ""),
        (("rotate", "keys", "--role", "targets", "--repository", "none"), 2, "nothing was published there", ""),
        (("rotate", "keys", "--role", "targets", "--repository", "http://x/y"), 2, "no place to publish to", ""),
        (("rotate", "keys", "--role", "targets", "--repository", "s3://"), 2, "s3://", ""),
        (("burn", "keys"), 2, '"init", "rotate", "revoke"', "haversack keys --help"),
        ((), 2, "what to do with keys is missing", "haversack keys init"),
        (("init",), 2, "the folder of keys is missing", "haversack keys init keys"),
        (("rotate", "keys", "--rol", "targets"), 2, "did you mean --role?", ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_keys_is_told_wrongly(home, words, code, said, step):
    before = content(home)
    done = typed("keys", *words)
    assert done.code == code
    assert said in done.err
    assert step in done.err
    assert done.out == ""
    assert content(home) == before


@pytest.mark.parametrize("spoil", ["other key", "text", "empty", "readable"])
def test_a_key_that_is_none_signs_nothing(home, spoil):
    path = Path("keys/timestamp.pem")
    if spoil == "other key":
        path.write_bytes(Path("keys/snapshot.pem").read_bytes())
    elif spoil == "readable":
        path.chmod(0o644)
    else:
        path.write_text("no key" if spoil == "text" else "")
    before = content(home / "site")
    done = typed("timestamp", *PLACES, "--json")
    assert done.code == done.json["exit_code"] != 0
    assert "Traceback" not in done.err
    assert content(home / "site") == before


def test_a_passphrase_opens_the_keys_and_no_other_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HAVERSACK_KEYS_PASSPHRASE", "correct horse")
    bundle(tmp_path, "1.0.0")
    assert typed("keys", "init", "keys").code == 0
    assert b"ENCRYPTED" in Path("keys/targets.pem").read_bytes()
    assert published("1.0.0").code == 0
    for other in ("wrong horse", ""):
        monkeypatch.setenv("HAVERSACK_KEYS_PASSPHRASE", other)
        done = typed("timestamp", *PLACES, "--json")
        assert done.code == done.json["exit_code"] == 2
        assert "horse" not in done.out + done.err
    monkeypatch.setenv("HAVERSACK_KEYS_PASSPHRASE", "correct horse")
    assert typed("timestamp", *PLACES).code == 0


@pytest.mark.parametrize(
    "later, code, expired, late",
    [
        ({"hours": 0}, 0, False, False),
        ({"hours": 11}, 0, False, False),
        ({"hours": 13}, 6, False, True),
        ({"hours": 23}, 6, False, True),
        ({"hours": 25}, 6, True, None),
        ({"days": 30}, 6, True, None),
    ],
    ids=str,
)
def test_how_old_the_timestamp_was(home, monkeypatch, later, code, expired, late):
    now = at(monkeypatch, **later)
    done = typed("timestamp", *PLACES, "--json")
    assert done.code == code
    assert done.json["had_expired"] is expired
    if late is not None:
        assert done.json["was_late"] is late
    valid = datetime.fromisoformat(done.json["expires"]) - now
    assert timedelta(hours=23, minutes=59) < valid <= timedelta(hours=24)
    assert bool(done.err) is (code != 0)
    again = typed("timestamp", *PLACES, "--json")
    assert (again.code, again.err) == (0, "")


def test_an_expired_timestamp_stops_devices_until_it_is_signed(home, monkeypatch):
    repository = Repository(
        Folder(home / "site"), keys.read(home / "keys"), lambda: publisher.utc() - timedelta(hours=30)
    )
    repository.commit(repository.state(), {})
    with pytest.raises(HaversackError) as stopped:
        released(home)
    assert stopped.value.exit_code == 6
    done = typed("timestamp", *PLACES)
    assert done.code == 6
    assert done.err.startswith("haversack: THE TIMESTAMP HAD EXPIRED, 20")
    assert "let a machine run haversack timestamp every 6 hours" in done.err
    assert released(home) == "1.0.0"


def test_the_key_of_the_timestamp_alone_is_enough(home):
    for path in Path("keys").glob("*.pem"):
        if path.stem != "timestamp":
            path.unlink()
    assert typed("timestamp", *PLACES).code == 0
    assert released(home) == "1.0.0"
    refused = published("1.1.0")
    assert refused.code != 0
    assert released(home) == "1.0.0"


@pytest.mark.parametrize(
    "words, said, step",
    [
        ((), "--repository is missing", "haversack timestamp --repository site --keys keys"),
        (("--keys", "keys"), "--repository is missing", "--keys keys --repository site"),
        (("--repository", "site"), "--keys is missing", "--repository site --keys keys"),
        (("--repository", "none", "--keys", "keys"), "nothing was published there", ""),
        (("--repository", "site", "--keys", "none"), "there is no such folder of keys", "give keys, which has keys"),
        (("--repository", "site", "--keys", "site"), "", ""),
        (("--repository", "site", "--keys"), "--keys: it has no value behind it", "haversack timestamp --help"),
        (("site", "keys"), "", "haversack timestamp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_timestamp_is_told_wrongly(home, words, said, step):
    before = content(home / "site")
    done = typed("timestamp", *words)
    assert done.code == 2
    assert said in done.err
    assert step in done.err
    assert content(home / "site") == before


def test_a_timestamp_without_its_key(home):
    Path("keys/timestamp.pem").unlink()
    done = typed("timestamp", *PLACES, "--json")
    assert done.code == done.json["exit_code"] == 2
    assert "timestamp" in done.json["error"]["cause"]


@pytest.mark.parametrize("verb", ["publish", "timestamp", "rotate"])
def test_a_repository_that_others_spoiled_is_not_signed(home, verb):
    """A publisher checks what it finds before it signs on top of it."""
    path = max((home / "site").rglob("*snapshot.json"), key=os.path.getmtime)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    before = content(home / "site")
    words = {"publish": lambda: published("1.1.0"), "timestamp": lambda: typed("timestamp", *PLACES, "--json")}
    done = words.get(verb, lambda: turned("rotate", "targets", "--json"))()
    assert done.code == done.json["exit_code"] == 7
    metadata = {name for name in before if name.endswith(".json")}
    assert {name: data for name, data in content(home / "site").items() if name in metadata} == {
        name: before[name] for name in metadata
    }
