"""Settings of every test."""

from __future__ import annotations

from hypothesis import settings

# A shared machine stalls now and then: a test that is right but late is no failure.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
