from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.digest import of_data
from haversack.base.errors import EnvironmentFault
from haversack.tools.store import ledger as module
from haversack.tools.store.ledger import Ledger, Record, holder, read

KEYS = [of_data(number) for number in range(20)]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
values = st.dictionaries(st.text(), json_values, max_size=4)


def filled(path, count=5):
    with Ledger(path) as ledger:
        for number in range(count):
            ledger.put(KEYS[number], {"number": number}, {"model": KEYS[-1]})
    return path


def same(one, other):
    return repr(one) == repr(other)  # NaN equals itself here


@given(st.lists(st.tuples(st.sampled_from(KEYS), values), max_size=6))
@settings(max_examples=60, deadline=None)
def test_what_is_put_is_found_again_by_the_next_run(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("out") / "ledger.jsonl"
    with Ledger(path) as ledger:
        for key, value in entries:
            assert same(dict(ledger.put(key, value).value), value)
        now = {record.key: record for record in ledger}
    with Ledger(path) as ledger:
        assert same({record.key: record for record in ledger}, now)
        assert len(ledger) == len({key for key, _ in entries})
        for key, value in dict(entries).items():
            assert same(dict(ledger.get(key).value), value)
        assert ledger.faults == ()


def test_the_last_record_of_a_key_counts_and_an_unknown_key_has_none(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.put(KEYS[0], {"n": 1})
        ledger.put(KEYS[0], {"n": 2}, {"model": KEYS[1]})
        assert ledger.get(KEYS[0]) == Record(KEYS[0], {"n": 2}, {"model": KEYS[1]})
        assert ledger.get(KEYS[1]) is None
    assert read(path).records[KEYS[0]].value == {"n": 2}


def test_order_and_numbers_stay_as_they_were(tmp_path):
    value = {"worst": 0.3, "better": 0.1, "nan": math.nan, "inf": -math.inf, "tiny": 5e-324, "third": 1 / 3}
    with Ledger(tmp_path / "l") as ledger:
        ledger.put(KEYS[0], value)
    with Ledger(tmp_path / "l") as ledger:
        back = ledger.get(KEYS[0]).value
    assert list(back) == list(value)
    assert same(dict(back), value)


def test_a_record_is_what_a_later_run_reads_not_what_was_passed(tmp_path):
    value = {"shape": (1, 2)}
    with Ledger(tmp_path / "l") as ledger:
        assert ledger.put(KEYS[0], value).value == {"shape": [1, 2]}
        value["shape"] = "changed later"
        assert ledger.get(KEYS[0]).value == {"shape": [1, 2]}


@pytest.mark.parametrize(
    ("key", "value", "blobs", "error"),
    [
        ("short", {}, {}, ValueError),
        (KEYS[0].upper(), {}, {}, ValueError),
        (KEYS[0], {}, {"model": "../etc"}, ValueError),
        (KEYS[0], {"x": {1, 2}}, {}, TypeError),
    ],
)
def test_what_is_no_record_is_refused_and_nothing_is_written(tmp_path, key, value, blobs, error):
    path = tmp_path / "l"
    with Ledger(path) as ledger:
        before = path.read_bytes()
        with pytest.raises(error):
            ledger.put(key, value, blobs)
        assert path.read_bytes() == before
        assert len(ledger) == 0


def test_a_record_over_the_limit_belongs_into_a_blob(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1000)
    with Ledger(tmp_path / "l") as ledger, pytest.raises(ValueError, match="put its data in a blob"):
        ledger.put(KEYS[0], {"x": "y" * 1000})


def test_a_torn_last_line_is_cut_off_at_every_length(tmp_path):
    whole = filled(tmp_path / "whole").read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    path = tmp_path / "torn"
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        assert read(path).whole_bytes == last
        assert path.stat().st_size == length  # reading changes nothing
        with Ledger(path) as ledger:
            assert set(read(path).records) == set(KEYS[:4])
            assert ledger.faults == ()
            ledger.put(KEYS[4], {"number": 4}, {"model": KEYS[-1]})
        assert path.read_bytes() == whole


def test_a_torn_first_line_is_begun_again(tmp_path):
    path = tmp_path / "l"
    for length in range(len('{"haversack-ledger":1}\n')):
        path.write_bytes(b'{"haversack-ledger":1}\n'[:length])
        with Ledger(path) as ledger:
            ledger.put(KEYS[0], {"n": 1})
        assert read(path).records[KEYS[0]].value == {"n": 1}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_line_in_the_middle_is_told_and_the_others_stay(tmp_path_factory, data):
    path = filled(tmp_path_factory.mktemp("out") / "ledger.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    hit = data.draw(st.integers(1, 4), label="line")  # not the format line, not the last
    place = data.draw(st.integers(0, len(lines[hit]) - 2), label="byte")
    change = data.draw(st.integers(1, 255).filter(lambda x: lines[hit][place] ^ x != 10), label="change")
    line = bytearray(lines[hit])
    line[place] ^= change
    lines[hit] = bytes(line)
    path.write_bytes(b"".join(lines))
    with Ledger(path) as ledger:
        assert {record.key for record in ledger} == {*KEYS[:5]} - {KEYS[hit - 1]}
        (fault,) = ledger.faults
        assert fault.where == f"{path}:{hit + 1}"
        ledger.put(KEYS[hit - 1], {"made": "again"})
    assert len(read(path).records) == 5


def test_a_lost_newline_costs_the_two_lines_that_it_joined(tmp_path):
    path = filled(tmp_path / "l")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:-1]
    path.write_bytes(b"".join(lines))
    content = read(path)
    assert set(content.records) == {KEYS[0], KEYS[3], KEYS[4]}
    assert len(content.faults) == 1


def test_a_foreign_file_is_not_touched(tmp_path):
    path = tmp_path / "ledger.jsonl"
    for text in ("my diary\n", "[]\n", '{"format": 1}\n', "\n"):
        path.write_text(text)
        with pytest.raises(EnvironmentFault, match="not a ledger"):
            Ledger(path)
        assert path.read_text() == text


def test_a_ledger_of_the_future_is_not_touched(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"haversack-ledger":7}\n')
    with pytest.raises(EnvironmentFault, match=r"format 7, which this version does not read \(0 or 1\)"):
        Ledger(path)
    assert path.read_text() == '{"haversack-ledger":7}\n'
    path.write_text('{"haversack-ledger":0}\n')
    Ledger(path).close()  # the format before ours is read


def test_a_second_writer_is_told_who_writes(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path), pytest.raises(EnvironmentFault, match=f"process {os.getpid()}") as caught:
        Ledger(path)
    assert "--out" in caught.value.next_step
    Ledger(path).close()


def test_a_reader_does_not_wait_for_the_writer(tmp_path):
    with Ledger(tmp_path / "l") as ledger:
        ledger.put(KEYS[0], {"n": 1})
        assert set(read(tmp_path / "l").records) == {KEYS[0]}
    assert read(tmp_path / "missing").records == {}


def test_a_closed_ledger_writes_nothing(tmp_path):
    ledger = Ledger(tmp_path / "l")
    ledger.close()
    ledger.close()
    with pytest.raises(EnvironmentFault):
        ledger.put(KEYS[0], {})


def test_a_full_disk_is_told_and_keeps_what_was_there(small_disk):
    path = small_disk / "ledger.jsonl"
    with Ledger(path) as ledger:
        with pytest.raises(EnvironmentFault, match="the disk is full"):
            for key in KEYS:
                ledger.put(key, {"x": "y" * 10_000})
        kept = len(ledger)
        assert 0 < kept < len(KEYS)
        assert path.read_bytes().endswith(b"\n")
        ledger.put(KEYS[-1], {"small": 1})  # there is room for a small one, and the file is whole
    content = read(path)
    assert set(content.records) == {*KEYS[:kept], KEYS[-1]}
    assert content.faults == ()


def test_a_write_that_fails_half_way_is_taken_back(tmp_path, file_size_limit):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.put(KEYS[0], {"n": 0})
        before = path.read_bytes()
        file_size_limit(len(before) + 50)
        with pytest.raises(EnvironmentFault, match="limit on file sizes"):
            ledger.put(KEYS[1], {"n": 1})
        assert path.read_bytes() == before
        assert ledger.get(KEYS[1]) is None


def test_a_read_only_disk_is_told(read_only_disk):
    with pytest.raises(EnvironmentFault, match="read-only"):
        Ledger(read_only_disk / "ledger.jsonl")
    with pytest.raises(EnvironmentFault, match="read-only"):
        Ledger(read_only_disk / "out" / "ledger.jsonl")


WRITER = """
import sys
from pathlib import Path
from haversack.base.digest import of_data
from haversack.tools.store.ledger import Ledger
with Ledger(Path(sys.argv[1])) as ledger:
    number = len(ledger)
    print("open", flush=True)
    while True:
        ledger.put(of_data(number), {"number": number, "pad": "x" * (number % 7) * 3000})
        print(number, flush=True)
        number += 1
"""


def test_kill_9_at_any_moment_loses_at_most_the_record_being_written(tmp_path):
    path = tmp_path / "ledger.jsonl"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    draw = random.Random(0)
    written = 0
    for _ in range(12):
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as writer:
            assert writer.stdout.readline() == "open\n"
            time.sleep(draw.uniform(0, 0.03))
            writer.send_signal(signal.SIGKILL)
            told = [int(line) for line in writer.stdout.read().splitlines()]
        content = read(path)
        assert content.faults == ()
        assert sorted(r.value["number"] for r in content.records.values()) == list(range(len(content.records)))
        # All that put() returned from is there; one more may be, whose return was not told in time.
        confirmed = max(told, default=written - 1) + 1
        assert confirmed <= len(content.records) <= confirmed + 1
        written = len(content.records)
    assert written > 12


def test_who_holds_a_ledger_is_told_and_nobody_once_it_is_closed(tmp_path):
    path = tmp_path / "ledger.jsonl"
    assert holder(path) == ""
    with Ledger(path):
        assert holder(path) == str(os.getpid())
    assert holder(path) == ""
