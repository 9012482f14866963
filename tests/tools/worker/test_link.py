"""The near end: a keeper in a process of this machine, reached through plain pipes as through any carrier."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from haversack.base.errors import EXIT_ENVIRONMENT
from haversack.tools.worker import keeper, link
from haversack.tools.worker.faults import LinkLost
from haversack.tools.worker.link import Carrier, Link, Parcel

RUN = "import sys;exec(sys.stdin.buffer.read({}))"


def carried(before="", run=RUN, hints=None):
    """Return a carrier that runs Python here, behind a line of the shell."""

    def program(size):
        return ["sh", "-c", f'{before} exec "$0" -u -c "$1"', sys.executable, run.format(size)]

    return Carrier("ssh:board", program, hints or {})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "haversack" / "device"


@pytest.fixture
def parcel(tmp_path):
    data = np.random.default_rng(0).integers(0, 255, 3 << 20, np.uint8).tobytes()
    (tmp_path / "large").write_bytes(data)
    (tmp_path / "empty").write_bytes(b"")
    return Parcel({"model.onnx": tmp_path / "large", "inner/empty": tmp_path / "empty"})


def test_a_question_gets_its_answer():
    with Link(carried()) as found:
        told = found.ask({"ask": "about", "packages": ["numpy"]})
        assert told["version"] == keeper.VERSION
        assert told["python"] == list(sys.version_info[:3])
        assert found.ask({"ask": "has", "files": [["a", 1, "0" * 64]]})["path"] == ""


def test_files_travel_once(cache, parcel):
    with Link(carried()) as found:
        folder = found.place(parcel)
        assert folder.startswith(str(cache))
        kept = Path(folder)
        assert hashlib.sha256((kept / "model.onnx").read_bytes()).hexdigest() == parcel.listing()[1][2]
        assert (kept / "inner" / "empty").stat().st_size == 0
    sent = []
    with Link(carried()) as found:
        real = found._record
        found._record = lambda kind, body: (sent.append(kind), real(kind, body))
        assert found.place(parcel) == folder
    assert keeper.PIECE not in sent


def test_what_a_shell_prints_before_it_is_skipped():
    with Link(carried("echo Welcome to the board; cat /dev/null;")) as found:
        assert found.ask({"ask": "about", "packages": []})["ok"]


def test_a_shell_that_never_stops_printing_is_given_up():
    with pytest.raises(LinkLost, match="it answers with something else"):
        Link(carried("yes haversack; "), seconds=30.0)


def test_no_greeting_in_time_is_told():
    began = time.monotonic()
    with pytest.raises(LinkLost, match=r"ssh:board: no answer within 0\.3 s"):
        Link(carried("sleep 60;"), seconds=0.3)
    assert time.monotonic() - began < 5


def test_a_carrier_s_words_and_what_to_do_then_are_told():
    hints = {"Permission denied": "ssh-copy-id board"}
    with pytest.raises(LinkLost, match="there is no connection to a Python there") as caught:
        Link(carried("echo 'root@board: Permission denied (publickey).' >&2; exit 255;", hints=hints))
    assert "Permission denied (publickey)" in str(caught.value)
    assert caught.value.next_step == "ssh-copy-id board"
    assert caught.value.exit_code == EXIT_ENVIRONMENT
    assert caught.value.where == "--device"


def test_a_program_that_is_not_installed_is_told(tmp_path):
    with pytest.raises(LinkLost, match="No such file or directory: '?no-such-ssh"):
        Link(Carrier("ssh:board", lambda _: ["no-such-ssh"], {}))


def test_a_question_that_fails_there_is_an_error_here_and_the_link_lives():
    with Link(carried()) as found:
        with pytest.raises(OSError, match="ssh:board: ValueError: not a file to keep: '../up'"):
            found.ask({"ask": "put", "files": [["../up", 1, "0" * 64]]})
        assert found.ask({"ask": "about", "packages": []})["ok"]


def test_pieces_of_refused_files_are_no_answers(tmp_path, parcel):
    with Link(carried()) as found:
        listing = parcel.listing()
        listing[1][2] = "0" * 64
        with pytest.raises(OSError, match=r"model.onnx arrived with other bytes"):
            found.ask({"ask": "put", "files": listing}, pieces=[parcel.files[name] for name, *_ in listing])
        listing[1][0] = "../up"
        with pytest.raises(OSError, match="not a file to keep"):
            found.ask({"ask": "put", "files": listing}, pieces=[parcel.files["model.onnx"]])
        assert found.place(parcel)


def test_a_connection_that_ends_is_told():
    with Link(carried()) as found:
        found.kill()
        with pytest.raises(LinkLost, match="the connection ended"):
            found.ask({"ask": "about", "packages": []})


def test_silence_is_a_lost_connection_long_before_a_call_ends(monkeypatch):
    monkeypatch.setattr(link, "SILENCE_SECONDS", 0.5)
    with Link(carried()) as found:
        os.killpg(found.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(LinkLost, match=r"nothing was heard of it for 0\.5 s"):
            found.ask({"ask": "about", "packages": []}, seconds=60.0)
        assert time.monotonic() - began < 5
        os.killpg(found.process.pid, signal.SIGCONT)


def test_a_beat_comes_while_nothing_else_does():
    with Link(carried()) as found:
        found._begin(30.0)
        found._step(None)
        assert time.monotonic() - found._heard < 1.0


def test_what_is_no_record_ends_it():
    noise = keeper.GREETING + b"z" + b"\xff" * 8
    with (
        pytest.raises(LinkLost, match="what it sends is no record"),
        Link(carried(run=f"import os,sys;sys.stdin.buffer.read({{}});os.write(1, {noise!r})")) as found,
    ):
        found.ask({"ask": "about", "packages": []})


def test_a_file_that_is_gone_here_is_an_error(tmp_path):
    with Link(carried()) as found, pytest.raises(FileNotFoundError):
        found.place(Parcel({"a": tmp_path / "none"}))


def test_a_closed_link_stays_closed():
    found = Link(carried())
    found.close()
    found.close()
    with pytest.raises(BrokenPipeError):
        found.ask({"ask": "about", "packages": []})
    assert found.process.returncode is not None
