"""A proxy between the device and a repository, as the environment names it: HTTP_PROXY, HTTPS_PROXY, NO_PROXY.

An https repository is reached through a tunnel (CONNECT, RFC 9110, section 9.3.6): TLS ends at the repository, so that
a proxy sees names and sizes and changes nothing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from haversack.base.errors import EnvironmentFault

LARGEST_HEAD = 1 << 14
"""Bytes of a proxy's answer to CONNECT."""
_PORT, _TLS_PORT = 80, 443
_OK = range(200, 300)
_DIGITS = 3


class Wire(Protocol):
    """A connected socket under the clock of a transfer."""

    def sendall(self, data: bytes) -> None:
        """Send all."""

    def readinto(self, buffer: bytearray, /) -> int:
        """Receive bytes; 0 at the end."""


@dataclass(frozen=True)
class Proxy:
    """Where a proxy listens, and what it is told of whoever asks.

    Attributes:
        host, port: of the proxy, which is spoken to without TLS.
        login: of the header Proxy-Authorization; empty for none.
    """

    host: str
    port: int
    login: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Of every request that goes through it in plain."""
        return {"Proxy-Authorization": self.login} if self.login else {}

    def tunnel(self, wire: Wire, parts: SplitResult, busy: Callable[[int, str], EnvironmentFault]) -> None:
        """Ask for a way to a URL's host; from then on the wire is a wire to it.

        Args:
            wire: to the proxy.
            parts: of the URL.
            busy: makes the error of a status and its reason.

        Raises:
            EnvironmentFault: the proxy refuses, or answers no HTTP.
        """
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        there = f"{host}:{parts.port or _TLS_PORT}"
        told = {"Host": there, **self.headers}
        lines = [f"CONNECT {there} HTTP/1.1", *(f"{name}: {text}" for name, text in told.items())]
        wire.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        head, one = bytearray(), bytearray(1)
        while not head.endswith(b"\r\n\r\n"):  # one byte at a time: what follows is TLS
            if len(head) >= LARGEST_HEAD or not wire.readinto(one):
                raise busy(0, f"{len(head)} bytes that are no answer to CONNECT")
            head += one
        version, _, rest = head.partition(b"\r\n")[0].decode("ascii", "replace").partition(" ")
        status, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not status.isdecimal() or int(status) not in _OK:
            raise busy(int(status) if status.isdecimal() and len(status) == _DIGITS else 0, reason[:80])


def of(parts: SplitResult) -> Proxy | None:
    """Return the proxy for a URL; None where the environment names none, or excepts its host.

    Raises:
        EnvironmentFault: what it names is no proxy that is spoken to.
    """
    from urllib.request import getproxies_environment, proxy_bypass

    named = getproxies_environment()
    address = named.get(parts.scheme) or named.get("all")
    if not address or proxy_bypass(parts.netloc.rpartition("@")[2], named):
        return None
    try:
        there = urlsplit(address if "://" in address else f"http://{address}")
        host, port = there.hostname, there.port or _PORT
    except ValueError:
        there, host, port = urlsplit(""), None, _PORT
    if there.scheme != "http" or not host:
        step = "http://HOST:PORT, or leave the repository out with NO_PROXY=HOST"
        where = f"{parts.scheme.upper()}_PROXY"
        raise EnvironmentFault("it names no proxy that is spoken to in plain HTTP", where=where, next_step=step)
    said = f"{unquote(there.username)}:{unquote(there.password or '')}" if there.username else ""
    return Proxy(host, port, f"Basic {b64encode(said.encode()).decode()}" if said else "")
