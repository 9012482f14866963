"""Downloads against servers that really do what a hostile or a poor one does."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.base.errors import EnvironmentFault, Refused
from haversack.deliver.fetch import fetch
from haversack.deliver.patience import TooSlow

CONTENT = random.Random(0).randbytes(300_000)


def part(folder):
    return next(folder.glob("*.part"))


def test_a_file_is_fetched_and_told(serve, good, wanted, quick, tmp_path):
    server, events = serve(good(CONTENT)), []
    took = fetch(wanted(server, CONTENT), tmp_path, quick, events.append)
    assert took.path.read_bytes() == CONTENT
    assert took.bytes == len(CONTENT)
    assert events[-1].done == events[-1].total == len(CONTENT)
    assert events[0].done > 0
    assert events[0].data["bytes_per_second"] > 0
    assert events[-1].data["seconds_left"] == 0
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_an_empty_file(serve, good, wanted, quick, tmp_path):
    took = fetch(wanted(serve(good(b"")), b""), tmp_path, quick)
    assert took.path.read_bytes() == b""


def test_what_came_is_not_fetched_again(serve, good, wanted, quick, tmp_path):
    server = serve(good(CONTENT))
    asked = wanted(server, CONTENT)
    first = fetch(asked, tmp_path, quick, most=70_000)
    assert 70_000 <= first.bytes < len(CONTENT)
    second = fetch(asked, tmp_path, quick)
    assert first.bytes + second.bytes == len(CONTENT)
    assert server.requests[1].headers["range"] == f"bytes={first.bytes}-"
    assert server.requests[1].headers["if-range"] == '"one"'
    assert second.path.read_bytes() == CONTENT
    assert fetch(asked, tmp_path, quick).bytes == 0
    assert len(server.requests) == 2


def test_what_came_survives_kill_9(serve, good, wanted, quick, tmp_path, environment):
    def slow_end(request):
        request.head("200 OK", f"Content-Length: {len(CONTENT)}", 'ETag: "one"')
        request.send(CONTENT[:200_000])
        request.connection.recv(1)  # until the client is gone

    server = serve(good(CONTENT))
    server.script.append(slow_end)
    asked = wanted(server, CONTENT)
    script = (
        "import sys; from pathlib import Path; from haversack.deliver.fetch import Wanted, fetch\n"
        f"fetch(Wanted({asked.url!r}, {asked.bytes}, {asked.sha256!r}), Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    until = time.monotonic() + 20
    while time.monotonic() < until and not any(path.stat().st_size == 200_000 for path in tmp_path.glob("*.part")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    took = fetch(asked, tmp_path, quick)
    assert took.bytes == 100_000
    assert took.path.read_bytes() == CONTENT


def test_a_connection_that_breaks_is_tried_again(serve, good, wanted, quick, tmp_path):
    def broken(request):
        request.head("200 OK", f"Content-Length: {len(CONTENT)}", 'ETag: "one"')
        request.send(CONTENT[:100_000])

    server = serve(good(CONTENT))
    server.script += [broken, lambda request: request.head("503 Busy", "Content-Length: 0"), lambda request: None]
    assert fetch(wanted(server, CONTENT), tmp_path, quick).path.read_bytes() == CONTENT
    assert [request.start for request in server.requests] == [0, 100_000, 100_000, 100_000]


def test_truncated_ranges_go_on_as_long_as_bytes_come(serve, wanted, quick, tmp_path):
    def forty(request):
        start = request.start
        body, size = CONTENT[start : start + 40_000], len(CONTENT)
        status = "206 Partial Content" if start else "200 OK"
        lines = [f"Content-Length: {size - start}", 'ETag: "one"']
        lines += [f"Content-Range: bytes {start}-{size - 1}/{size}"] if start else []
        request.head(status, *lines)
        request.send(body)

    server = serve(forty)
    assert fetch(wanted(server, CONTENT), tmp_path, quick).path.read_bytes() == CONTENT
    assert len(server.requests) == 8


def test_a_server_that_gives_up_is_given_up(serve, wanted, quick, tmp_path):
    server = serve(lambda request: request.head("503 Busy", "Content-Length: 0"))
    with pytest.raises(EnvironmentFault, match="busy") as caught:
        fetch(wanted(server, CONTENT), tmp_path, quick)
    assert len(server.requests) == quick.attempts
    assert "goes on from where it was" in caught.value.next_step


def test_a_server_that_ignores_ranges(serve, good, wanted, quick, tmp_path):
    def whole(request):
        request.headers.pop("range", None)
        good(CONTENT)(request)

    server = serve(whole)
    asked = wanted(server, CONTENT)
    fetch(asked, tmp_path, quick, most=70_000)
    took = fetch(asked, tmp_path, quick)
    assert took.path.read_bytes() == CONTENT
    assert took.bytes == len(CONTENT)


def test_a_server_that_ignores_ranges_and_breaks_does_not_go_on_for_ever(serve, wanted, quick, tmp_path):
    def half(request):
        request.head("200 OK", f"Content-Length: {len(CONTENT)}")
        request.send(CONTENT[:150_000])

    server = serve(half)
    with pytest.raises(EnvironmentFault, match="broke off after 150000 of 300000"):
        fetch(wanted(server, CONTENT), tmp_path, quick)
    assert len(server.requests) == 1 + quick.attempts


def test_a_changed_file_is_fetched_from_its_beginning(serve, good, wanted, quick, tmp_path):
    old = bytes(len(CONTENT))
    server = serve(good(CONTENT, '"two"'))
    server.script.append(good(old, '"one"'))
    asked = wanted(server, CONTENT)
    fetch(asked, tmp_path, quick, most=70_000)
    assert fetch(asked, tmp_path, quick).path.read_bytes() == CONTENT
    assert server.requests[1].headers["if-range"] == '"one"'


def test_a_range_of_another_file_is_not_added(serve, wanted, good, quick, tmp_path):
    """A server that answers If-Range of another file with a range of its own."""

    def careless(request):
        request.headers.pop("if-range", None)
        good(CONTENT, '"two"')(request)

    server = serve(careless)
    server.script.append(good(bytes(len(CONTENT)), '"one"'))
    asked = wanted(server, CONTENT)
    fetch(asked, tmp_path, quick, most=70_000)
    assert fetch(asked, tmp_path, quick).path.read_bytes() == CONTENT


def test_a_part_of_another_file_without_tag_shows_by_its_hash(serve, good, wanted, quick, tmp_path):
    server = serve(good(CONTENT))
    asked = wanted(server, CONTENT)
    (tmp_path / f"{asked.sha256}.part").write_bytes(bytes(1000))
    took = fetch(asked, tmp_path, quick)
    assert took.path.read_bytes() == CONTENT
    assert [request.start for request in server.requests] == [1000, 0]


def test_a_part_that_is_too_long_is_thrown_away(serve, good, wanted, quick, tmp_path):
    server = serve(good(CONTENT))
    asked = wanted(server, CONTENT)
    (tmp_path / f"{asked.sha256}.part").write_bytes(bytes(len(CONTENT) + 1))
    assert fetch(asked, tmp_path, quick).path.read_bytes() == CONTENT


def test_other_content_is_refused_and_not_kept(serve, good, wanted, quick, tmp_path):
    server = serve(good(CONTENT[:-1] + b"x"))
    with pytest.raises(Refused, match="another sha256"):
        fetch(wanted(server, CONTENT), tmp_path, quick)
    assert list(tmp_path.iterdir()) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "said, kind", [(300_001, Refused), (10**15, Refused), (299_999, EnvironmentFault), (0, EnvironmentFault)]
)
def test_a_wrong_length_is_seen_before_a_byte_is_written(serve, wanted, quick, tmp_path, said, kind):
    def lying(request):
        request.head("200 OK", f"Content-Length: {said}")
        request.send(CONTENT)

    with pytest.raises(kind, match=f"the server says {said} bytes, and the release 300000"):
        fetch(wanted(serve(lying), CONTENT), tmp_path, quick)
    assert part(tmp_path).stat().st_size == 0


@pytest.mark.parametrize("coded", [False, True], ids=["bare", "chunked"])
def test_endless_data_are_cut_before_they_are_written(serve, wanted, quick, tmp_path, coded):
    def endless(request):
        request.head("200 OK", *(["Transfer-Encoding: chunked"] if coded else []))
        piece = b"10000\r\n" + bytes(1 << 16) + b"\r\n" if coded else bytes(1 << 16)
        while request.send(piece):
            pass

    with pytest.raises(Refused, match="more than 300000 bytes came"):
        fetch(wanted(serve(endless), CONTENT), tmp_path, quick)
    assert list(tmp_path.iterdir()) == []


def test_chunks_are_read(serve, wanted, quick, tmp_path):
    def chunked(request):
        request.head("200 OK", "Transfer-Encoding: chunked")
        for start in range(0, len(CONTENT), 70_000):
            piece = CONTENT[start : start + 70_000]
            request.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        request.send(b"0\r\n\r\n")

    assert fetch(wanted(serve(chunked), CONTENT), tmp_path, quick).path.read_bytes() == CONTENT


def trickle_body(request):
    request.head("200 OK", f"Content-Length: {len(CONTENT)}")
    while request.send(b"x"):
        time.sleep(0.02)


def trickle_headers(request):
    request.send(b"HTTP/1.1 200 OK\r\n")
    while request.send(b"X-A: b\r\n"):
        time.sleep(0.02)


def silence(request):
    time.sleep(3)


@pytest.mark.parametrize("behaviour", [trickle_body, trickle_headers, silence], ids=lambda one: one.__name__)
def test_a_slow_server_is_given_up(serve, wanted, quick, tmp_path, behaviour):
    began = time.monotonic()
    with pytest.raises(TooSlow, match="is the least") as caught:
        fetch(wanted(serve(behaviour), CONTENT), tmp_path, quick)
    assert time.monotonic() - began < 2
    assert "goes on" in caught.value.next_step


def test_a_deadline_holds_for_all_attempts_together(serve, wanted, quick, tmp_path):
    def steady(request):
        request.head("200 OK", f"Content-Length: {len(CONTENT)}")
        for start in range(0, len(CONTENT), 1000):
            if not request.send(CONTENT[start : start + 1000]):
                return
            time.sleep(0.05)

    began = time.monotonic()
    with pytest.raises(TooSlow, match="longer than 1 s"):
        fetch(wanted(serve(steady), CONTENT), tmp_path, dataclasses.replace(quick, deadline_seconds=1.0))
    assert 0.9 < time.monotonic() - began < 2
    assert part(tmp_path).stat().st_size > 5000


def test_nobody_listens(wanted, quick, tmp_path, serve, good):
    server = serve(good(CONTENT))
    asked = wanted(server, CONTENT)
    server.stop()
    with pytest.raises(EnvironmentFault, match="connection refused"):
        fetch(asked, tmp_path, quick)


def test_coded_content_is_refused(serve, wanted, quick, tmp_path):
    server = serve(lambda request: request.head("200 OK", "Content-Encoding: gzip", "Content-Length: 300000"))
    with pytest.raises(Refused, match="coded"):
        fetch(wanted(server, CONTENT), tmp_path, quick)


def test_redirects_are_followed_and_bounded(serve, good, wanted, quick, tmp_path):
    server = serve(good(CONTENT))
    server.script += [lambda request: request.head("302 Found", "Location: /elsewhere?x=1", "Content-Length: 0")] * 5
    assert fetch(wanted(server, CONTENT), tmp_path, quick).path.read_bytes() == CONTENT
    assert server.requests[-1].line == "GET /elsewhere?x=1 HTTP/1.1"
    loop = serve(lambda request: request.head("302 Found", "Location: /blob", "Content-Length: 0"))
    with pytest.raises(Refused, match="more than 5 redirects"):
        fetch(wanted(loop, CONTENT[:-1]), tmp_path, quick)
    assert len(loop.requests) == 6


@pytest.mark.parametrize("there", ["file:///etc/passwd", "ftp://127.0.0.1/x", "", "http://[", "data:,x"])
def test_redirects_elsewhere_are_refused(serve, wanted, quick, tmp_path, there):
    server = serve(lambda request: request.head("302 Found", f"Location: {there}", "Content-Length: 0"))
    with pytest.raises(Refused, match="redirects to"):
        fetch(wanted(server, CONTENT), tmp_path, quick)


def test_tls_is_used_and_not_left(serve, good, wanted, quick, tmp_path, certificate):
    plain = serve(good(CONTENT))
    server = serve(good(CONTENT), certificate)
    assert fetch(wanted(server, CONTENT), tmp_path, quick).path.read_bytes() == CONTENT
    server.script.append(lambda request: request.head("302 Found", f"Location: {plain.url}/", "Content-Length: 0"))
    with pytest.raises(Refused, match="not followed"):
        fetch(wanted(server, CONTENT[:-1]), tmp_path, quick)
    assert plain.requests == []


def test_a_strangers_certificate_is_refused(serve, good, wanted, quick, tmp_path, certificate, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Refused, match="certificate"):
        fetch(wanted(serve(good(CONTENT), certificate), CONTENT), tmp_path, quick)


@pytest.mark.parametrize("status", [403, 404, 410, 500 + 1, 204])
def test_what_is_not_there_is_told_at_once(serve, wanted, quick, tmp_path, status):
    server = serve(lambda request: request.head(f"{status} Such", "Content-Length: 0"))
    with pytest.raises(EnvironmentFault, match=f"does not give it \\({status} Such\\)"):
        fetch(wanted(server, CONTENT), tmp_path, quick)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "http://[::1", "http://127.0.0.1:x/", "gopher:", "http://a b/", "http://127.0.0.1/\n"]
)
def test_what_is_no_url_is_refused(wanted, serve, good, quick, tmp_path, url):
    with pytest.raises((Refused, EnvironmentFault)):
        fetch(wanted(serve(good(b"")), CONTENT, url=url), tmp_path, quick)


def test_files(wanted, quick, tmp_path, serve, good):
    source = tmp_path / "a source"
    source.write_bytes(CONTENT)
    asked = wanted(serve(good(b"")), CONTENT, url=source.as_uri())
    folder = tmp_path / "into"
    folder.mkdir()
    fetch(asked, folder, quick, most=1)
    assert fetch(asked, folder, quick).path.read_bytes() == CONTENT
    source.write_bytes(CONTENT[:-1])
    part(folder).unlink()
    with pytest.raises(EnvironmentFault, match="says 299999 bytes"):
        fetch(asked, folder, quick)
    source.unlink()
    with pytest.raises(EnvironmentFault, match="no such file"):
        fetch(asked, folder, quick)
    os.mkfifo(source)
    with pytest.raises(EnvironmentFault, match="no regular file"):
        fetch(asked, folder, quick)


def test_a_link_in_the_place_of_a_part_is_not_followed(serve, good, wanted, quick, tmp_path):
    asked = wanted(serve(good(CONTENT)), CONTENT)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "into"
    folder.mkdir()
    (folder / f"{asked.sha256}.part").symlink_to(victim)
    with pytest.raises(EnvironmentFault):
        fetch(asked, folder, quick)
    assert victim.read_text() == "mine"


ODD = st.tuples(
    st.sampled_from(["whole", "rest", "0", "1", "1000000000"]),
    st.sampled_from(["200 OK", "206 Partial Content", "416 No", "500 No", "garbage"]),
    st.integers(0, 2),
    st.sampled_from(['"one"', '"two"', 'W/"one"', "one", ""]),
    st.floats(0, 1),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 200_000), answers=st.lists(ODD, max_size=3))
def test_any_cuts_and_any_words_end_in_the_file_or_an_error(
    serve, good, wanted, quick, tmp_path_factory, count, answers
):
    """Whatever a server says, what is called fetched is the file."""
    content, folder = CONTENT[:count], tmp_path_factory.mktemp("any")

    def odd(said, status, shift, tag, much, request):
        start = min(request.start, count)
        size = {"whole": count, "rest": count - start}.get(said, said)
        place = f"Content-Range: bytes {start + shift}-{count - 1}/{count}"
        request.head(status, f"Content-Length: {size}", place, f"ETag: {tag}")
        request.send(content[start : start + round(much * (count - start))])

    server = serve(good(content))
    server.script += [partial(odd, *answer) for answer in answers]
    try:
        took = fetch(wanted(server, content), folder, quick)
    except (EnvironmentFault, Refused):
        assert all(path.stat().st_size <= max(count, 300) for path in folder.iterdir())
    else:
        assert took.path.read_bytes() == content
    server.stop()
