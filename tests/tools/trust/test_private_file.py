"""Private keys in files: what is written is read by its owner, and a wrong passphrase says nothing of the right one."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from haversack.base.errors import EnvironmentFault, UsageError
from haversack.tools.trust import private_file


@pytest.mark.parametrize("kind", [Ed25519PrivateKey, X25519PrivateKey])
@pytest.mark.parametrize("passphrase", ["", "ä passphrase with spaces"])
def test_what_is_written_is_read(tmp_path, kind, passphrase):
    key = kind.generate()
    private_file.create(tmp_path / "new" / "key.pem", private_file.pem(key, passphrase))
    found = private_file.read(tmp_path / "new" / "key.pem", passphrase)
    assert isinstance(found, kind)
    assert found.private_bytes_raw() == key.private_bytes_raw()
    assert stat.S_IMODE((tmp_path / "new" / "key.pem").stat().st_mode) == 0o600


def test_a_wrong_passphrase_is_told(tmp_path):
    private_file.create(tmp_path / "key.pem", private_file.pem(Ed25519PrivateKey.generate(), "open sesame"))
    for wrong in ("", "open barley"):
        with pytest.raises(UsageError) as caught:
            private_file.read(tmp_path / "key.pem", wrong)
        assert "sesame" not in str(caught.value)
        assert "barley" not in str(caught.value)


def test_a_key_without_passphrase_is_read_with_one_given(tmp_path):
    private_file.create(tmp_path / "key.pem", private_file.pem(Ed25519PrivateKey.generate()))
    assert isinstance(private_file.read(tmp_path / "key.pem", "not needed"), Ed25519PrivateKey)


def test_a_key_that_is_not_there_is_told(tmp_path):
    with pytest.raises(EnvironmentFault):
        private_file.read(tmp_path / "key.pem")
