"""Settings of the process, seen in processes of their own: they must stand before torch is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

SETTLED = "import os, sys; from haversack.cli.process import settle; settle(); {}"


def told(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SETTLED.format(code)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "src", "PATH": "/usr/bin", **environment},
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("given", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_idle_threads_sleep_unless_the_user_says_otherwise(given, policy):
    assert told("print(os.environ['OMP_WAIT_POLICY'])", **given) == policy


def test_it_loads_no_framework():
    assert told("print('torch' in sys.modules or 'numpy' in sys.modules)") == "False"
