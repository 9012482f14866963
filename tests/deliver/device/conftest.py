"""Real servers that misbehave in stated ways, and a model small enough to be updated hundreds of times."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import ipaddress
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field

import pytest
from shop import Shop, tried_here

from haversack.deliver.fetch import Wanted
from haversack.deliver.patience import Bounds
from haversack.flow.client import Client

QUICK = Bounds(deadline_seconds=5.0, least_rate=1000.0, rate_seconds=0.5, attempts=3, pause_seconds=0.01)


@dataclass
class Request:
    """What a client asked, and the connection to answer on."""

    line: str
    headers: dict[str, str]
    connection: socket.socket

    @property
    def start(self):
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else 0

    def send(self, data):
        with contextlib.suppress(OSError):  # the client may have hung up, as it should
            self.connection.sendall(data)
            return True
        return False

    def head(self, status, *lines):
        return self.send("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())


def ranged(content, tag='"one"'):
    """Return the behaviour of a good server: ranges, If-Range, a strong tag."""

    def answer(request):
        start = request.start
        if request.headers.get("if-range", tag) != tag:
            start = 0
        if start > len(content):
            request.head("416 Range Not Satisfiable", "Content-Length: 0")
            return
        body = content[start:]
        lines = [f"Content-Length: {len(body)}", f"ETag: {tag}"]
        if start:
            request.head(
                "206 Partial Content", *lines, f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}"
            )
        else:
            request.head("200 OK", *lines)
        request.send(body)

    return answer


@dataclass
class Server:
    """Answers every connection by ``behaviour``, or by the next of ``script`` while there is one."""

    behaviour: object
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    script: list = field(default_factory=list)
    stopped: bool = False
    answering: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.1)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def port(self):
        return self.socket.getsockname()[1]

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def _serve(self):
        while not self.stopped:
            with contextlib.suppress(OSError):
                connection, _ = self.socket.accept()
                self.answering.append(threading.Thread(target=self._one, args=(connection,), daemon=True))
                self.answering[-1].start()

    def _one(self, connection):
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self.tls:
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
            data = b""
            while b"\r\n\r\n" not in data:
                piece = connection.recv(4096)
                if not piece:
                    return
                data += piece
            line, *rest = data.decode().split("\r\n\r\n")[0].split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
            request = Request(line, headers, connection)
            self.requests.append(request)
            (self.script.pop(0) if self.script else self.behaviour)(request)

    def stop(self):
        self.stopped = True
        self.socket.close()
        for thread in (self.thread, *self.answering):
            thread.join(10)
            assert not thread.is_alive(), "a server answers for ever, and slows all tests after this one"


@pytest.fixture
def serve():
    """A function that starts a server with a behaviour."""
    servers = []

    def start(behaviour, tls=None):
        servers.append(Server(behaviour, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def good():
    return ranged


@pytest.fixture
def quick():
    return QUICK


@pytest.fixture
def wanted():
    """A function that says what is to be fetched from a server."""

    def make(server, content, **other):
        found = {"url": f"{server.url}/blob", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return Wanted(**{**found, **other})

    return make


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """The context of a server on this machine whose certificate this process trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = tmp_path / "server.crt", tmp_path / "server.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    return context


@pytest.fixture
def shop(tmp_path):
    """A repository with the release 1.0.0, whose model answers 1 first."""
    made = Shop.create(tmp_path)
    made.publish("1.0.0", 1.0)
    return made


@pytest.fixture
def told():
    """What the device of ``updated`` is told, from then on."""
    return []


@pytest.fixture
def updated(shop, tmp_path, told):
    """A device with release 1.0.0, and 1.1.0 in use, which answers 2 first."""
    made = Client(tmp_path / "home", shop.url, shop.root, test=tried_here, tune=None, sink=told.append)
    made.update("digits")
    shop.publish("1.1.0", 2.0)
    made.update("digits")
    told.clear()
    return made


@pytest.fixture
def line(updated):
    """The folder of its line."""
    return updated.home.line("digits")
