"""What is typed behind --ray, and what is said when no cluster is there: at once, and before any code of the job."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import EnvironmentFault, MissingExtra, UsageError
from haversack.base.progress import silent
from haversack.base.spread import here
from haversack.flow import cluster, cluster_address
from haversack.flow.cluster import spreading
from haversack.flow.cluster_address import Address, check, parsed


@pytest.mark.parametrize(
    "text, address",
    [
        ("local:2", Address(2)),
        ("head:6379", Address(host="head", port=6379)),
        ("10.0.0.7:6379", Address(host="10.0.0.7", port=6379)),
        ("[::1]:6379", Address(host="[::1]", port=6379)),
    ],
)
def test_an_address_is_read_and_written(text, address):
    assert parsed(text) == address
    assert str(address) == text


def test_local_takes_the_cores_that_there_are():
    assert parsed("local") == Address(len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    "text",
    ["locall", "local:0", "local:", "head", "head:0", "head:65536", "ray://head:10001", "a b:1", "auto", ":6379"],
)
def test_what_is_no_address_is_refused_with_examples(text):
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert repr(text) in str(caught.value)
    assert "--ray local:2" in caught.value.next_step


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(text):
    try:
        found = parsed(text)
    except UsageError:
        return
    assert (found.workers > 0) != (0 < found.port < 1 << 16)


def test_without_an_address_everything_is_done_here():
    with spreading("", silent) as spread:
        assert spread is here
        assert list(spread(lambda shared, task: shared + task, 1, range(3))) == [1, 2, 3]


def test_here_runs_a_task_when_its_result_is_asked_for():
    ran = []
    found = here(lambda shared, task: ran.append(task) or task, None, range(3))
    assert ran == []
    assert next(found) == 0
    assert ran == [0]


@pytest.fixture
def listening():
    """A function that starts a server which says something to whoever connects; it returns its address."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))

        def start(said):
            server.listen()

            def serve():
                with server.accept()[0] as client:
                    client.recv(1 << 10)
                    client.sendall(said)
                    if not said:
                        time.sleep(2)

            threading.Thread(target=serve, daemon=True).start()
            return f"127.0.0.1:{server.getsockname()[1]}"

        yield start


def test_a_port_where_nobody_listens_is_told_at_once(listening):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(EnvironmentFault) as caught:
            check(address)
    assert time.monotonic() - began < 2
    assert caught.value.exit_code == 6
    assert f"no Ray cluster is reached at {address}: connection refused" in str(caught.value)
    assert f"ray start --address={address}" in caught.value.next_step
    assert "ray start --head --port=" + address.partition(":")[2] in caught.value.next_step


def test_a_host_that_is_none_is_told(listening):
    with pytest.raises(EnvironmentFault, match="no Ray cluster is reached at no-such-host.invalid:6379"):
        check("no-such-host.invalid:6379")


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"hello", b"\0" * 9])
def test_another_server_is_no_ray(listening, said):
    with pytest.raises(EnvironmentFault, match="what answers there is no Ray"):
        check(listening(said))


def test_a_server_that_says_nothing_is_no_ray(listening, monkeypatch):
    monkeypatch.setattr(cluster_address, "KNOCK_SECONDS", 0.3)
    with pytest.raises(EnvironmentFault, match="timed out"):
        check(listening(b""))


def test_one_that_speaks_as_ray_does_is_looked_at_no_further(listening, monkeypatch):
    heard = []
    real = cluster_address._knock
    monkeypatch.setattr(cluster_address, "_knock", lambda address: heard.append(real(address)))
    check(listening(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))))
    assert heard == [None]


def test_without_ray_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(cluster_address, "installed", lambda name: "")
    with pytest.raises(MissingExtra) as caught:
        check("local:2")
    assert str(caught.value).splitlines() == [
        "--ray needs the package ray, which is not installed",
        "  next: pip install 'haversack[ray]'",
    ]


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from haversack.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "address, said", [("local:2", "pip install 'haversack[ray]'"), ("127.0.0.1:1", "127.0.0.1:1: connection refused")]
)
def test_the_command_ends_with_6_and_what_comes_next(packed, environment, tmp_path, address, said):
    words = packed.command(tmp_path / "out", "--ray", address)[3:]
    run = [sys.executable, "-c", BLOCKED, *words]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, check=False, timeout=200)
    assert done.returncode == 6, done.stderr
    assert said in done.stderr
    assert "next: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_surroundings_are_as_they_were(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    before = dict(os.environ)
    with cluster._surroundings(local=True):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert dict(os.environ) == before
    with cluster._surroundings(local=False):
        assert os.environ["RAY_AUTH_MODE"] == "disabled", "a cluster that others run has its own settings"


def test_a_process_that_asked_ray_before_there_was_a_token_has_one_then(monkeypatch):
    from ray._raylet import AuthenticationMode, AuthenticationTokenLoader, get_authentication_mode

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster._read_again()
    without = get_authentication_mode()
    with cluster._surroundings(local=True):
        within = get_authentication_mode()
        assert AuthenticationTokenLoader.instance().has_token()
    assert within == AuthenticationMode.TOKEN != without
    assert get_authentication_mode() == without


def test_what_ray_writes_goes_where_its_sockets_have_room(monkeypatch, tmp_path):
    long = tmp_path / ("long" * 10)
    long.mkdir()
    monkeypatch.setattr(cluster, "SHORT", str(tmp_path))
    monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: str(long))
    found = Path(cluster._passing())
    assert found.parent == tmp_path
    monkeypatch.setattr(cluster, "LONGEST", len(str(long)))
    assert Path(cluster._passing()).parent == long


@pytest.mark.parametrize("error", [Exception("timed out\nmore"), ValueError("AF_UNIX"), ConnectionError()])
def test_whatever_keeps_ray_from_starting_is_told_in_words(monkeypatch, error):
    import ray

    def fails(**_):
        raise error

    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(EnvironmentFault) as caught, spreading("local:2", silent):
        pass
    first = (str(error).splitlines() or ["ConnectionError"])[0]
    assert str(caught.value).startswith(f"--ray: no Ray cluster comes up here: {first}")
