"""A model that is open answers while releases come and go, and goes back from one that is no good."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from marks import marks
from shop import Shop, X, model, tried_here

from haversack.base.errors import EnvironmentFault, Fault, Refused, UsageError, VerificationError
from haversack.deliver.selftest import Verdict
from haversack.deliver.slots import Slots
from haversack.deliver.starts import LOOP
from haversack.flow import client as flow
from haversack.flow.client import Client
from haversack.run.guard import Watch
from haversack.run.loaded import Serving


@pytest.fixture
def shop(tmp_path):
    """A repository and a home with two releases, which answer 1 and 2 first."""
    made = Shop.create(tmp_path)
    made.publish("1.0.0", 1.0)
    client = Client(tmp_path / "home", made.url, made.root, test=tried_here, tune=None)
    client.update("digits")
    made.publish("1.1.0", 2.0)
    client.update("digits")
    return made


@pytest.fixture
def client(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(flow, "FOLLOW_SECONDS", 0.05)
    made = Client(tmp_path / "home", test=tried_here, tune=None)
    made.told = []
    made._sink = made.told.append
    return made


def says(opened, given=X):
    return round(float(np.asarray(opened(given))[0, 0]), 3)


def until(condition, seconds=30):
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def rooted(value):
    """Return a model that answers as the others do for ones, and NaN for numbers below 0."""
    import onnx
    from onnx import helper

    made = onnx.load_from_string(model(value))
    made.graph.node[0].input[0] = "root"
    made.graph.node.insert(0, helper.make_node("Sqrt", ["x"], ["root"]))
    return made.SerializeToString()


def test_the_next_call_is_the_new_release(shop, client):
    with client.open("digits") as opened:
        assert (says(opened), opened.version) == (2.0, "1.1.0")
        shop.publish("1.2.0", 3.0)
        client.update("digits")
        assert (says(opened), opened.version) == (3.0, "1.2.0")
        client.rollback("digits")
        assert says(opened) == 2.0
    opening = [event for event in client.told if event.stage == "run" and event.kind == "done"]
    assert "is open" in opening[0].text
    assert opening[0].data["seconds"] > 0


def test_another_process_updates(shop, client, tmp_path):
    shop.publish("1.2.0", 3.0)
    with client.open("digits") as opened, client.open("digits", follow=False) as still:
        Client(tmp_path / "home", test=tried_here, tune=None).update("digits")
        until(lambda: says(opened) == 3.0)
        assert says(still) == 2.0


def test_calls_go_on_all_the_while(shop, client):
    answers, ended = [], threading.Event()

    def ask(opened):
        while not ended.is_set():
            answers.append(says(opened))

    with client.open("digits") as opened:
        threads = [threading.Thread(target=ask, args=(opened,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(2, 5):
            shop.publish(f"1.{number}.0", 1.0 + number)
            client.update("digits")
        until(lambda: answers[-1] == 5.0)
        ended.set()
        for thread in threads:
            thread.join()
    assert set(answers) <= {2.0, 3.0, 4.0, 5.0}


def test_the_thread_ends_with_the_model(shop, client):
    def followers():
        return [thread for thread in threading.enumerate() if thread.name == "haversack-digits"]

    closed, dropped = client.open("digits"), client.open("digits")
    until(lambda: len(followers()) == 2)
    closed.close()
    del dropped
    gc.collect()
    shop.publish("1.2.0", 3.0)
    client.update("digits")
    until(lambda: not followers())
    with pytest.raises(UsageError, match="closed"):
        closed(X)


def test_a_model_that_nobody_calls_follows(shop, client, tmp_path):
    shop.publish("1.2.0", 3.0)
    with client.open("digits") as opened:
        Client(tmp_path / "home", test=tried_here, tune=None).update("digits")
        until(lambda: opened.version == "1.2.0")
        assert says(opened) == 3.0


def test_no_thread_is_waited_for_when_a_model_is_opened(client, monkeypatch):
    """A Thread's start waits until it runs. It is started later, and again where the system has none left."""
    started, tries = threading.Thread.start, []

    def start(thread):
        tries.append(threading.current_thread().name)
        if len(tries) < 3:
            raise RuntimeError("can't start new thread")
        started(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with client.open("digits") as opened:
        until(lambda: len(tries) == 3)
        assert threading.main_thread().name not in tries
        until(lambda: any(thread.name == "haversack-digits" for thread in threading.enumerate()))
        assert says(opened) == 2.0


KILL = "os.kill(os.getpid(), 9)"
OPEN = "import os, sys, haversack, numpy\nmodel = haversack.Client(sys.argv[1]).open('digits')\n"
CALL = "model(numpy.ones((1, 4), 'f'))\n"
OPENING = f"from haversack.flow import client\nimport os\nclient.load = lambda *_, **__: {KILL}\n{OPEN}"
ANSWERING = f"from haversack.run import session\nimport os\nsession.Session.run = lambda *_: {KILL}\n{OPEN}{CALL}"


def run_script(text, home, environment):
    """Run a program on a home, and return its exit code."""
    return subprocess.run([sys.executable, "-c", text, str(home)], env=environment, check=False).returncode


@pytest.mark.parametrize(
    "text, code",
    [(OPEN, 0), (OPEN + CALL, 0), (OPEN + KILL, -9), (OPEN + CALL + KILL, -9), (OPEN + "os._exit(3)", 3)],
    ids=["opened", "called", "stopped idle", "stopped after an answer", "a pool's worker"],
)
def test_a_process_that_ends_otherwise_has_not_crashed(client, tmp_path, environment, text, code):
    for _ in range(2):
        assert run_script(text, tmp_path / "home", environment) == code
        assert marks(tmp_path / "home" / "lines" / "digits") == []


@pytest.mark.parametrize("text", [OPENING, ANSWERING], ids=["opening", "answering"])
def test_a_release_that_takes_its_process_down_is_set_aside(client, tmp_path, environment, text):
    for _ in range(LOOP):
        assert client.status().lines_held[0].pointer.current.version == "1.1.0"
        assert run_script(text, tmp_path / "home", environment) == -signal.SIGKILL
    assert f"{LOOP} processes ended while it was opened" in "\n".join(client.status().lines())
    with client.open("digits") as opened:
        assert says(opened) == 1.0
    (bad,) = client.status().lines_held[0].quarantined
    assert bad.version == "1.1.0"
    assert f"{LOOP} processes ended while it was opened" in bad.reason
    assert [event.data["rolled_back"] for event in client.told if event.kind == "finding"] == ["1.1.0"]
    assert client.update("digits").action == "quarantined"
    assert client.retry("digits") == ("1.1.0",)
    assert client.update("digits").installed.version == "1.1.0"
    with client.open("digits") as opened:
        assert says(opened) == 2.0


@pytest.mark.parametrize("place", ["client.load", "session.Session.run"], ids=["opening", "answering"])
def test_a_command_that_is_asked_to_end_leaves_no_mark(client, tmp_path, environment, place):
    """Else three stops of a service in a bad moment would set a good release aside."""
    np.save(tmp_path / "x.npy", np.asarray(X, np.float32))
    text = f"""
import os, signal, sys
from haversack.cli import main
from haversack.flow import client
from haversack.run import session
{place} = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(main(["run", "digits", {str(tmp_path / "x.npy")!r}, "--home", sys.argv[1]]))
"""
    for _ in range(LOOP):
        assert run_script(text, tmp_path / "home", environment) == 143
    assert marks(tmp_path / "home" / "lines" / "digits") == []
    assert client.status().lines_held[0].crashed == 0


def test_where_there_is_no_other_it_is_tried_all_the_same(tmp_path, environment):
    shop = Shop.create(tmp_path)
    shop.publish("1.0.0", 1.0)
    told = []
    client = Client(tmp_path / "home", shop.url, shop.root, test=tried_here, tune=None, sink=told.append)
    client.update("digits")
    for _ in range(LOOP):
        run_script(OPENING, tmp_path / "home", environment)
    with client.open("digits") as opened:
        assert says(opened) == 1.0
    (finding,) = [event.text for event in told if event.kind == "finding"]
    assert f"{LOOP} processes ended while it was opened" in finding
    assert marks(tmp_path / "home" / "lines" / "digits") == []


def test_a_first_answer_forgets_the_crashes(client, tmp_path, environment):
    for _ in range(LOOP - 1):
        run_script(OPENING, tmp_path / "home", environment)
    assert client.status().lines_held[0].crashed == LOOP - 1
    with client.open("digits") as opened:
        assert client.status().lines_held[0].crashed == LOOP - 1
        says(opened)
        assert client.status().lines_held[0].crashed == 0
    assert marks(tmp_path / "home" / "lines" / "digits") == []


def test_the_way_back_is_taken_where_it_cannot_be_written_down(shop, client, tmp_path, environment, monkeypatch):
    (tmp_path / "home" / "lines" / "digits" / "b" / "onnxruntime.onnx").write_bytes(b"nothing that a runtime opens")

    def full(*_, **__):
        raise EnvironmentFault("the disk is full")

    monkeypatch.setattr(Slots, "way_back", full)
    monkeypatch.setattr(flow, "FOLLOW_SECONDS", 600.0)
    with client.open("digits") as opened:
        (follower,) = client._followers
        assert [follower.look() for _ in range(3)] == [True] * 3  # nothing is opened again for it
        assert says(opened) == 1.0
        assert [event.data.get("instead") for event in client.told if event.kind == "finding"] == ["1.0.0"]
        assert not any("from now on" in event.text for event in client.told)
        monkeypatch.undo()
        shop.publish("1.2.0", 3.0)
        client.update("digits")
        assert says(opened) == 3.0


def test_a_fault_that_passes_is_tried_again(shop, client, tmp_path, monkeypatch):
    """As where no file descriptor was left while an update landed."""
    monkeypatch.setattr(flow, "FOLLOW_SECONDS", 600.0)
    with client.open("digits") as opened:
        (follower,) = client._followers
        shop.publish("1.2.0", 3.0)
        Client(tmp_path / "home", test=tried_here, tune=None).update("digits")
        with monkeypatch.context() as patch:
            for name in ("pointer", "held"):
                patch.setattr(Slots, name, raising)
            assert follower.look()
            assert follower.look()
        assert says(opened) == 2.0
        assert follower.look()
        assert says(opened) == 3.0
    assert ["too many open files" in event.text for event in client.told if event.kind == "note"].count(True) == 1


def raising(*_, **__):
    raise EnvironmentFault("too many open files")


def test_what_goes_wrong_is_tried_again_less_and_less_often(client, monkeypatch):
    monkeypatch.setattr(flow, "FOLLOW_SECONDS", 600.0)
    with client.open("digits"):
        (follower,) = client._followers
        pauses = []
        with monkeypatch.context() as patch:
            patch.setattr(Slots, "pointer", raising)
            for _ in range(8):
                assert follower.look()
                pauses.append(follower.pause(2.0))
        assert pauses == [4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0, 64.0]
        assert follower.look()
        assert follower.pause(2.0) == 2.0


def test_what_no_error_of_ours_is_ends_no_follower(shop, client, monkeypatch):
    """As where memory is short while a release is opened."""

    def short(*_):
        raise MemoryError("cannot allocate 5 MB")

    with client.open("digits") as opened:
        (follower,) = client._followers
        monkeypatch.setattr(follower, "_load", short)
        shop.publish("1.2.0", 3.0)
        client.update("digits")
        assert follower.look()
        assert says(opened) == 2.0
        assert any("the model stays as it is: MemoryError: cannot allocate 5 MB" in one.text for one in client.told)
        monkeypatch.undo()
        assert follower.look()
        assert says(opened) == 3.0


def test_a_sink_that_raises_ends_no_follower(shop, client, tmp_path, caplog):
    heard = []

    def deaf(event):
        heard.append(event.text)
        raise OSError("the disk of the log is full")

    client._sink = deaf
    with client.open("digits") as opened:
        assert says(opened) == 2.0
        for number in (2, 3):
            shop.publish(f"1.{number}.0", 1.0 + number)
            Client(tmp_path / "home", test=tried_here, tune=None).update("digits")
            until(lambda: opened.version == f"1.{number}.0")  # noqa: B023 - it is called at once
    assert "digits 1.3.0 answers from now on" in heard
    assert [record.name for record in caplog.records].count("haversack.run") == 1


def test_a_home_stays_where_it_was_named(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = Client("home", test=tried_here, tune=None)
    monkeypatch.chdir("/")
    assert mine.home.folder == tmp_path / "home"
    with mine.open("digits") as opened:
        assert says(opened) == 2.0


def test_a_damaged_slot_leads_back_and_is_repaired_by_an_update(client, tmp_path):
    path = tmp_path / "home" / "lines" / "digits" / "b" / "onnxruntime.onnx"
    path.write_bytes(b"nothing that a runtime opens")
    with client.open("digits") as opened:
        assert says(opened) == 1.0
        assert client.status().lines_held[0].quarantined == ()
        assert client.update("digits").installed.version == "1.1.0"
        assert says(opened) == 2.0


def test_a_damaged_release_is_repaired_and_the_way_back_stays(client, tmp_path):
    path = tmp_path / "home" / "lines" / "digits" / "b" / "onnxruntime.onnx"
    path.write_bytes(b"nothing that a runtime opens")
    assert client.update("digits").installed.version == "1.1.0"
    with client.open("digits", follow=False) as opened:
        assert says(opened) == 2.0
    assert client.rollback("digits").version == "1.0.0"
    with client.open("digits", follow=False) as opened:
        assert says(opened) == 1.0


def test_both_are_damaged(client, tmp_path):
    for slot in "ab":
        (tmp_path / "home" / "lines" / "digits" / slot / "onnxruntime.onnx").write_bytes(b"x")
    with pytest.raises(Refused, match="it is not what was installed"):
        client.open("digits")


def test_a_swap_that_fails_leaves_the_model_as_it_is(shop, client, tmp_path, monkeypatch):
    """The slots are damaged before an open model gets to them; an update repairs them."""
    monkeypatch.setattr(flow, "FOLLOW_SECONDS", 600.0)
    with client.open("digits") as opened:
        shop.publish("1.2.0", 3.0)
        Client(tmp_path / "home", test=tried_here, tune=None).update("digits")
        for slot in "ab":
            (tmp_path / "home" / "lines" / "digits" / slot / "onnxruntime.onnx").write_bytes(b"x")
        (follower,) = client._followers
        assert follower.look()
        assert follower.look()
        assert says(opened) == 2.0
        assert sum("the model stays as it is" in event.text for event in client.told) == 1
        assert client.update("digits").action == "installed"
        assert says(opened) == 3.0


WATCH = Serving(watch=Watch(faults=3, pause_seconds=600.0))


def test_wrong_inputs_do_not_lead_back(shop, client):
    """NaN for negative numbers: the guard lets the release before answer, and the golden vectors excuse the new one."""
    shop.publish("1.2.0", 3.0, data=rooted(3.0))
    client.update("digits")
    with client.open("digits", serving=WATCH) as opened:
        assert says(opened) == 3.0
        assert [says(opened, -X) for _ in range(4)] == [-2.0] * 4
        until(lambda: any("look at the inputs" in event.text for event in client.told))
    assert client.status().lines_held[0].pointer.current.version == "1.2.0"


def test_a_release_that_fails_its_self_test_anew_leads_back(shop, client):
    """The guard sets it aside, and then it cannot answer its golden vectors either: a device that computes wrongly."""
    shop.publish("1.2.0", 3.0, data=rooted(3.0))
    client.update("digits")
    client._test = lambda trial, last: Verdict((Fault("golden vector 0", "it differs"),))
    with client.open("digits", serving=WATCH) as opened:
        for _ in range(3):
            says(opened, -X)
        until(lambda: opened.version == "1.1.0")
        assert says(opened, -X) == -2.0
    (bad,) = client.status().lines_held[0].quarantined
    assert bad.version == "1.2.0"
    assert "NaN" in bad.reason
    assert "it differs" in bad.reason


def test_the_way_back_of_the_guard_is_not_exchanged_while_it_is_opened(shop, client, monkeypatch):
    """Another process installs in that moment: it waits for the slot, and name and weights are of one release."""
    shop.publish("1.2.0", 3.0, data=rooted(3.0))
    client.update("digits")
    found, updating = flow.found, []

    def slow(folder, target, verified):
        source = found(folder, target, verified=verified)
        if source.manifest.version == "1.1.0" and not updating:
            shop.publish("1.3.0", 7.0)
            updating.append(threading.Thread(target=client.update, args=("digits",)))
            updating[0].start()
            updating[0].join(1.0)
        return source

    with client.open("digits", follow=False, serving=WATCH) as opened:
        monkeypatch.setattr(flow, "found", slow)
        answer = opened(-X)
        assert (answer.version, round(float(np.asarray(answer)[0, 0]), 3)) == ("1.1.0", -2.0)
        updating[0].join()
    assert client.status().lines_held[0].pointer.current.version == "1.3.0"


def test_the_way_back_of_the_guard_is_the_release_that_lay_there_at_the_opening(shop, client):
    """After an update the other slot holds the faulty release itself; after a way back the one before is in use."""
    shop.publish("1.2.0", 3.0, data=rooted(3.0))
    client.update("digits")
    with client.open("digits", follow=False, serving=WATCH) as back:
        client.rollback("digits")
        assert says(back, -X) == -2.0
    shop.publish("1.3.0", 4.0, data=rooted(4.0))
    client.update("digits")
    with client.open("digits", follow=False, serving=WATCH) as gone:
        shop.publish("1.4.0", 5.0)
        client.update("digits")
        with pytest.raises(VerificationError) as caught:
            gone(-X)
    assert "there is no other model" in str(caught.value.__cause__)


def test_a_failed_self_test_does_not_touch_an_open_model(shop, client):
    with client.open("digits") as opened:
        shop.publish("1.2.0", 3.0, golden=np.zeros((1, 400), np.float32))
        with pytest.raises(VerificationError):
            client.update("digits")
        assert says(opened) == 2.0
