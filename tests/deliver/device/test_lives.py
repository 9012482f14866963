"""Lives of a device: whatever is published, damaged, wiped or rolled back, and in what order, a model answers.

A state machine (Hypothesis) beside a model of what must be: which release is in use, which is the way back, which are
quarantined.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from shop import WIDTH, Shop, X, tried_here

from haversack.base.errors import EnvironmentFault, HaversackError, VerificationError
from haversack.flow.client import Client

_numbers = itertools.count(1)


class Device(RuleBasedStateMachine):
    """A device with one line, and what must be true of it."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="haversack-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.shop = Shop.create(self.folder)
        self.client = Client(self.folder / "home", self.shop.url, self.shop.root, test=tried_here, tune=None)
        self.offered = 0
        self.good: set[int] = set()
        self.current = self.other = None
        self.quarantined: set[int] = set()
        self.opened = None

    def teardown(self):
        if self.opened is not None:
            self.opened.close()
        shutil.rmtree(self.folder)

    @initialize()
    def first(self):
        self.publish(good=True)
        self.update()
        self.opened = self.client.open("digits", follow=True)

    @rule(good=st.booleans())
    def publish(self, good):
        self.offered += 1
        more = {} if good else {"golden": np.zeros((1, WIDTH), np.float32)}
        self.shop.publish(f"1.{self.offered}.0", float(self.offered), **more)
        if good:
            self.good.add(self.offered)

    @rule()
    def update(self):
        """The newest release is taken, unless it is in use, quarantined, or no good."""
        if self.offered in self.quarantined or self.offered == self.current:
            done = self.client.update("digits")
            assert done.action == ("quarantined" if self.offered in self.quarantined else "current")
            assert done.bytes == 0
        elif self.offered in self.good:
            assert self.client.update("digits").action == "installed"
            self.current, self.other = self.offered, self.current
        else:
            try:
                self.client.update("digits")
                raise AssertionError("a bad release was installed")
            except VerificationError:
                self.quarantined.add(self.offered)

    @precondition(lambda self: self.current)
    @rule()
    def roll_back(self):
        if self.other is None:
            try:
                self.client.rollback("digits")
                raise AssertionError("it went back to nothing")
            except EnvironmentFault:
                return
        self.client.rollback("digits")
        self.quarantined.add(self.current)
        self.current, self.other = self.other, None

    @rule(what=st.sampled_from(["trust", "store", "incoming", "speeds.json"]))
    def wipe(self, what):
        """A cache is lost: nothing but time is."""
        path = self.folder / "home" / what
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @rule(place=st.integers(0, 99), byte=st.integers(0, 255))
    def spoil_the_store(self, place, byte):
        """A file that no slot uses loses a byte."""
        loose = [path for path in sorted((self.folder / "home" / "store").glob("??/*")) if path.stat().st_nlink == 1]
        if loose:
            path = loose[place % len(loose)]
            path.write_bytes(path.read_bytes()[:-1] + bytes([byte]))

    @rule()
    def leave_things_behind(self):
        """What killed processes leave: halves of files, under the names that are used for them."""
        home = self.folder / "home"
        for folder in (home, home / "lines" / "digits", home / "incoming" / "digits"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f".current.{next(_numbers)}-abc.part").write_bytes(b"half")
        (home / "incoming" / "digits" / f"{'0' * 64}.part").write_bytes(b"half")

    @rule()
    def restart(self):
        """Another process opens the home."""
        self.opened.close()
        self.client = Client(self.folder / "home", test=tried_here, tune=None)
        self.opened = self.client.open("digits", follow=True)

    @invariant()
    def it_answers(self):
        """What is in use answers, in an open model and in one that is opened now."""
        if self.opened is None:
            return
        assert self.says(self.opened) == self.current
        with self.client.open("digits", follow=False) as fresh:
            assert self.says(fresh) == self.current

    @invariant()
    def it_tells_what_is(self):
        if self.opened is None:
            return
        (line,) = self.client.status().lines_held
        assert line.pointer.current.sequence == self.current
        assert (line.pointer.other.sequence if line.pointer.other else None) == self.other
        assert {bad.sequence for bad in line.quarantined} == self.quarantined
        assert line.floor <= self.offered
        assert line.floor >= self.current

    @staticmethod
    def says(opened):
        return round(float(np.asarray(opened(X))[0, 0]))


Device.TestCase.settings = settings(
    max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLives = Device.TestCase


def test_it_would_be_seen(tmp_path):
    """The machine is no better than its model: a client that forgets its quarantine is found out."""
    shop = Shop.create(tmp_path)
    shop.publish("1.1.0", 1.0)
    client = Client(tmp_path / "home", shop.url, shop.root, test=tried_here, tune=None)
    client.update("digits")
    shop.publish("1.2.0", 2.0, golden=np.zeros((1, WIDTH), np.float32))
    for _ in range(2):
        try:
            action = client.update("digits").action
        except HaversackError:
            action = "failed"
        (tmp_path / "home" / "lines" / "digits" / "quarantine.json").unlink()
    assert action == "failed"
