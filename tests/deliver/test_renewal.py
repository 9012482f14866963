"""The timestamp, signed anew by a machine: what it says when it was late, and what else it signs."""

from __future__ import annotations

import pytest

from haversack.base.errors import UsageError
from haversack.deliver.renewal import renew


def test_in_time(published):
    published.clock.wait(hours=6)
    before = published.repository.state()
    done = renew(published.repository)
    assert (done.expired, done.late, done.renewed, done.closing) == (False, False, (), {})
    assert (done.expires - published.clock()).total_seconds() == 24 * 3600
    after = published.repository.state()
    assert after.timestamp.signed.version == before.timestamp.signed.version + 1
    assert after.snapshot.to_bytes() == before.snapshot.to_bytes()


@pytest.mark.parametrize(
    "hours, late, expired", [(12, False, False), (12.1, True, False), (23.9, True, False), (24, True, True)]
)
def test_past_half_and_expired(published, hours, late, expired):
    published.clock.wait(hours=hours)
    done = renew(published.repository)
    assert (done.late, done.expired) == (late, expired)
    assert published.device().release("digits").version == "1.1.0"


def test_what_is_past_half_of_its_time_is_signed_as_well(published):
    published.clock.wait(days=16)
    assert renew(published.repository).renewed == ("snapshot",)
    published.clock.wait(days=170)
    assert renew(published.repository).renewed == ("digits", "snapshot", "targets")
    published.clock.wait(days=170)
    done = renew(published.repository)
    assert list(done.closing) == ["root"]
    assert published.device().release("digits").version == "1.1.0"


def test_a_machine_with_the_key_of_the_timestamp_alone(published):
    for path in published.keys.glob("*.pem"):
        if path.name != "timestamp.pem":
            path.unlink()
    published.clock.wait(days=20)
    done = renew(published.repository)
    assert done.renewed == ()
    assert list(done.closing) == ["snapshot"]
    assert published.device().release("digits").version == "1.1.0"


def test_without_the_key_or_a_repository(published):
    (published.keys / "timestamp.pem").unlink()
    with pytest.raises(UsageError, match="the key of timestamp"):
        renew(published.repository)
    (published.root / "metadata" / "timestamp.json").unlink()
    with pytest.raises(UsageError, match="nothing was published"):
        renew(published.repository)
