"""The bytes behind a URL from an offset on, over http, https and file: how it is asked, and what counts as an answer.

A proxy that the environment names is used. Ranges and If-Range are RFC 9110, sections 13.1.5 and 14. A redirect never
leads from https to http.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import socket
import ssl
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from haversack import __version__
from haversack.base.errors import EnvironmentFault, Refused
from haversack.deliver import proxy
from haversack.deliver.patience import Patience
from haversack.deliver.proxy import Proxy
from haversack.tools.store import atomic

CHUNK_BYTES = 1 << 16
MOST_BESIDE, MOST_TIMES = 1 << 20, 16
"""Bytes that may come beside a file's own: headers, interim answers, marks of chunks, trailers. So many, and so many
times as many as the file has; Python's reader takes them without end."""
_ASK = "ask whoever runs the server"
_LOOK = "look at what answers there (curl -I URL), and at --repository"
_MOVED = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_GONE = frozenset({403, 404, 410})
_LONGEST_REASON = 60
"""403 as well: so S3 answers for what is not there where listing is not allowed."""
_PARTIAL, _NO_SUCH_RANGE, _LOGIN, _UNKNOWN_CALLER = 206, 416, 407, 401
_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)")
_STRONG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')


class Broken(EnvironmentFault):
    """The connection or the answer broke off; another attempt may go on from there."""


class Gone(EnvironmentFault):
    """There is no such file, or none that is shown."""


class NoSuchRange(Broken):
    """The server has no such range: what was fetched before is of another file."""


@dataclass(frozen=True)
class Answer:
    """What a server begins to send.

    Attributes:
        start: offset of its first byte: the one asked for, or 0 where the range was not granted.
        total: bytes of the whole file; None where the server does not say.
        tag: a strong validator of the file's content, with its quotes; empty where there is none.
        chunks: the bytes; raises ``Broken`` or ``TooSlow``.
    """

    start: int
    total: int | None
    tag: str
    chunks: Iterator[bytes]


@contextlib.contextmanager
def opened(url: str, patience: Patience, *, start: int = 0, tag: str = "") -> Iterator[Answer]:
    """Ask for a file from an offset on.

    Args:
        url: http, https or file.
        patience: the clock of the transfer.
        start: offset of the first byte that is wanted.
        tag: of the file that the bytes before it are of; another file is sent from its beginning.

    Raises:
        Broken: there is no connection, or it broke, or the server is busy; ``NoSuchRange`` likewise.
        TooSlow: the deadline is over, or too few bytes came.
        Gone: there is no such file.
        EnvironmentFault: the server gives another answer, or the file cannot be read.
        Refused: another scheme, a certificate that is not to be trusted, a redirect too many or from https to http, or
            a coded answer.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError as error:
        raise Refused(f"no URL: {error}", where=url[:200]) from error
    if scheme == "file":
        with _file(url, start) as answer:
            yield answer
    elif scheme in {"http", "https"}:
        with contextlib.ExitStack() as stack:
            yield _asked(url, patience, start, tag, stack)
    else:
        raise Refused(f"a URL of scheme {scheme[:20]!r}: http, https and file are read", where=url[:200])


@contextlib.contextmanager
def _file(url: str, start: int) -> Iterator[Answer]:
    path = unquote(urlsplit(url).path)
    try:
        # Not blocking: a pipe with nobody at its other end would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        kind = Gone if isinstance(error, FileNotFoundError) else EnvironmentFault
        raise kind(f"it cannot be read: {atomic.why(error)}", where=url) from error
    except ValueError as error:
        raise Refused(f"it names no file: {error}", where=url[:200]) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise EnvironmentFault("it is no regular file", where=url)
    with io.FileIO(descriptor) as stream:
        if start > found.st_size:
            raise NoSuchRange(f"it has {found.st_size} bytes, and byte {start} was asked for", where=url)
        stream.seek(start)
        yield Answer(start, found.st_size, f'"{found.st_mtime_ns}-{found.st_size}"', _pieces(stream))


def _pieces(stream: io.FileIO) -> Iterator[bytes]:
    while piece := stream.read(CHUNK_BYTES):
        yield piece


def _asked(url: str, patience: Patience, start: int, tag: str, stack: contextlib.ExitStack) -> Answer:
    """Ask, and follow redirects; the connection that answers is closed with the stack."""
    headers = {"Accept-Encoding": "identity", "User-Agent": f"haversack/{__version__}", "Connection": "close"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if tag:
            headers["If-Range"] = tag
    for _ in range(patience.bounds.redirects + 1):
        response, wire = _response(url, headers, patience, stack)
        if response.status not in _MOVED:
            return _judged(url, response, wire, start, patience)
        url = _moved(url, response.getheader("Location", ""))
    cause = f"more than {patience.bounds.redirects} redirects, one after the other"
    raise Refused(cause, where=url[:200], next_step=_LOOK)


def _response(
    url: str, headers: Mapping[str, str], patience: Patience, stack: contextlib.ExitStack
) -> tuple[http.client.HTTPResponse, _Wire]:
    parts = urlsplit(url)
    with _words(url, patience):
        connection, between = _connection(parts, patience.left()), proxy.of(parts)
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        if between is None:
            connection.connect()
        else:
            connection.sock = _through(between, parts, patience, stack)
            if parts.scheme == "http":
                target, headers = f"http://{parts.netloc.rpartition('@')[2]}{target}", {**headers, **between.headers}
        wire = _Wire(connection.sock, patience, url)
        stack.callback(wire.hang_up)
        connection.sock = wire  # it has what http.client asks of a socket
        connection.request("GET", target, headers=dict(headers))
        return connection.getresponse(), wire


def _through(between: Proxy, parts: SplitResult, patience: Patience, stack: contextlib.ExitStack) -> socket.socket:
    """Return a socket to a proxy, or by TLS through it to the host of an https URL."""

    def refused(status: int, reason: str) -> EnvironmentFault:
        where = f"the proxy {between.host}:{between.port}"
        if status in _BUSY:
            return Broken(f"it is busy ({_said(status, reason)})", where=where)
        login = "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
        step = login if status == _LOGIN else "ask whoever runs it, or set NO_PROXY"
        cause = f"it does not let the device through ({_said(status, reason)})"
        return EnvironmentFault(cause, where=where, next_step=step)

    wire = socket.create_connection((between.host, between.port), patience.left())
    stack.callback(wire.close)
    if parts.scheme == "http":
        return wire
    between.tunnel(_Wire(wire, patience, f"the proxy {between.host}:{between.port}"), parts, refused)
    wire.settimeout(patience.left())
    return ssl.create_default_context().wrap_socket(wire, server_hostname=parts.hostname)


def _connection(parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, parts.port, timeout=timeout)


@contextlib.contextmanager
def _words(url: str, patience: Patience) -> Iterator[None]:
    """Turn what the network raises into our errors."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"its certificate is not to be trusted: {error.verify_message}", where=url) from error
    except TimeoutError as error:
        patience.left()  # says which limit it was
        raise Broken("no answer in time", where=url) from error
    except http.client.InvalidURL as error:
        raise Refused(f"no URL: {error}", where=url[:200]) from error
    except (OSError, http.client.HTTPException) as error:
        raise Broken(f"the connection broke: {atomic.why(error) or type(error).__name__}", where=url) from error
    except ValueError as error:  # a port that is no number, a host that cannot be written
        raise Refused(f"no URL: {error}", where=url[:200]) from error


def _moved(url: str, location: str) -> str:
    try:
        there = urljoin(url, location)
        old, new = urlsplit(url).scheme, urlsplit(there).scheme
    except ValueError as error:
        raise Refused(f"it redirects to no URL: {error}", where=url[:200]) from error
    if not location or new not in {"http", "https"} or (old == "https" and new == "http"):
        step = f"from https to https only: {_ASK}, or name the address that it leads to with --repository"
        raise Refused(f"it redirects to {there[:100]!r}, which is not followed", where=url[:200], next_step=step)
    return there


def _said(status: int, reason: str) -> str:
    """Return a status line in words; a reason is a stranger's, and as long as a line of HTTP may be."""
    return f"{status} {reason[:_LONGEST_REASON]}".rstrip()


def _judged(url: str, response: http.client.HTTPResponse, wire: _Wire, start: int, patience: Patience) -> Answer:
    status, said = response.status, _said(response.status, response.reason)
    if status == _NO_SUCH_RANGE:
        raise NoSuchRange(f"the server has no byte {start}", where=url)
    if status in _BUSY:
        raise Broken(f"the server is busy ({said})", where=url)
    if status in _GONE:
        raise Gone(f"the server does not give it ({said})", where=url)
    if status == _UNKNOWN_CALLER:
        step = "serve the repository without a login: what it holds is signed, and may be encrypted"
        raise EnvironmentFault(f"the server does not give it ({said})", where=url, next_step=step)
    if status not in {200, _PARTIAL} or (status == _PARTIAL and not start):
        raise EnvironmentFault(f"the server does not give it ({said})", where=url, next_step=_LOOK)
    if (coding := response.getheader("Content-Encoding", "identity")) != "identity":
        step = f"{_ASK}, or the proxy before it, to compress nothing of the repository"
        cause = f"the server sends it coded ({coding[:40]}), which was not asked for"
        raise Refused(cause, where=url, next_step=step)
    tag = response.getheader("ETag", "")
    tag = tag if _STRONG.fullmatch(tag) else ""
    chunks = _received(url, response, patience, wire)
    if status == 200:  # also where a range was asked for: it is not granted, or the file is another
        return Answer(0, response.length, tag, chunks)
    found = _RANGE.fullmatch(response.getheader("Content-Range", ""))
    if found is None or int(found[1]) != start:
        raise NoSuchRange("the server sends another range than was asked for", where=url)
    return Answer(start, None if found[3] == "*" else int(found[3]), tag, chunks)


def _received(url: str, response: http.client.HTTPResponse, patience: Patience, wire: _Wire) -> Iterator[bytes]:
    while True:
        with _words(url, patience):
            piece = response.read1(CHUNK_BYTES)
        if not piece:
            return
        wire.brought(len(piece))
        yield piece


class _Wire(io.RawIOBase):
    """A connected socket that looks at the clock before it waits for bytes, those of headers included.

    It gives no more than ``MOST_BESIDE`` bytes and ``MOST_TIMES`` those that were ``brought``.
    """

    def __init__(self, sock: Any, patience: Patience, where: str) -> None:  # noqa: ANN401 - a socket, plain or of TLS
        self._socket = sock
        self._patience = patience
        self._where = where
        self._left = MOST_BESIDE
        patience.again()

    def brought(self, count: int) -> None:
        """Count bytes of the file itself."""
        self._left += MOST_TIMES * count

    def makefile(self, *_: object) -> io.BufferedReader:
        """Return a stream that reads from it."""
        return io.BufferedReader(self, CHUNK_BYTES)

    def sendall(self, data: bytes) -> None:
        """Send all."""
        self._socket.settimeout(self._patience.left())
        self._socket.sendall(data)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any writable buffer
        """Receive bytes; 0 at the end."""
        self._socket.settimeout(self._patience.left())
        count: int = self._socket.recv_into(buffer)
        self._patience.came(count)
        self._left -= count
        if self._left < 0:
            raise Refused("the server sends headers or marks of chunks without end", where=self._where, next_step=_LOOK)
        return count

    def close(self) -> None:
        """Keep it open: http.client closes before the answer is read; ``hang_up`` closes."""

    def hang_up(self) -> None:
        """Close the connection."""
        self._socket.close()
