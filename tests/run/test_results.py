"""The laws of the cache, held against a plain model of it: a list of (key, value, uses, time)."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from haversack.base.errors import UsageError
from haversack.run.results import NONE, Bounds, Cache, key_of

KEYS = st.sampled_from("abcdef")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Plain:
    """What the docstring says, in the slowest way: entries in the order of their last use."""

    def __init__(self, bounds):
        self.bounds, self.entries, self.now = bounds, [], 0.0

    def alive(self):
        self.entries = [one for one in self.entries if one["put"] + self.bounds.seconds > self.now]

    def get(self, key):
        self.alive()
        for one in self.entries:
            if one["key"] == key:
                self.touch(one)
                return one["size"]
        return None

    def touch(self, one):
        one["uses"] += 1
        self.entries.remove(one)
        self.entries.append(one)

    def put(self, key, size):
        if size > self.bounds.bytes or not self.bounds.entries:
            return
        self.alive()
        old = next((one for one in self.entries if one["key"] == key), None)
        uses = 0
        if old is not None:
            uses = old["uses"]
            self.entries.remove(old)
        while len(self.entries) >= self.bounds.entries or self.bytes() + size > self.bounds.bytes:
            if self.bounds.policy == "lfu":
                least = min(one["uses"] for one in self.entries)
                self.entries.remove(next(one for one in self.entries if one["uses"] == least))
            else:
                del self.entries[0]
        self.entries.append({"key": key, "size": size, "uses": uses + 1, "put": self.now})

    def bytes(self):
        return sum(one["size"] for one in self.entries)


class Machine(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(["lru", "lfu"]),
        entries=st.integers(1, 4),
        size=st.integers(1, 12),
        seconds=st.sampled_from([2.0, 5.0, float("inf")]),
    )
    def begin(self, policy, entries, size, seconds):
        bounds = Bounds(policy, entries, size, seconds)
        self.clock = Clock()
        self.cache, self.plain = Cache(bounds, self.clock), Plain(bounds)

    @rule(key=KEYS, size=st.integers(0, 6))
    def put(self, key, size):
        self.cache.put(key, {"y": np.full(size, ord(key), np.uint8)})
        self.plain.put(key, size)

    @rule(key=KEYS)
    def get(self, key):
        found, wanted = self.cache.get(key), self.plain.get(key)
        assert (found is None) == (wanted is None)
        if found is not None:
            assert found["y"].tolist() == [ord(key)] * wanted

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0]))
    def wait(self, seconds):
        self.clock.now += seconds
        self.plain.now += seconds

    @rule()
    def clear(self):
        self.cache.clear()
        self.plain.entries.clear()

    @invariant()
    def the_same_is_held_within_bounds(self):
        if not hasattr(self, "cache"):
            return
        self.plain.alive()
        assert len(self.cache) == len(self.plain.entries) <= self.cache.bounds.entries
        assert self.cache.bytes == self.plain.bytes() <= self.cache.bounds.bytes
        assert {*self.cache._entries} == {one["key"] for one in self.plain.entries}
        listed = [key for level in self.cache._order.values() for key in level]
        assert sorted(listed) == sorted(self.cache._entries) == sorted(self.cache._uses)


def test_it_does_what_the_plain_one_does():
    run_state_machine_as_test(Machine)
    assert Machine.TestCase is not None


def test_lru_drops_what_was_not_used_for_longest():
    cache = Cache(Bounds("lru", entries=2))
    one = {"y": np.zeros(1)}
    cache.put("a", one)
    cache.put("b", one)
    cache.get("a")
    cache.put("c", one)
    assert (cache.get("a") is not None, cache.get("b") is not None, cache.get("c") is not None) == (True, False, True)


def test_lfu_keeps_what_is_used_often_though_not_of_late():
    cache = Cache(Bounds("lfu", entries=2))
    one = {"y": np.zeros(1)}
    cache.put("a", one)
    for _ in range(3):
        cache.get("a")
    for key in "bcd":
        cache.put(key, one)
    assert cache.get("a") is not None
    assert (cache.get("b"), cache.get("c")) == (None, None)


def test_what_was_given_can_be_changed_by_nobody():
    cache = Cache(Bounds())
    mine = np.arange(3.0)
    cache.put("a", {"y": mine})
    mine[0] = 9
    found = cache.get("a")
    found["y"][1] = 9
    assert cache.get("a")["y"].tolist() == [0, 1, 2]


def test_one_that_is_larger_than_all_drives_nothing_out():
    cache = Cache(Bounds(bytes=8))
    cache.put("a", {"y": np.zeros(1)})
    cache.put("b", {"y": np.zeros(2)})
    assert (cache.get("a") is not None, cache.get("b")) == (True, None)


def test_none_holds_nothing():
    cache = Cache(NONE)
    cache.put("a", {"y": np.zeros(1)})
    assert (cache.get("a"), len(cache), cache.misses) == (None, 0, 0)


def test_it_counts():
    cache = Cache(Bounds())
    cache.get("a")
    cache.put("a", {"y": np.zeros(1)})
    cache.get("a")
    assert (cache.hits, cache.misses) == (1, 1)


@pytest.mark.parametrize(
    "bounds",
    [{"policy": "fifo"}, {"entries": -1}, {"bytes": -1}, {"seconds": 0.0}, {"seconds": float("nan")}],
)
def test_bounds_that_are_none(bounds):
    with pytest.raises(UsageError, match="policy is lru or lfu"):
        Bounds(**bounds)


@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_many_threads(policy):
    cache, faults = Cache(Bounds(policy, entries=8, bytes=200)), []

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(300):
            key = int(random.integers(20))
            found = cache.get(str(key))
            if found is None:
                cache.put(str(key), {"y": np.full(random.integers(1, 40), key, np.uint8)})
            elif set(found["y"].tolist()) != {key}:
                faults.append(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(cache) <= 8
    assert cache.bytes == sum(entry.bytes for entry in cache._entries.values()) <= 200


arrays = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(lambda values: np.array(values, np.int32))


@given(first=arrays, second=arrays)
def test_a_key_is_the_content(first, second):
    same = first.shape == second.shape and first.tobytes() == second.tobytes()
    assert (key_of({"x": first}) == key_of({"x": second})) == same


def test_a_key_tells_names_dtypes_and_shapes_apart():
    x = np.arange(6, dtype=np.int32)
    others = [{"y": x}, {"x": x.astype(np.uint32)}, {"x": x.reshape(2, 3)}, {"x": x.reshape(3, 2)}, {"x": x, "y": x}]
    keys = [key_of(one) for one in [{"x": x}, *others]]
    assert len({*keys}) == len(keys)
    assert key_of({"x": x.reshape(2, 3).T.copy().T}) == key_of({"x": x.reshape(2, 3)})
    assert key_of({"a": x, "b": x[:1]}) == key_of({"b": x[:1], "a": x})
