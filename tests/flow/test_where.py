"""Where a run measures: what a device lacks is told before anything is made, and the report tells what it is."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

from haversack.base.errors import EXIT_ENVIRONMENT, EnvironmentFault, UsageError
from haversack.flow import where
from haversack.flow.request import Runtimes
from haversack.measure import devices, ssh
from haversack.measure.local import LocalDevice
from haversack.measure.remote import RemoteDevice
from haversack.report import facts

PI = (
    "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
    "Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
)


class Lacking(LocalDevice):
    """A device without some runtimes."""

    name = "ssh:board"

    def __init__(self, *lacking):
        super().__init__()
        self.lacking = lacking
        self.closed = False

    def lacks(self, target, *, looking=False):
        assert looking, "packing looks into files"
        return f"no {target} there" if target in self.lacking else ""

    def close(self):
        super().close()
        self.closed = True


@contextmanager
def on(monkeypatch, device, *targets, one=False):
    monkeypatch.setattr(devices, "opened", lambda name, limits: device)
    with where.measured_on("ssh:board", Runtimes(targets, one, {"ncnn": "it is not installed"})) as found:
        yield found


def test_this_machine_has_what_it_has():
    tried = Runtimes(("onnxruntime", "litert"))
    with where.measured_on("local", tried) as (device, left):
        assert type(device) is LocalDevice
        assert left == tried


def test_a_runtime_that_was_named_and_is_not_there_ends_the_run_before_it_begins(monkeypatch):
    device = Lacking("litert")
    with (
        pytest.raises(EnvironmentFault, match="ssh:board cannot run litert") as caught,
        on(monkeypatch, device, "onnxruntime", "litert"),
    ):
        pytest.fail("nothing may begin")
    assert [(fault.where, fault.cause) for fault in caught.value.faults] == [("litert", "no litert there")]
    assert caught.value.next_step == "haversack doctor --device ssh:board"
    assert caught.value.exit_code == EXIT_ENVIRONMENT
    assert device.closed


def test_where_any_will_do_it_is_left_out_with_its_reason(monkeypatch):
    with on(monkeypatch, Lacking("litert"), "onnxruntime", "litert", one=True) as (_, left):
        assert left.targets == ("onnxruntime",)
        assert left.left_out == {"ncnn": "it is not installed", "litert": "no litert there"}


def test_a_device_without_any_runtime_is_told(monkeypatch):
    with (
        pytest.raises(EnvironmentFault, match="cannot run onnxruntime, litert"),
        on(monkeypatch, Lacking("onnxruntime", "litert"), "onnxruntime", "litert", one=True),
    ):
        pytest.fail("nothing may begin")


def test_an_emulated_processor_is_refused():
    with (
        pytest.raises(UsageError, match="its times and its memory"),
        where.measured_on("qemu:cortex-a76", Runtimes(("onnxruntime",))),
    ):
        pytest.fail("nothing may begin")


def test_a_report_of_this_machine_tells_of_this_machine():
    machine = facts.of_machine()
    assert where.environment(machine, LocalDevice()) is machine
    assert machine.device == ""


def test_a_report_tells_of_the_machine_that_measured(board):
    machine = replace(facts.of_machine(packages=("torch", "numpy")), cpu="the workshop's")
    address = board.device.removeprefix("ssh:")
    with RemoteDevice(ssh.carrier(address), ssh.installs(address)) as device:
        device.about = replace(
            device.about,
            cpuinfo=PI,
            machine="aarch64",
            system="Linux 6.6",
            cores=4,
            packages={"numpy": "1.0", "onnx": ""},
        )
        found = where.environment(machine, device)
    assert found.device == board.device
    assert found.cpu == "Raspberry Pi 5 Model B Rev 1.0"
    assert found.cpu_flags == ("asimd", "asimddp")
    assert found.os == "Linux 6.6 aarch64"
    assert found.cores == 4
    assert found.versions == {"torch": machine.versions["torch"], "numpy": "1.0"}
