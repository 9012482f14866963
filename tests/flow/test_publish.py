"""Publishing as it is typed: keys, publish, timestamp; in words, as JSON, and what is wrong with them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from datetime import timedelta

import pytest
from sites import Memory, bundle, files

from haversack.base.errors import Refused, UsageError
from haversack.cli import main
from haversack.deliver import repository as publisher
from haversack.deliver.repository import Repository
from haversack.deliver.storage import Folder
from haversack.deliver.trusted import Trusted
from haversack.flow import publish as flow
from haversack.tools.trust import keys, wrap


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Work in a folder with a bundle and keys."""
    monkeypatch.chdir(tmp_path)
    bundle(tmp_path, "1.0.0")
    assert main(["keys", "init", "keys"]) == 0
    return tmp_path


def typed(*words: str) -> int:
    return main(["publish", *words, "--line", "digits", "--repository", "site", "--keys", "keys"])


def released(home) -> str:
    root = (home / "keys" / "1.root.json").read_bytes()
    return Trusted(home / "device", files(home / "site"), root, Memory()).release("digits").version


def test_from_keys_to_a_device(home, capsys):
    assert typed("digits-1.0.0.haversack") == 0
    said = capsys.readouterr().out
    assert "digits 1.0.0 (sequence 1) is in site" in said
    assert "keys/digits.pem: keep it" in said
    assert "next, on a device: haversack client update digits --repository URL --root keys/1.root.json" in said
    assert released(home) == "1.0.0"
    assert typed("digits-1.0.0.haversack") == 0
    assert "already, with this content" in capsys.readouterr().out


def test_keys_init_says_what_to_do_with_them(tmp_path, capsys):
    assert main(["keys", "init", str(tmp_path / "keys")]) == 0
    said = capsys.readouterr().out
    assert "1.root.json to every device" in said
    assert "move two of root-1, root-2 and root-3" in said
    assert f"next: haversack publish BUNDLE --line LINE --repository site --keys {tmp_path / 'keys'}" in said
    assert main(["keys", "init", str(tmp_path / "keys")]) == 2
    assert "never written over" in capsys.readouterr().err
    assert main(["keys", "init", str(tmp_path / "more"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "keys": str(tmp_path / "more"),
        "root": str(tmp_path / "more" / "1.root.json"),
    }


def test_an_encrypted_release_for_devices(home, capsys):
    (home / "devices").mkdir()
    device = wrap.create_device(home / "board" / "device.key", "board")
    assert typed("digits-1.0.0.haversack", "--encrypt") == 0
    said = capsys.readouterr().out
    assert "no device can open it yet" in said
    assert (
        "next: haversack publish digits-1.0.0.haversack --line digits --repository site --keys keys --encrypt" in said
    )
    assert "--encrypt --devices FOLDER\n" in said
    assert "client update" not in said, "no device could"
    (home / "devices" / "board.pub").write_text(device.line())
    assert typed("digits-1.0.0.haversack", "--encrypt", "--devices", "devices", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["changed"], said["enrolled"], said["encrypted"], said["sequence"]) == (False, 1, True, 1)
    assert len(list((home / "site" / "keys").rglob(f"{device.id}.hpke"))) == 1


def test_a_lower_version_is_published_with_a_note(home, capsys):
    assert typed("digits-1.0.0.haversack") == 0
    bundle(home, "0.9.0")
    bundle(home, "1.1.0")
    capsys.readouterr()
    assert typed("digits-0.9.0.haversack") == 0
    said = capsys.readouterr().out
    assert "note: 0.9.0 is lower than 1.0.0, which it takes the place of on devices" in said
    assert typed("digits-0.9.0.haversack") == 0
    assert "lower than" not in capsys.readouterr().out, "nothing was published"
    assert typed("digits-1.1.0.haversack", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["lower_than"], said["dropped"]) == (None, [])
    assert released(home) == "1.1.0"


def test_a_runtime_that_a_release_has_no_more_is_told(home, capsys):
    assert typed("digits-1.0.0.haversack") == 0
    folder = bundle(home, "1.1.0")
    manifest = (folder / "manifest.json").read_text()
    for path in folder.glob("litert.*"):
        path.rename(folder / path.name.replace("litert", "ncnn"))
    (folder / "manifest.json").write_text(manifest.replace("litert", "ncnn"))
    capsys.readouterr()
    assert typed("digits-1.1.0.haversack") == 0
    assert "note: it has nothing for litert, as 1.0.0 had: devices with no other runtime" in capsys.readouterr().out


def test_misspelt_keys_of_a_repository_lead_to_those_beside_them_and_to_no_new_ones(home, capsys):
    place = ["--line", "digits", "--repository", "site", "--keys"]
    assert main(["publish", "digits-1.0.0.haversack", *place, "key"]) == 2
    assert "next: haversack keys init key" in capsys.readouterr().err, "there is no repository yet"
    assert typed("digits-1.0.0.haversack") == 0
    (home / "empty").mkdir()
    for name, cause in (("key", "there is no such folder of keys"), ("empty", "no key is in it")):
        assert main(["publish", "digits-1.0.0.haversack", *place, name]) == 2
        said = capsys.readouterr().err
        assert f"{name}: {cause}, and site is signed with keys" in said
        assert "next: give keys, which has keys\n" in said
        assert "keys init" not in said
    assert main(["publish", "digits-1.0.0.haversack", *place, "far/key"]) == 2
    assert "next: give those that it was made with" in capsys.readouterr().err


def test_deltas_are_told(home):
    """What makes them is passed in."""
    for number in (1, 2):
        bundle(home / "more", f"2.{number}.0", model=random.Random(number).randbytes(9000))
        done = flow.publish(
            home / "more" / f"digits-2.{number}.0.haversack",
            line="digits",
            repository="site",
            keys=home / "keys",
            delta=lambda old, new: ("bsdiff", b"small"),
        )
    assert done.data()["deltas"] == [{"file": "litert.tflite", "form": "bsdiff", "bytes": 5, "from": "2.1.0"}]
    assert "a delta of 5 bytes for litert.tflite from 2.1.0; it is 9,000 bytes whole" in done.lines()
    assert done.data()["full_bytes"] > 9000


@pytest.mark.parametrize("role", ["timestamp", "root-2", "digits"])
def test_rotate(home, capsys, role):
    assert typed("digits-1.0.0.haversack") == 0
    capsys.readouterr()
    assert main(["keys", "rotate", "keys", "--role", role, "--repository", "site"]) == 0
    said = capsys.readouterr().out
    assert f"{role} has a new key, keys/{role}." in said
    assert f"of no use any more: keys/{role}.pem" in said
    assert ("keys/2.root.json" in said) == (role != "digits")
    assert released(home) == "1.0.0"


def test_revoke(home, capsys):
    assert typed("digits-1.0.0.haversack") == 0
    assert main(["keys", "revoke", "keys", "--role", "digits", "--repository", "site", "--json"]) == 0
    said = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))
    assert said == {"role": "digits", "new": None, "old": ["keys/digits.pem.revoked"], "root": 1}
    with pytest.raises(Refused):
        released(home)
    assert main(["keys", "revoke", "keys", "--role", "digits", "--repository", "site"]) == 2
    assert "trusts no role digits" in capsys.readouterr().err
    assert typed("digits-1.0.0.haversack") == 0
    assert released(home) == "1.0.0"


def aged(home, **time: float) -> None:
    """Sign the timestamp as it was signed before now."""
    repository = Repository(
        Folder(home / "site"), keys.read(home / "keys"), lambda: publisher.utc() - timedelta(**time)
    )
    repository.commit(repository.state(), {})


@pytest.mark.parametrize(
    "hours, code, loud", [(6, 0, ""), (13, 6, "PAST HALF OF ITS TIME"), (25, 6, "HAD EXPIRED")], ids=str
)
def test_timestamp(home, capsys, hours, code, loud):
    assert typed("digits-1.0.0.haversack") == 0
    aged(home, hours=hours)
    capsys.readouterr()
    assert main(["timestamp", "--repository", "site", "--keys", "keys"]) == code
    said = capsys.readouterr()
    assert "the timestamp is valid until 20" in said.out
    assert loud in said.err
    assert bool(said.err) == bool(loud)
    assert main(["timestamp", "--repository", "site", "--keys", "keys", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["had_expired"] is False
    assert released(home) == "1.0.0"


def test_timestamp_tells_what_expires_soon(home, capsys, monkeypatch):
    assert typed("digits-1.0.0.haversack") == 0
    later = publisher.utc() + timedelta(days=360)
    monkeypatch.setattr(flow, "Repository", lambda storage, folder: Repository(storage, folder, lambda: later))
    (home / "keys" / "targets.pem").unlink()
    capsys.readouterr()
    assert main(["timestamp", "--repository", "site", "--keys", "keys"]) == 6
    said = capsys.readouterr()
    assert "signed anew as well, past the half of their time: digits, snapshot" in said.out
    assert "targets EXPIRES" in said.err
    assert "root EXPIRES" in said.err
    assert "keys rotate KEYS --role root-1" in said.err


def test_a_bundle_of_another_line_goes_nowhere(home, capsys):
    code = main(["publish", "digits-1.0.0.haversack", "--line", "words", "--repository", "site", "--keys", "keys"])
    assert code == 2
    assert "of the line digits, not words" in capsys.readouterr().err
    assert not (home / "site").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["keys", "rotate", "keys"], "--role and --repository must be there"),
        (["keys", "init", "new", "--role", "targets"], "keys init takes no --role"),
        (["keys", "burn", "keys"], "burn"),
        (["keys", "rotate", "keys", "--role", "nobody", "--repository", "site"], "nothing was published there"),
        (["timestamp", "--repository", "site", "--keys", "nowhere"], "no such folder of keys"),
        (["timestamp", "--repository", "http://x", "--keys", "keys"], "no place to publish to"),
        (["publish", "nowhere", "--line", "digits", "--repository", "site", "--keys", "keys"], "no such bundle"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_wrong_is_told(home, capsys, words, said):
    capsys.readouterr()
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, step",
    [
        (["keys", "rotate"], "haversack keys rotate keys"),
        (["publish", "--line", "digits"], "digits-1.3.0.haversack --line digits --repository site --keys keys"),
        (["timestamp"], "haversack timestamp --repository site --keys keys"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_is_missing_is_told_with_the_command_as_it_may_be(capsys, words, step):
    assert main(words) == 2
    assert step in capsys.readouterr().err


def test_a_link_in_a_bundle_is_not_followed(home):
    path = home / "digits-1.0.0.haversack" / "labels.txt"
    path.rename(home / "labels.txt")
    path.symlink_to(home / "labels.txt")
    assert typed("digits-1.0.0.haversack") != 0
    assert not list((home / "site").rglob("*.digits.json"))


def test_a_folder_of_a_run_leads_to_its_bundle(home, capsys):
    (home / "out").mkdir()
    assert typed("out") == 2
    said = capsys.readouterr().err
    assert "out: it is no bundle: there is no manifest.json in it" in said
    assert "next: haversack bundle OUT --out NAME-VERSION.haversack" in said


def test_a_damaged_manifest_is_refused(home):
    (home / "digits-1.0.0.haversack" / "manifest.json").write_text("{}")
    with pytest.raises(Refused):
        flow.publish(home / "digits-1.0.0.haversack", line="digits", repository="site", keys=home / "keys")


def test_keys_that_others_may_read_publish_nothing(home, capsys):
    (home / "keys" / "snapshot.pem").chmod(0o640)
    assert typed("digits-1.0.0.haversack") == 7
    assert "chmod 600" in capsys.readouterr().err


def test_no_name_of_a_bucket_is_guessed(home):
    with pytest.raises(UsageError):
        flow.renew("s3://X", home / "keys")


def test_publishing_works_without_torch(home, environment):
    """The publisher may be a small machine."""
    script = (
        "import sys\nfor name in ('torch', 'onnx', 'scipy'): sys.modules[name] = None\n"
        "from haversack.cli import main\n"
        "sys.exit(main(['publish', 'digits-1.0.0.haversack', '--line', 'digits', '--repository', 'site',"
        " '--keys', 'keys']))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=home, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert released(home) == "1.0.0"
