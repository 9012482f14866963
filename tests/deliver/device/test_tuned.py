"""Threads are measured after an update, in a child, when nothing else runs; and it is remembered and told."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from shop import tried_here

from haversack.deliver.conditions import Readings
from haversack.deliver.home import Home
from haversack.deliver.update import Device
from haversack.flow import tuned
from haversack.flow.client import Client
from haversack.flow.tuned import settled
from haversack.run import tuning
from haversack.tools.worker.process import Worker


@dataclass
class Told:
    """Conditions that are as they are told."""

    idle: bool | None = True

    def read(self, home):
        return Readings(idle=self.idle)


@pytest.fixture
def device(shop, tmp_path):
    """A function that makes a client, with what its device tells of being idle and what measures."""
    events = []

    def make(idle=True, tune=settled):
        home = tmp_path / "home"
        told = Device(Home(home), ("onnxruntime",), conditions=Told(idle))
        made = Client(home, shop.url, shop.root, device=told, sink=events.append, test=tried_here, tune=tune)
        return made, events

    return make


def never(limits):
    raise AssertionError("a child was started")


def test_an_update_of_an_idle_device_measures_and_remembers(device, shop, monkeypatch):
    client, events = device()
    assert client.update("digits").action == "installed"
    (line,) = client.status().lines_held
    assert line.setting in {str(one) for one in tuning.candidates(tuning.cores())}
    assert f"  {line.setting}, as measured here" in client.status().lines()
    assert client.status().data()["lines"][0]["setting"] == line.setting
    assert events[-1].text == f"digits runs with {line.setting}"
    with client.open("digits", follow=False) as model:
        assert str(model.setting) == line.setting
    again = lambda *a, **b: settled(*a, **b, child=never)  # what is remembered is not measured twice
    assert device(tune=again)[0].update("digits").action == "current"
    monkeypatch.setattr(tuning, "_version", lambda target: "0.0.1")  # another runtime: it is forgotten
    assert client.status().lines_held[0].setting == ""


@pytest.mark.parametrize(
    ("idle", "why"), [(False, "the device is busy"), (None, "it is not known whether the device is idle")]
)
def test_a_device_that_is_not_idle_is_left_alone(device, idle, why):
    client, events = device(idle, lambda *a, **b: settled(*a, **b, child=never))
    client.update("digits")
    assert events[-1].text == f"digits: threads are not measured now: {why}"
    assert client.status().lines_held[0].setting == ""
    assert any("1 thread; an update on an idle device" in text for text in client.status().lines())


def test_never_during_somebodys_inference(device, shop):
    client, events = device(tune=lambda *a, **b: settled(*a, **b, child=never))
    device(tune=None)[0].update("digits")
    with client.open("digits"):
        shop.publish("1.1.0", 2.0)
        assert client.update("digits").installed.version == "1.1.0"
    assert events[-1].text == "digits: threads are not measured now: a model is open in this process"
    client, _ = device()
    client.update("digits")  # the next one finds nobody
    assert client.status().lines_held[0].setting


def test_a_child_that_dies_takes_no_update_with_it(device):
    def dies(limits):
        return Worker.start("os:abort", limits=limits)

    client, events = device(tune=lambda *a, **b: settled(*a, **b, child=dies))
    assert client.update("digits").action == "installed"
    assert events[-1].text.startswith("digits: threads were not measured: ")
    with client.open("digits", follow=False) as model:
        assert model.setting.threads == 1


def test_the_child_tells_what_tuning_tells(device, tmp_path):
    client, _ = device(tune=None)
    client.update("digits")
    slot = tmp_path / "home" / "lines" / "digits" / "a"
    told, arrays = tuned.methods()["tune"]({"folder": str(slot), "target": "onnxruntime"}, {})
    assert arrays == {}
    assert {one["setting"]["threads"] for one in told["trials"]} == {
        one.threads for one in tuning.candidates(tuning.cores())
    }
