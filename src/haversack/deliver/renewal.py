"""Signing the timestamp anew, which a machine does every few hours: while it does not, devices take no updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from haversack.deliver.metadata import past_half
from haversack.deliver.repository import Repository

SOON = timedelta(14)
"""A role that expires within this time is told."""


@dataclass(frozen=True)
class Renewal:
    """What was found, and what was done.

    Attributes:
        expires: when the new timestamp expires.
        found: when the old one expired, or would have.
        expired: whether it had.
        late: whether more than half of its time was over: the machine signs too rarely, or had stopped.
        renewed: roles that were signed anew as well, because half of their time was over and their keys are here.
        closing: role -> when it expires, of those that do so soon and could not be signed here.
    """

    expires: datetime
    found: datetime
    expired: bool
    late: bool
    renewed: tuple[str, ...]
    closing: Mapping[str, datetime]


def renew(repository: Repository) -> Renewal:
    """Sign the timestamp anew, and what else is past the half of its time where the keys are at hand.

    Raises:
        UsageError: nothing was published there, or the timestamp's key is missing.
        Refused: as ``Repository.state``.
        EnvironmentFault: it cannot be written, or somebody else published meanwhile.
    """
    state, now = repository.state(), repository.now()
    root, before = state.root.signed, state.timestamp.signed
    lines = {line: metadata.signed for line, metadata in state.lines.items()}
    due = {
        role: signed
        for role, signed in {**lines, "targets": state.targets.signed}.items()
        if past_half(signed, now) and repository.can_sign(role, root if role == "targets" else state.targets.signed)
    }
    new = repository.commit(state, due)
    renewed = [*due] + ["snapshot"] * (new.snapshot.signed.version > state.snapshot.signed.version)
    everything = {"root": root, "targets": new.targets.signed, "snapshot": new.snapshot.signed}
    everything |= {line: metadata.signed for line, metadata in new.lines.items()}
    closing = {role: signed.expires for role, signed in everything.items() if signed.expires - now < SOON}
    expired, late = now >= before.expires, past_half(before, now)
    return Renewal(new.timestamp.signed.expires, before.expires, expired, late, tuple(sorted(renewed)), closing)
