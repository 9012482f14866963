"""``ssh:[user@]host[:port]``: a machine that the system's OpenSSH client lets us into.

The client asks nothing (keys or an agent only) and never takes a host key that it does not know; no setting of the user
weakens that. ``$HAVERSACK_SSH_CONFIG`` names a configuration to use in place of ``~/.ssh/config``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from haversack.base.errors import UsageError
from haversack.tools.worker.link import Carrier

CONFIG = "HAVERSACK_SSH_CONFIG"
HOME = "$HOME/.haversack"
"""A virtual environment on the device that is taken before its own Python."""
SETTINGS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
}
_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})@)?"
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9]{1,16})?)\]|(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]{0,253}))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True)
class Address:
    """Where a machine is; ``user`` may be empty and ``port`` 0: then the client's configuration says."""

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def of(cls, text: str) -> Address:
        """Read ``[user@]host[:port]``; an IPv6 address stands in square brackets.

        Raises:
            UsageError: it is none. Nothing that begins with a dash or holds a character of the shell's is one.
        """
        match = _ADDRESS.fullmatch(text)
        port = int(match["port"] or 0) if match else 0
        if match is None or port > 65535 or (match["port"] and not port):
            raise UsageError(
                f"{text!r} is not [user@]host[:port]",
                where="--device ssh:",
                next_step="ssh:pi@192.168.1.7, ssh:board:2222 or ssh:[fe80::1%eth0]",
            )
        return cls(match["six"] or match["host"], match["user"] or "", port)

    def arguments(self) -> list[str]:
        """Return it as arguments of the client, the last of its options included."""
        user = ["-l", self.user] if self.user else []
        port = ["-p", str(self.port)] if self.port else []
        return [*user, *port, "--", self.host]


HINTS = {
    "Host key verification failed": "connect once by hand and compare the fingerprint: {by_hand}",
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "it is another machine, or was set up anew: find out, then ssh-keygen -R",
    "Permission denied": "ssh-copy-id {where}    (passwords are not asked for)",
    "Could not resolve hostname": "check the name, or give an address",
    "Connection refused": "start the SSH server there, or give its port: ssh:host:port",
    "timed out": "is it on, and in the same network? {by_hand}",
    "no Python 3": "install Python 3.11 or later there",
}


def carrier(text: str) -> Carrier:
    """Return how ``[user@]host[:port]`` is reached.

    Raises:
        UsageError: it is not such an address.
    """
    address = Address.of(text)
    words = {"by_hand": f"ssh {_where(address)}", "where": _where(address)}
    hints = {said: step.format(**words) for said, step in HINTS.items()}
    return Carrier(f"ssh:{text}", lambda size: [*client(), *address.arguments(), python(size)], hints)


def _where(address: Address) -> str:
    return " ".join(word for word in address.arguments() if word != "--")


def client() -> list[str]:
    """Return the client with our settings, which stand before all others."""
    config = os.environ.get(CONFIG, "")
    settings = [word for name, value in SETTINGS.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", "-T", "-e", "none", *settings, *(["-F", config] if config else [])]


def installs(text: str) -> str:
    """Return the command that adds ``{packages}`` to a machine."""
    return f"ssh {_where(Address.of(text))} 'python3 -m venv ~/.haversack && ~/.haversack/bin/pip install {{packages}}'"


def python(size: int, before: str = "") -> str:
    """Return the command that runs, in a device's Python, the first ``size`` bytes of standard input as a program.

    Nothing of the user's is in it: the only thing that varies is a number.

    Args:
        size: bytes of the program.
        before: commands of the shell that run first, each ended by ``;``.
    """
    run = f'"import sys;exec(sys.stdin.buffer.read({size:d}))"'
    start = f'if command -v "$p" > /dev/null 2>&1; then exec "$p" -u -c {run}; fi'
    loop = f'for p in "{HOME}/bin/python" python3 python; do {start}; done'
    return f"exec sh -c '{before}{loop}; echo \"there is no Python 3\" >&2; exit 127'"
