"""What counts as an answer: every status, tag, range and redirect that a server may give, over real connections."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.errors import EnvironmentFault, Refused
from haversack.deliver.patience import Bounds, Patience, TooSlow
from haversack.deliver.transport import Broken, Gone, NoSuchRange, opened

CONTENT = bytes(range(256)) * 4
SHORT = Bounds(deadline_seconds=1.0)


@pytest.fixture
def ask(quick):
    """A function that asks a URL, and returns the start, total, tag and bytes of the answer."""

    def make(url, **how):
        with opened(url, Patience(quick, url), **how) as answer:
            return answer.start, answer.total, answer.tag, b"".join(answer.chunks)

    return make


def says(status, *lines, body=b""):
    """Return the behaviour of a server that says this and hangs up."""

    def answer(request):
        request.head(status, *lines)
        request.send(body)

    return answer


STATUSES = [
    ("201 Created", EnvironmentFault, "does not give it (201 Created)"),
    ("204 No Content", EnvironmentFault, "does not give it (204 No Content)"),
    ("206 Partial Content", EnvironmentFault, "does not give it (206 Partial Content)"),  # nobody asked for a part
    ("304 Not Modified", EnvironmentFault, "does not give it (304 Not Modified)"),
    ("400 Bad Request", EnvironmentFault, "does not give it (400 Bad Request)"),
    ("401 Unauthorized", EnvironmentFault, "does not give it (401 Unauthorized)"),
    ("403 Forbidden", Gone, "(403 Forbidden)"),
    ("404 Not Found", Gone, "(404 Not Found)"),
    (f"404 {'x' * 9000}", Gone, f"(404 {'x' * 60})"),
    ("408 Request Timeout", Broken, "busy (408 Request Timeout)"),
    ("410 Gone", Gone, "(410 Gone)"),
    ("416 Range Not Satisfiable", NoSuchRange, "no byte 0"),
    ("418 I'm a teapot", EnvironmentFault, "(418 I'm a teapot)"),
    ("425 Too Early", Broken, "busy (425"),
    ("429 Too Many Requests", Broken, "busy (429"),
    ("500 Internal Server Error", Broken, "busy (500"),
    ("501 Not Implemented", EnvironmentFault, "(501 Not Implemented)"),
    ("502 Bad Gateway", Broken, "busy (502"),
    ("503 Service Unavailable", Broken, "busy (503"),
    ("504 Gateway Timeout", Broken, "busy (504"),
    ("505 HTTP Version Not Supported", EnvironmentFault, "(505"),
]


def test_every_status(serve, ask):
    server = serve(None)
    for status, kind, cause in STATUSES:
        server.script.append(says(status, "Content-Length: 0"))
        with pytest.raises(EnvironmentFault) as caught:
            ask(f"{server.url}/blob")
        assert type(caught.value) is kind, status
        assert cause in caught.value.cause
        assert caught.value.where == f"{server.url}/blob"
        assert caught.value.exit_code == 6


TAGS = [
    ('"abc"', '"abc"'),
    ('"' + "a" * 200 + '"', '"' + "a" * 200 + '"'),
    ('"' + "a" * 201 + '"', ""),
    ('W/"abc"', ""),  # a weak one says nothing of bytes
    ("abc", ""),
    ('"', ""),
    ('""', ""),
    ('"a"b"', ""),
    ('"a b"', ""),
    ('"a\x7fb"', ""),
    ('"é"', ""),
    ('"a", "b"', ""),
]


def test_only_a_strong_tag_is_a_tag(serve, ask):
    server = serve(None)
    for said, tag in TAGS:
        server.script.append(says("200 OK", f"Content-Length: {len(CONTENT)}", f"ETag: {said}", body=CONTENT))
        assert ask(server.url) == (0, len(CONTENT), tag, CONTENT), said


RANGES = [
    ("bytes 4-1023/1024", 1024),
    ("bytes 4-1023/*", None),
    ("bytes 4-1023/4096", 4096),  # that it says more than there is, is the business of fetch
    ("bytes 3-1023/1024", NoSuchRange),
    ("bytes 5-1023/1024", NoSuchRange),
    ("bytes 0-1023/1024", NoSuchRange),
    ("bytes */1024", NoSuchRange),
    ("bytes 4-1023", NoSuchRange),
    ("bytes=4-1023/1024", NoSuchRange),
    ("octets 4-1023/1024", NoSuchRange),
    ("bytes -4-1023/1024", NoSuchRange),
    ("bytes 4-1023/-1", NoSuchRange),
    ("bytes 4-1023/" + "9" * 16, NoSuchRange),
    ("bytes " + "0" * 16 + "4-1023/1024", NoSuchRange),
    ("bytes ٤-1023/1024".encode().decode("latin-1"), NoSuchRange),  # digits of another script
    ("", NoSuchRange),
]


def test_every_range(serve, ask):
    server = serve(None)
    for said, total in RANGES:
        lines = ["Content-Length: 1020", 'ETag: "one"'] + [f"Content-Range: {said}"] * bool(said)
        server.script.append(says("206 Partial Content", *lines, body=CONTENT[4:]))
        if total is NoSuchRange:
            with pytest.raises(NoSuchRange, match="another range than was asked for"):
                ask(server.url, start=4)
        else:
            assert ask(server.url, start=4) == (4, total, '"one"', CONTENT[4:]), said


@pytest.mark.parametrize("start, tag", [(0, ""), (0, '"one"'), (7, ""), (7, '"one"')])
def test_what_is_asked(serve, good, ask, start, tag):
    """A range only where something was fetched before, and If-Range only with a range (RFC 9110, 13.1.5)."""
    server = serve(good(CONTENT))
    ask(f"{server.url}/a%20b?x=1#never-sent", start=start, tag=tag)
    asked = server.requests[0]
    assert asked.line == "GET /a%20b?x=1 HTTP/1.1"
    assert asked.headers.get("range") == (f"bytes={start}-" if start else None)
    assert asked.headers.get("if-range") == (tag if start and tag else None)
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["connection"] == "close"
    assert asked.headers["user-agent"].startswith("haversack/")


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "identity, gzip", "x" * 500])
def test_a_coded_answer_is_refused_and_its_name_is_short(serve, ask, coding):
    answer = says("200 OK", "Content-Length: 3", f"Content-Encoding: {coding}", body=b"abc")
    with pytest.raises(Refused, match="coded") as caught:
        ask(serve(answer).url)
    assert len(caught.value.cause) < 120


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_every_redirect_leads_on_with_its_range(serve, good, ask, status):
    target = serve(good(CONTENT))
    source = serve(says(status, f"Location: {target.url}/there", "Content-Length: 0"))
    assert ask(f"{source.url}/here", start=3)[3] == CONTENT[3:]
    assert target.requests[0].headers["range"] == "bytes=3-"


@pytest.mark.parametrize(
    "location, line",
    [
        ("/x", "GET /x "),
        ("x", "GET /a/x "),
        ("../x?q=1", "GET /x?q=1 "),
        ("?q", "GET /a/b?q "),
        ("//{host}/y", "GET /y "),
    ],
)
def test_a_redirect_may_be_relative(serve, good, ask, location, line):
    server = serve(good(CONTENT))
    place = location.format(host=server.url.removeprefix("http://"))
    server.script.append(says("302 Found", f"Location: {place}", "Content-Length: 0"))
    assert ask(f"{server.url}/a/b")[3] == CONTENT
    assert server.requests[1].line.startswith(line)


@pytest.mark.parametrize(
    "location", ["", "file:///etc/passwd", "ftp://h/x", "data:,x", "javascript:x", "gopher://h", "http://["]
)
def test_a_redirect_elsewhere_is_refused(serve, ask, location):
    lines = ["Content-Length: 0"] + [f"Location: {location}"] * bool(location)
    with pytest.raises(Refused, match="it redirects to") as caught:
        ask(serve(says("302 Found", *lines)).url)
    assert caught.value.exit_code == 7


def test_a_circle_of_redirects_ends(serve, ask, quick):
    server = serve(lambda request: request.head("302 Found", "Location: /again", "Content-Length: 0"))
    with pytest.raises(Refused, match=f"more than {quick.redirects} redirects"):
        ask(server.url)
    assert len(server.requests) == quick.redirects + 1


NO_HTTP = [
    b"",
    b"\r\n\r\n",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x16\x03\x01\x00\xa5",
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
]


def test_what_is_no_http_is_a_broken_connection(serve, ask):
    server = serve(None)
    for said in NO_HTTP:
        server.script.append(lambda request, said=said: request.send(said))
        with pytest.raises(Broken, match="the connection broke"):
            ask(server.url)
    assert len(server.requests) == len(NO_HTTP)


def test_a_server_that_says_nothing_is_given_up(serve, ask, quick):
    began = time.monotonic()
    with pytest.raises(TooSlow):
        ask(serve(lambda request: time.sleep(3)).url)
    assert time.monotonic() - began < quick.rate_seconds + 2


def test_no_descriptor_is_left_open(serve, good, ask, tmp_path):
    """After good answers, broken ones, redirects and files of every kind."""
    server = serve(good(CONTENT))
    (tmp_path / "file").write_bytes(CONTENT)
    os.mkfifo(tmp_path / "pipe")
    urls = [server.url, tmp_path.as_uri(), *((tmp_path / name).as_uri() for name in ("file", "pipe", "none"))]

    def all_of_them():
        for url in urls:
            try:
                ask(url)
            except EnvironmentFault:
                continue

    def left():
        names = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return [name for name in names if name.is_relative_to(tmp_path)]

    all_of_them()
    all_of_them()
    assert left() == []


def test_a_folder_and_a_pipe_are_no_files(ask, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        for name, cause in (("", "no regular file"), ("pipe", "no regular file"), ("socket", "cannot be read")):
            with pytest.raises(EnvironmentFault, match=cause) as caught:
                ask((tmp_path / name).as_uri())
            assert not isinstance(caught.value, Broken | Gone)
            assert caught.value.where == (tmp_path / name).as_uri()


@pytest.mark.parametrize("start", [0, 1, 1023, 1024])
def test_a_file_from_any_byte_on(ask, tmp_path, start):
    (tmp_path / "ä b%").write_bytes(CONTENT)
    found = ask((tmp_path / "ä b%").as_uri(), start=start, tag='"other"')
    assert found[:2] == (start, 1024)
    assert found[3] == CONTENT[start:]


def test_a_file_that_is_shorter_than_what_came_or_not_there(ask, tmp_path):
    (tmp_path / "x").write_bytes(CONTENT)
    with pytest.raises(NoSuchRange, match="it has 1024 bytes, and byte 1025 was asked for"):
        ask((tmp_path / "x").as_uri(), start=1025)
    with pytest.raises(Gone, match="no such file"):
        ask((tmp_path / "y").as_uri())
    with pytest.raises(EnvironmentFault, match="not a directory") as caught:
        ask((tmp_path / "x" / "y").as_uri())
    assert not isinstance(caught.value, Gone)


def test_the_tag_of_a_file_changes_with_it(ask, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(CONTENT)
    first = ask(path.as_uri())[2]
    assert first == ask(path.as_uri(), start=5)[2] != ""
    os.utime(path, ns=(1, 1))
    second = ask(path.as_uri())[2]
    path.write_bytes(CONTENT + b"x")
    os.utime(path, ns=(1, 1))
    assert len({first, second, ask(path.as_uri())[2]}) == 3


@settings(max_examples=30)
@given(
    begin=st.sampled_from(["http://[", "http://127.0.0.1:x", "https://127.0.0.1:/ ", "file:///nowhere/", "file:", ""]),
    rest=st.text(max_size=9),
)
def test_any_text_is_refused_or_told(begin, rest):
    """None of these names a file or a server that is there; what is raised is one of ours."""
    with pytest.raises((Refused, EnvironmentFault)) as caught, opened(begin + rest, Patience(SHORT, "x")) as answer:
        assert answer.total is None
    assert caught.value.exit_code in {6, 7}
    assert len(caught.value.where) <= 200


def endless(begin, piece):
    """Return the behaviour of a server that begins well and then sends the same for ever."""

    def answer(request):
        request.send(begin)
        while request.send(piece * 1000):
            pass

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CHUNKED + b"4\r\nabcd\r\n0\r\n", b"X-More: and more\r\n"),
        (CHUNKED, b"1;" + b"x" * 60_000 + b"\r\na\r\n"),
    ],
    ids=["interim answers", "trailers", "marks of chunks"],
)
def test_what_comes_without_end_is_not_waited_for(serve, begin, piece):
    server, began = serve(endless(begin, piece)), time.monotonic()
    url = f"{server.url}/blob"
    patience = Patience(Bounds(deadline_seconds=60, least_rate=1.0), url)
    with pytest.raises(Refused) as caught, opened(url, patience) as answer:
        for _ in answer.chunks:
            pass
    assert "without end" in caught.value.cause
    assert "curl -I" in caught.value.next_step
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("status", "lines", "step"),
    [
        ("401 Unauthorized", (), "without a login"),
        ("204 No Content", (), "curl -I"),
        ("302 Found", ("Location: ftp://elsewhere/x",), "--repository"),
        ("302 Found", ("Location: /blob",), "--repository"),
        ("200 OK", ("Content-Encoding: gzip",), "compress nothing"),
    ],
)
def test_refusals_say_what_to_do(serve, ask, status, lines, step):
    server = serve(says(status, "Content-Length: 0", *lines))
    with pytest.raises((EnvironmentFault, Refused)) as caught:
        ask(f"{server.url}/blob")
    assert step in caught.value.next_step
