"""How a machine is reached: no option can be smuggled in, and host keys are checked whatever anybody configures."""

from __future__ import annotations

import shlex
import subprocess
from itertools import pairwise

import pytest

from haversack.base.errors import EXIT_ENVIRONMENT, EXIT_USAGE, UsageError
from haversack.measure import devices, ssh
from haversack.measure.ssh import Address
from haversack.tools.worker.faults import LinkLost


@pytest.mark.parametrize(
    "text, address",
    [
        ("pi", Address("pi")),
        ("pi.local", Address("pi.local")),
        ("me@pi", Address("pi", "me")),
        ("me@192.168.1.7:2222", Address("192.168.1.7", "me", 2222)),
        ("my_board-2:22", Address("my_board-2", "", 22)),
        ("[fe80::1%eth0]:22", Address("fe80::1%eth0", "", 22)),
        ("first.last@[::1]", Address("::1", "first.last")),
        ("p:65535", Address("p", "", 65535)),
    ],
)
def test_an_address(text, address):
    assert Address.of(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=id",
        "me@-oProxyCommand=id",
        "-l@host",
        "host;id",
        "host id",
        "host\nid",
        "host\n",
        "$(id)",
        "`id`",
        "a'b",
        'a"b',
        "me@you@host",
        "host:",
        "host:0",
        "host:65536",
        "host:22x",
        "host:-1",
        "[::1",
        "fe80::1",
        "[-o]",
        "ssh://host",
        "host/path",
        "hôte",
        "@host",
        "x" * 300,
        "host:²2",
    ],
)
def test_what_is_no_address_reaches_no_command(text):
    with pytest.raises(UsageError, match=r"is not \[user@\]host\[:port\]") as caught:
        devices.opened(f"ssh:{text}")
    assert caught.value.exit_code == EXIT_USAGE
    assert "ssh:pi@192.168.1.7" in caught.value.next_step


def test_the_command_of_the_client(monkeypatch):
    monkeypatch.delenv(ssh.CONFIG, raising=False)
    command = list(ssh.carrier("me@board:2222").program(77))
    assert command[0] == "ssh"
    assert command[-6:-1] == ["me", "-p", "2222", "--", "board"]
    assert command[-1] == ssh.python(77)
    told = dict(word.split("=") for flag, word in pairwise(command) if flag == "-o")
    assert told == ssh.SETTINGS
    assert (told["BatchMode"], told["StrictHostKeyChecking"]) == ("yes", "yes")
    assert "-F" not in command


def test_another_configuration_stands_behind_our_settings(monkeypatch, tmp_path):
    weak = tmp_path / "config"
    weak.write_text("StrictHostKeyChecking no\nBatchMode no\nForwardAgent yes\nPermitLocalCommand yes\nUser someone\n")
    monkeypatch.setenv(ssh.CONFIG, str(weak))
    told = subprocess.run([*ssh.client(), "-G", "--", "board"], capture_output=True, text=True, check=True).stdout
    lines = told.splitlines()
    assert "user someone" in lines, "it is read"
    for line in ("stricthostkeychecking true", "batchmode yes", "forwardagent no", "permitlocalcommand no"):
        assert line in lines


def test_the_command_there_is_one_word_of_any_shell_and_holds_one_number():
    first, second = ssh.python(5), ssh.python(50)
    assert first.replace("read(5)", "read(50)") == second
    words = shlex.split(first)
    assert words[:3] == ["exec", "sh", "-c"]
    assert len(words) == 4
    assert subprocess.run(["sh", "-n", "-c", words[3]], check=False).returncode == 0


@pytest.mark.parametrize("there, taken", [(("venv", "python3"), "venv"), (("python3", "python"), "python3"), ((), "")])
def test_a_virtual_environment_is_taken_before_python3(tmp_path, there, taken):
    folders = {"venv": tmp_path / ".haversack" / "bin", "python3": tmp_path / "bin", "python": tmp_path / "bin"}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    for name in there:
        folders[name].mkdir(parents=True, exist_ok=True)
        path = folders[name] / ("python" if name == "venv" else name)
        path.write_text(f'#!/bin/sh\necho {name} "$#" "$2"\n')
        path.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", ssh.python(9)],
        env={"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    if taken:
        assert done.stdout == f"{taken} 3 -c\n"
    else:
        assert (done.returncode, done.stderr) == (127, "there is no Python 3\n")


def test_a_home_with_spaces_is_one_word(tmp_path):
    home = tmp_path / "a home"
    (home / ".haversack" / "bin").mkdir(parents=True)
    (home / ".haversack" / "bin" / "python").write_text("#!/bin/sh\necho here\n")
    (home / ".haversack" / "bin" / "python").chmod(0o755)
    done = subprocess.run(["sh", "-c", ssh.python(9)], env={"HOME": str(home)}, capture_output=True, check=True)
    assert done.stdout == b"here\n"


def test_the_command_that_installs():
    told = ssh.installs("me@board:22").format(packages="numpy==2.1")
    assert told.startswith("ssh -l me -p 22 board '")
    assert "pip install numpy==2.1'" in told
    assert len(shlex.split(told)) == 7


def test_a_host_whose_key_is_not_known_is_refused_though_the_configuration_would_take_it(board, tmp_path, monkeypatch):
    (tmp_path / "known").write_text("")
    config = board.config.read_text().replace(str(board.folder / "known"), str(tmp_path / "known"))
    assert "StrictHostKeyChecking no" in config
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv(ssh.CONFIG, str(tmp_path / "config"))
    with pytest.raises(LinkLost) as caught:
        devices.opened(board.device)
    assert "Host key verification failed" in str(caught.value)
    assert "compare the fingerprint" in caught.value.next_step
    assert caught.value.exit_code == EXIT_ENVIRONMENT
    assert (tmp_path / "known").read_text() == "", "and it is not remembered"


def test_a_host_with_another_key_is_refused(board, tmp_path, monkeypatch):
    other = (board.folder / "mine.pub").read_text()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{board.port} {other}")
    config = board.config.read_text().replace(str(board.folder / "known"), str(tmp_path / "known"))
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv(ssh.CONFIG, str(tmp_path / "config"))
    with pytest.raises(LinkLost) as caught:
        devices.opened(board.device)
    assert "Host key verification failed" in str(caught.value)


def test_nobody_is_asked_for_a_password(board, tmp_path, monkeypatch):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
    config = board.config.read_text().replace(str(board.folder / "mine"), str(tmp_path / "other"))
    (tmp_path / "config").write_text(config)
    monkeypatch.setenv(ssh.CONFIG, str(tmp_path / "config"))
    with pytest.raises(LinkLost) as caught:
        devices.opened(board.device)
    assert "Permission denied" in str(caught.value)
    assert caught.value.next_step.startswith(f"ssh-copy-id -p {board.port} 127.0.0.1")


def test_a_port_where_nothing_listens_is_told(board):
    with pytest.raises(LinkLost) as caught:
        devices.opened("ssh:127.0.0.1:1")
    assert "Connection refused" in str(caught.value)
    assert "give its port" in caught.value.next_step
