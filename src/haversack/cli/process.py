"""Settings of this process that must stand before torch is loaded."""

from __future__ import annotations

import os


def settle() -> None:
    """Let idle threads sleep, unless the environment says otherwise: spinning ones take the cores from others."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
