"""The publisher's keys: readable by their owner alone, encrypted if he likes, all faults of a folder told at once."""

from __future__ import annotations

import stat

import pytest

from haversack.base.errors import Refused, UsageError
from haversack.tools.trust import keys, private_file
from haversack.tools.trust.keys import ROOTS, TOP


def test_a_new_folder_has_a_key_for_every_role(tmp_path):
    made = keys.create(tmp_path / "keys")
    names = sorted(path.name for path in (tmp_path / "keys").iterdir())
    assert names == sorted(f"{role}.pem" for role in (*ROOTS, *TOP, "publisher"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    again = keys.read(tmp_path / "keys")
    assert again.roles.keys() == made.roles.keys()
    assert len(again.roles) == 6
    assert again.device == made.device


def test_a_folder_is_never_written_over(tmp_path):
    keys.create(tmp_path)
    before = (tmp_path / "root-1.pem").read_bytes()
    with pytest.raises(UsageError, match="not empty"):
        keys.create(tmp_path)
    assert (tmp_path / "root-1.pem").read_bytes() == before


def test_a_passphrase_encrypts_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HAVERSACK_KEYS_PASSPHRASE", "correct horse")
    made = keys.create(tmp_path / "keys")
    assert b"ENCRYPTED" in (tmp_path / "keys" / "targets.pem").read_bytes()
    assert keys.read(tmp_path / "keys").roles.keys() == made.roles.keys()
    monkeypatch.setenv("HAVERSACK_KEYS_PASSPHRASE", "battery staple")
    with pytest.raises(UsageError) as caught:
        keys.read(tmp_path / "keys")
    assert len(caught.value.faults) == 7
    monkeypatch.delenv("HAVERSACK_KEYS_PASSPHRASE")
    with pytest.raises(UsageError) as caught:
        keys.read(tmp_path / "keys")
    assert caught.value.next_step == "export HAVERSACK_KEYS_PASSPHRASE=…"
    assert "correct horse" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601, 0o620])
def test_a_key_that_others_may_use_is_refused(tmp_path, mode):
    keys.create(tmp_path)
    (tmp_path / "timestamp.pem").chmod(mode)
    with pytest.raises(Refused, match="others than its owner") as caught:
        keys.read(tmp_path)
    assert caught.value.next_step == f"chmod 600 {tmp_path / 'timestamp.pem'}"


def test_all_faults_are_told_together(tmp_path):
    keys.create(tmp_path)
    (tmp_path / "timestamp.pem").chmod(0o644)
    (tmp_path / "root-1.pem").chmod(0o640)
    (tmp_path / "snapshot.pem").write_text("no key")
    (tmp_path / "digits.pem").write_bytes((tmp_path / "publisher.pem").read_bytes())
    (tmp_path / "digits.pem").chmod(0o600)
    (tmp_path / "words.pem").symlink_to(tmp_path / "targets.pem")
    with pytest.raises(Refused) as caught:
        keys.read(tmp_path)
    told = {fault.where.rpartition("/")[2]: fault.cause for fault in caught.value.faults}
    assert sorted(told) == ["digits.pem", "root-1.pem", "snapshot.pem", "timestamp.pem", "words.pem"]
    assert "another kind" in told["digits.pem"]
    assert "link" in told["words.pem"]
    assert "no private key" in told["snapshot.pem"]


def test_what_is_no_key_file_is_left_alone(tmp_path):
    made = keys.create(tmp_path)
    (tmp_path / "1.root.json").write_text("{}")
    (tmp_path / "digits.pem.revoked").write_text("old")
    (tmp_path / "Notes.pem").write_text("no")
    assert keys.read(tmp_path).roles.keys() == made.roles.keys()


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_no_keys_are_told(tmp_path, what):
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    with pytest.raises(UsageError) as caught:
        keys.read(folder)
    assert caught.value.next_step == f"haversack keys init {folder}"


def test_a_key_larger_than_any_is_refused(tmp_path):
    keys.create(tmp_path)
    (tmp_path / "targets.pem").write_bytes(b"x" * 20_000)
    with pytest.raises(Refused, match="at most"):
        keys.read(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    keys.create(tmp_path)
    os.mkfifo(tmp_path / "digits.pem", 0o600)
    with pytest.raises(Refused, match="this is none"):
        keys.read(tmp_path)


def test_new_keys_of_a_role_are_counted(tmp_path):
    found = keys.create(tmp_path)
    names = []
    for _ in range(3):
        found, new = found.with_new("digits")
        names.append(new.path.name)
    assert names == ["digits.pem", "digits.2.pem", "digits.3.pem"]
    assert [key.path.name for key in keys.read(tmp_path).of("digits")] == names
    left = found.without([key.id for key in found.of("digits")])
    assert left.of("digits") == ()
    assert keys.read(tmp_path).of("digits") == ()
    _, new = left.with_new("digits")
    assert new.path.name == "digits.4.pem"


def test_a_key_that_lies_elsewhere_keeps_its_name(tmp_path):
    found = keys.create(tmp_path)
    (tmp_path / "root-1.pem").unlink()
    assert found.with_new("root-1", 2)[1].path.name == "root-1.2.pem"
    assert found.with_new("root-1", 2)[1].path.name == "root-1.3.pem"


def test_names_are_of_the_role_that_they_say(tmp_path):
    found = keys.create(tmp_path)
    found, _ = found.with_new("root-1")
    found, _ = found.with_new("words")
    assert [key.path.name for key in found.of("root-1")] == ["root-1.pem", "root-1.2.pem"]
    assert [key.role for key in keys.read(tmp_path).of("words")] == ["words"]


@pytest.mark.parametrize("role", ["root", "publisher", "", "Digits", "a/b", "a.b", "x" * 64])
def test_what_is_no_role_gets_no_key(tmp_path, role):
    with pytest.raises(UsageError, match="no role"):
        keys.create(tmp_path).with_new(role)


def test_signers_are_those_that_are_here(tmp_path):
    found = keys.create(tmp_path)
    one = found.of("targets")[0]
    assert found.signers([one.id, "0" * 64]) == (one.signer,)


def test_a_private_key_is_never_written_over(tmp_path):
    private_file.create(tmp_path / "key", b"first")
    with pytest.raises(UsageError, match="never written over"):
        private_file.create(tmp_path / "key", b"second")
    assert (tmp_path / "key").read_bytes() == b"first"
