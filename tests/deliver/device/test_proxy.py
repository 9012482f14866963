"""A proxy that the environment names is used, for https as a tunnel, and the bounds of a transfer stay."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import EnvironmentFault, Refused
from haversack.deliver import proxy
from haversack.deliver.patience import Bounds, Patience, TooSlow
from haversack.deliver.transport import Broken, opened

CONTENT = bytes(range(256)) * 4
CALM = Bounds(deadline_seconds=60.0, rate_seconds=30.0)


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    """No proxy of this machine's own."""
    for name in ("http", "https", "all", "no"):
        for written in (f"{name}_proxy", f"{name.upper()}_PROXY"):
            monkeypatch.delenv(written, raising=False)


def ask(url, bounds=CALM, **how):
    with opened(url, Patience(bounds, url), **how) as answer:
        return answer.start, b"".join(answer.chunks)


def pumped(source, sink):
    with contextlib.suppress(OSError):
        while piece := source.recv(4096):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)


def forwards(request):
    """Behave as a proxy: a tunnel for CONNECT, and the request itself for a whole URL."""
    method, where, _ = request.line.split(" ")
    parts = urlsplit(f"//{where}" if method == "CONNECT" else where)
    with socket.create_connection((parts.hostname, parts.port), 5) as there:
        if method == "CONNECT":
            request.head("200 Connection established")
        else:
            told = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}"]
            told += [f"Range: {request.headers['range']}"] if "range" in request.headers else []
            there.sendall("\r\n".join([*told, "", ""]).encode())
        back = threading.Thread(target=pumped, args=(request.connection, there), daemon=True)
        back.start()
        pumped(there, request.connection)


def test_http_goes_through_it(serve, good, monkeypatch):
    site, between = serve(good(CONTENT)), serve(forwards)
    monkeypatch.setenv("HTTP_PROXY", f"http://me:pass%20word@127.0.0.1:{between.port}/")
    assert ask(f"{site.url}/blob") == (0, CONTENT)
    assert ask(f"{site.url}/blob", start=1000) == (1000, CONTENT[1000:])
    assert [one.line for one in between.requests] == [f"GET {site.url}/blob HTTP/1.1"] * 2
    assert between.requests[0].headers["proxy-authorization"] == "Basic bWU6cGFzcyB3b3Jk"
    assert between.requests[0].headers["host"] == f"127.0.0.1:{site.port}"
    assert "proxy-authorization" not in site.requests[0].headers


def test_https_goes_through_a_tunnel_and_the_proxy_sees_nothing(serve, good, certificate, monkeypatch):
    site, between = serve(good(CONTENT), certificate), serve(forwards)
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{between.port}")  # without a scheme, as many write it
    assert ask(f"{site.url}/blob") == (0, CONTENT)
    (seen,) = between.requests
    assert seen.line == f"CONNECT 127.0.0.1:{site.port} HTTP/1.1"
    assert {*seen.headers} == {"host"}
    assert site.requests[0].line == "GET /blob HTTP/1.1"


def test_a_proxy_that_answers_for_the_host_is_found_out(serve, good, certificate, monkeypatch):
    other = serve(good(b"something else"), certificate)

    def elsewhere(request):
        request.line = request.line.replace("models.example:443", f"127.0.0.1:{other.port}")
        forwards(request)

    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{serve(elsewhere).port}")
    with pytest.raises(Refused, match="certificate is not to be trusted"):
        ask("https://models.example/blob")
    assert not other.requests


def test_a_host_that_is_excepted_is_asked_itself(serve, good, monkeypatch):
    site = serve(good(CONTENT))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(Broken):
        ask(f"{site.url}/blob")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert ask(f"{site.url}/blob") == (0, CONTENT)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        ("407 Proxy Authentication Required", EnvironmentFault, "HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"),
        ("403 Forbidden", EnvironmentFault, "does not let the device through (403 Forbidden)"),
        ("503 Service Unavailable", Broken, "it is busy (503 Service Unavailable)"),
        ("twohundred OK", EnvironmentFault, "does not let the device through (0 OK)"),
    ],
)
def test_a_proxy_that_refuses(serve, monkeypatch, status, kind, said):
    between = serve(lambda request: request.head(status))
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{between.port}")
    with pytest.raises(kind) as caught:
        ask("https://models.example/blob")
    assert said in str(caught.value)
    assert (kind is Broken) == isinstance(caught.value, Broken)
    assert f"127.0.0.1:{between.port}" in str(caught.value)


def test_a_proxy_that_never_ends_its_answer(serve, monkeypatch):
    def endless(request):
        request.send(b"HTTP/1.1 200 OK\r\n")
        while request.send(b"X-More: " + b"a" * 1000 + b"\r\n"):
            pass

    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{serve(endless).port}")
    with pytest.raises(EnvironmentFault, match=f"{proxy.LARGEST_HEAD} bytes that are no answer to CONNECT"):
        ask("https://models.example/blob")


def test_a_proxy_that_drips_its_answer_is_under_the_same_clock(serve, monkeypatch):
    def drips(request):
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
            if not request.send(bytes([byte])):
                return
            time.sleep(0.05)

    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{serve(drips).port}")
    began = time.monotonic()
    with pytest.raises((TooSlow, Broken)):
        ask("https://models.example/blob", Bounds(deadline_seconds=1.0))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("address", ["https://proxy:1", "socks5://proxy:1", "http://", "http://[::1", "http://a:b"])
def test_what_is_no_proxy_is_told_and_no_password_with_it(monkeypatch, address):
    monkeypatch.setenv("ALL_PROXY", address.replace("://", "://me:secret@"))
    with pytest.raises(EnvironmentFault, match="HTTPS_PROXY: it names no proxy that is spoken to") as caught:
        proxy.of(urlsplit("https://models.example/"))
    assert "secret" not in str(caught.value)


@given(st.text(max_size=40).filter(lambda text: "\0" not in text and text.isprintable()))
def test_any_words_in_the_environment_are_a_proxy_or_a_fault(text):
    before = os.environ.get("https_proxy")
    os.environ["https_proxy"] = text
    try:
        found = proxy.of(urlsplit("https://models.example/blob"))
    except EnvironmentFault as error:
        assert "HTTPS_PROXY" in str(error)
    else:
        assert found is None or (found.host and 0 < found.port < 65536)
    finally:
        del os.environ["https_proxy"]
        if before is not None:
            os.environ["https_proxy"] = before
