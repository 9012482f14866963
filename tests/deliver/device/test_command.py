"""``haversack client`` on the command line."""

from __future__ import annotations

import json
import socket

import pytest
from shop import Shop

from haversack.cli import main


@pytest.fixture
def command(shop, tmp_path, capsys):
    """A function that types a command and returns its code, what it printed and what it told on the way."""

    def typed(*words):
        code = main(["client", *words, "--home", str(tmp_path / "home")])
        told = capsys.readouterr()
        return code, told.out, told.err

    return typed


def test_update_status_rollback(command, shop):
    first = ("update", "--line", "digits", "--repository", shop.url, "--root", str(shop.root))
    code, out, err = command(*first)
    assert code == 0
    assert "digits 1.0.0 is in use, on onnxruntime" in out
    assert "1 golden vector answered" in out
    assert "forecast: about" in err
    shop.publish("1.1.0", 2.0)
    code, out, _ = command("update", "digits", "--json")
    told = json.loads(out)
    assert (code, told["action"], told["installed"]["version"]) == (0, "installed", "1.1.0")
    assert told["forms"]["onnxruntime.onnx"] == "bsdiff"
    code, out, _ = command("status")
    assert code == 0
    assert "digits 1.1.0 (sequence 2) on onnxruntime" in out
    assert "way back: 1.0.0" in out
    code, out, _ = command("rollback", "digits")
    assert code == 0
    assert out.startswith("digits 1.0.0 is in use\n1.1.0 is not installed again")
    code, out, _ = command("status", "--json")
    (line,) = json.loads(out)["lines"]
    assert line["pointer"]["current"]["version"] == "1.0.0"
    assert line["quarantined"][0]["version"] == "1.1.0"
    code, out, _ = command("update", "digits")
    assert code == 0
    assert "digits 1.0.0 stays in use: 1.1.0 is set aside here: rolled back by hand" in out


def test_what_was_set_aside_is_tried_again_when_that_is_typed(command, shop, tmp_path):
    command("update", "digits", "--repository", shop.url, "--root", str(shop.root))
    shop.publish("1.1.0", 2.0)
    command("update", "digits")
    home = f"--home {tmp_path / 'home'}"
    assert f"haversack client retry digits {home}" in command("rollback", "digits")[1]
    assert f"haversack client retry digits {home}" in command("update", "digits")[1]
    code, out, _ = command("retry", "digits")
    assert code == 0
    assert out == f"digits: the next update may install 1.1.0 again\nnext: haversack client update digits {home}\n"
    assert json.loads(command("status", "--json")[1])["lines"][0]["quarantined"] == []
    assert "digits 1.1.0 is in use in place of 1.0.0" in command("update", "digits")[1]
    assert command("retry", "digits", "--json")[:2] == (
        0,
        json.dumps({"line": "digits", "versions": []}, indent=2) + "\n",
    )


def test_the_wrong_root_is_told_and_may_be_exchanged_until_one_was_right(command, shop, tmp_path):
    other = Shop.create(tmp_path / "other")
    code, out, err = command("update", "digits", "--repository", shop.url, "--root", str(other.root))
    assert (code, out) == (7, "")
    assert "next: the repository is another publisher's, or --root is" in err
    assert command("update", "digits", "--root", str(shop.root))[0] == 0
    code, _, err = command("update", "digits", "--root", str(other.root))
    assert code == 7
    assert "this home was given other root metadata before" in err


def test_a_dead_server_is_told_with_what_to_do(command, shop):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    code, out, err = command("update", "digits", "--repository", address, "--root", str(shop.root))
    assert (code, out) == (6, "")
    assert "connection refused" in err
    assert "next: look at the network and at --repository" in err, "no model is in use"
    command("update", "digits", "--repository", shop.url, "--root", str(shop.root))
    assert "next: the model in use goes on; look at" in command("update", "digits", "--repository", address)[2]


def test_what_comes_next_is_told(command, shop, tmp_path):
    home = f"--home {tmp_path / 'home'}"
    first = command("update", "digits", "--repository", shop.url, "--root", str(shop.root))[1]
    assert first.splitlines()[-1].startswith(f"next: haversack run digits INPUT {home}")
    assert "next" not in command("update", "digits")[1]
    shop.publish("1.1.0", 2.0)
    again = command("update", "digits")[1]
    assert again.splitlines()[-1] == f"the way back: haversack client rollback digits {home}"


def test_a_failed_self_test_is_exit_code_5(command, shop):
    command("update", "digits", "--repository", shop.url, "--root", str(shop.root))
    shop.publish("1.1.0", 2.0, data=b"no model")
    code, out, err = command("update", "digits", "--json")
    assert code == 5
    assert "1.0.0 stays in use" in err
    assert json.loads(out)["exit_code"] == 5


def test_every_next_command_names_the_home(command, shop, tmp_path, capsys):
    home = f"--home {tmp_path / 'home'}"
    assert f"next: haversack client enrol {home}\n" in command("key")[2]
    command("update", "digits", "--repository", shop.url, "--root", str(shop.root))
    assert f"next: haversack client status {home}    (says what there is)" in command("rollback", "digits")[2]
    assert f"or haversack run digits INPUT --tune {home}\n" in command("status")[1]
    (tmp_path / "x.npy").write_bytes(b"x")
    assert main(["run", "words", str(tmp_path / "x.npy"), *home.split()]) == 6
    step = f"next: haversack client update --line words --repository URL --root 1.root.json {home}\n"
    assert step in capsys.readouterr().err


def test_a_misspelt_line_is_told_with_the_nearest(command, shop, tmp_path, capsys):
    words = ("--repository", shop.url, "--root", str(shop.root))
    code, _, err = command("update", "digitz", *words)
    assert (code, "did you mean digits?" in err, "goes on" in err) == (7, True, False)
    assert "next: ask its publisher" in err
    command("update", "digits", *words)
    (tmp_path / "x.npy").write_bytes(b"x")
    assert main(["run", "digit", str(tmp_path / "x.npy"), "--home", str(tmp_path / "home")]) == 6
    told = capsys.readouterr().err
    assert "digit: nothing is installed; did you mean digits?\n" in told
    assert "(installed: digits)" in told
    for task in ("rollback", "retry"):
        code, _, err = command(task, "digit")
        assert (code, "did you mean digits?" in err) == (6, True)


def test_nothing_is_tried_again_where_nothing_is_installed(command):
    code, out, err = command("retry", "digits")
    assert (code, out) == (6, "")
    assert "digits: nothing is installed\n  next: haversack client update --line digits" in err


def test_keys(command, tmp_path):
    code, _, err = command("key")
    assert code == 2
    assert "haversack client enrol" in err
    code, out, _ = command("enrol", "kitchen")
    assert code == 0
    assert "device.pub" in out
    public = (tmp_path / "home" / "device.pub").read_text()
    assert public.endswith(" kitchen\n")
    assert (tmp_path / "home" / "device").stat().st_mode & 0o777 == 0o600
    assert command("key")[1] == public
    assert json.loads(command("key", "--json")[1])["public"] == public.rstrip()
    assert command("enrol")[0] == 2


@pytest.mark.parametrize(
    "words, text",
    [
        (("update",), "no model line is named"),
        (("update", "a", "--line", "b"), "two model lines are named"),
        (("update", "digits"), "nobody said where updates come from"),
        (("update", "digits", "--when", "sunday", "--repository", "/tmp"), "whom to believe"),
        (("update", "../x", "--repository", "/tmp"), ""),
        (("sing",), ""),
        (("status", "--most", "a lot"), ""),
    ],
)
def test_what_is_typed_wrongly(command, words, text):
    code, _, err = command(*words)
    assert code == 2
    assert text in err


def test_conditions(command, shop):
    words = ("update", "digits", "--repository", shop.url, "--root", str(shop.root))
    code, _, err = command(*words, "--when", "sunday")
    assert code == 2
    assert "there is no condition sunday" in err
    code, out, _ = command(*words, "--most", "1KB")
    assert code == 0
    assert "digits: none in use" in out
    assert "more than is allowed" in out
    code, _, err = command(*words, "--quota", "5KB")
    assert code == 6
    assert "quota" in err
