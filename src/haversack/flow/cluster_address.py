"""The address of a Ray cluster as it is typed behind ``--ray``, and whether something like it answers there."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass

from haversack.base.errors import EnvironmentFault, MissingExtra, UsageError
from haversack.base.versions import installed

LOCAL = re.compile(r"local(?::(?P<workers>[1-9][0-9]{0,3}))?")
FAR = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
KNOCK_SECONDS = 5.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What an HTTP/2 client says first, with empty settings (RFC 9113, 3.4); gRPC, and so Ray, answers with its own."""
SETTINGS = 4


@dataclass(frozen=True)
class Address:
    """Where the workers are: ``local``, with how many, or a cluster's head by host and port."""

    workers: int = 0
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.host else f"local:{self.workers}"


def parsed(text: str) -> Address:
    """Return what was typed behind ``--ray``.

    Raises:
        UsageError: it is neither ``local``, ``local:WORKERS`` nor ``HOST:PORT``.
    """
    if near := LOCAL.fullmatch(text):
        return Address(int(near["workers"] or len(os.sched_getaffinity(0))))
    found = FAR.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        raise UsageError(
            f"{text!r} is no address of a Ray cluster",
            where="--ray",
            next_step="--ray local:2 starts two workers here; --ray HOST:6379 joins a cluster that this machine is in",
        )
    return Address(host=found["host"], port=int(found["port"]))


def check(text: str) -> None:
    """Look at an address, whether Ray is installed, and whether something like it answers there.

    Raises:
        UsageError: it is none.
        MissingExtra: Ray is not installed.
        EnvironmentFault: nothing answers there.
    """
    address = parsed(text)
    if not installed("ray"):
        raise MissingExtra("ray", "ray", purpose="--ray")
    if address.host and os.environ.get("RAY_USE_TLS", "0") in {"", "0"}:
        _knock(address)


def _knock(address: Address) -> None:
    """Ask an address whether it speaks HTTP/2: Ray itself takes minutes to say that nobody is there.

    Raises:
        EnvironmentFault: it does not.
    """
    try:
        with socket.create_connection((address.host.strip("[]"), address.port), KNOCK_SECONDS) as tried:
            tried.settimeout(KNOCK_SECONDS)
            tried.sendall(PREFACE)
            said = tried.recv(9, socket.MSG_WAITALL)
    except OSError as error:
        raise unreachable(address, (error.strerror or str(error)).lower()) from error
    if len(said) < 9 or said[3] != SETTINGS:
        raise unreachable(address, "what answers there is no Ray")


def unreachable(address: Address, why: str, tried: str = "connecting") -> EnvironmentFault:
    """Return the error of a cluster that is not reached, or does not come up here.

    Args:
        address: of it.
        why: in words.
        tried: what was tried.
    """
    if not address.host:
        return EnvironmentFault(
            f"no Ray cluster comes up here: {why}",
            where="--ray",
            tried=f"{tried}, {address}",
            next_step="repeat the same command on a calmer machine, or leave --ray out",
        )
    return EnvironmentFault(
        f"no Ray cluster is reached at {address}: {why}",
        where="--ray",
        tried=tried,
        next_step=f"on {address.host}: ray start --head --port={address.port}; on this machine, if it is another: "
        f"ray start --address={address}; or --ray local:2; or leave --ray out",
    )
