"""For all tests: one thread a process, and properties without deadlines, the same on every run under CI."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes share two cores; read by torch and NumPy on import
settings.register_profile("house", deadline=None, derandomize=os.environ.get("CI", "").lower() in {"1", "true"})
settings.load_profile("house")
