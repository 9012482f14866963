"""What a device tells of itself, read from folders that look as the kernel's do."""

from __future__ import annotations

import os

import pytest

from haversack.base.errors import UsageError
from haversack.deliver import conditions
from haversack.deliver.conditions import Linux, Readings, unmet

ROUTE = "Iface\tDestination\tGateway\tFlags\n{}\t00000000\t0102A8C0\t0003\neth9\t0002A8C0\t00000000\t0001\n"


@pytest.fixture
def machine(tmp_path):
    """A function that writes a machine's files and returns what reads them."""

    def make(supplies=None, route=None, load=None, mobile=()):
        system, processes = tmp_path / "sys", tmp_path / "proc"
        (processes / "net").mkdir(parents=True)
        (system / "class").mkdir(parents=True)
        for name, files in (supplies or {}).items():
            folder = system / "class" / "power_supply" / name
            folder.mkdir(parents=True)
            for key, value in files.items():
                (folder / key).write_text(f"{value}\n")
        if supplies == {}:
            (system / "class" / "power_supply").mkdir()
        if route:
            (processes / "net" / "route").write_text(ROUTE.format(route))
        if load is not None:
            (processes / "loadavg").write_text(f"{load} 0.5 0.5 1/100 999\n")
        for name in mobile:
            (system / "class" / "net" / name).mkdir(parents=True)
            (system / "class" / "net" / name / "uevent").write_text(f"DEVTYPE=wwan\nINTERFACE={name}\n")
        return Linux(system, processes, ask=False)

    return make


BATTERY = {"type": "Battery", "scope": "System"}


@pytest.mark.parametrize(
    "supplies, charging",
    [
        (None, None),  # no such folder: nobody tells
        ({}, True),  # a board without a battery
        ({"BAT0": {**BATTERY, "status": "Discharging"}}, False),
        ({"BAT0": {**BATTERY, "status": "Charging"}}, True),
        ({"BAT0": {**BATTERY, "status": "Full"}}, True),
        ({"AC": {"type": "Mains", "online": "1"}, "BAT0": {**BATTERY, "status": "Discharging"}}, True),
        ({"AC": {"type": "Mains", "online": "0"}, "BAT0": {**BATTERY, "status": "Discharging"}}, False),
        ({"usb": {"type": "USB", "online": "1"}, "BAT0": {**BATTERY, "status": "Discharging"}}, True),
        ({"mouse": {"type": "Battery", "scope": "Device", "status": "Discharging"}}, True),
    ],
)
def test_power(machine, tmp_path, supplies, charging):
    assert machine(supplies).read(tmp_path).charging is charging


@pytest.mark.parametrize(
    "route, mobile, unmetered",
    [
        (None, (), None),
        ("eth0", (), None),
        ("wwan0", (), False),
        ("ppp0", (), False),
        ("enx1", ("enx1",), False),
        ("eth0", ("enx1",), None),  # there, and not on the way
    ],
)
def test_network_without_a_manager(machine, tmp_path, route, mobile, unmetered):
    assert machine(route=route, mobile=mobile).read(tmp_path).unmetered is unmetered


@pytest.mark.parametrize(
    "said, unmetered",
    [("u 0", None), ("u 1", False), ("u 2", True), ("u 3", False), ("u 4", True), ("s x", None), ("", None)],
)
def test_network_manager(machine, tmp_path, monkeypatch, said, unmetered):
    """A program of this name answers as busctl does."""
    program = tmp_path / "bin" / "busctl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n[ $7 = Metered ] && echo '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    made = machine()
    assert Linux(made.system, made.processes).read(tmp_path).unmetered is unmetered


def test_no_network_manager(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    made = machine(route="wwan0")
    assert Linux(made.system, made.processes).read(tmp_path).unmetered is False


@pytest.mark.parametrize("load, idle", [(None, None), ("0.00", True), ("900.0", False), ("x", None)])
def test_load(machine, tmp_path, load, idle):
    assert machine(load=load).read(tmp_path).idle is idle


def test_room_is_that_of_the_disk_that_the_home_will_be_on(machine, tmp_path):
    made = machine()
    there = made.read(tmp_path).free_bytes
    assert there > 0
    assert abs(made.read(tmp_path / "not" / "yet").free_bytes - there) < 1 << 30


def test_this_machine(tmp_path):
    found = Linux().read(tmp_path)
    assert found.idle in {True, False}
    assert found.unmetered in {True, False, None}
    assert found.charging in {True, False, None}


def test_what_does_not_hold_is_told_all_at_once():
    faults = unmet(Readings(unmetered=False, charging=None, idle=True), ("unmetered", "charging", "idle"))
    assert [fault.where for fault in faults] == ["unmetered", "charging"]
    assert "cost money" in faults[0].cause
    assert "does not tell" in faults[1].cause
    assert unmet(Readings(), ()) == ()
    with pytest.raises(UsageError, match="there is no condition wifi, sun") as caught:
        unmet(Readings(), ("wifi", "idle", "sun"))
    assert caught.value.next_step == ", ".join(conditions.WORDS)
