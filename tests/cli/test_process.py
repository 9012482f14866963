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


FAULTS = """
import resource, numpy
def touch():
    numpy.ones(12_000_000, numpy.float32)  # 48 MB: above glibc's own limit, below ours
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again_without_page_faults():
    kept = int(told(f"exec({FAULTS!r})"))
    returned = int(told(f"exec({FAULTS!r})", MALLOC_MMAP_THRESHOLD_="131072"))
    assert kept * 5 < returned
