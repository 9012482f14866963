"""Processors that are not here: what is started, what is refused, and the same values where qemu-user is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from haversack.base.errors import EXIT_ENVIRONMENT, EnvironmentFault, UsageError
from haversack.measure import devices, emulated
from haversack.measure.device import NotThere, Opening
from haversack.measure.emulated import PROCESSORS, SLOWER, EmulatedDevice
from haversack.measure.local import LocalDevice
from haversack.tools.worker.process import Limits

ONE = {"x": np.ones((1, 16), np.float32)}
arm64 = pytest.mark.skipif(bool(emulated.missing()), reason=f"{emulated.missing()}; {emulated.COMMAND}")
x86 = pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-x86_64 is not installed; make system-arm64")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What stands in for qemu and the ARM64 folder where only commands are looked at."""
    for name in ("qemu-aarch64", "qemu-x86_64"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    home = tmp_path / "arm64"
    (home / "root" / "usr" / "lib").mkdir(parents=True)
    (home / "stamp").write_text("1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HAVERSACK_SYSROOT", str(home))
    return tmp_path


def test_the_command_of_an_arm_processor(folder):
    with EmulatedDevice("cortex-a76", limits=Limits(call_seconds=2.0, start_seconds=1.0)) as device:
        assert device.name == "qemu:cortex-a76"
        python = list(device._python)
        assert python[:3] == [str(folder / "qemu-aarch64"), "-cpu", "cortex-a76"]
        assert python[-1] == str(folder / "arm64/root/usr/bin/python3.11")
        system = Path(python[python.index("-L") + 1])
        assert (system / "usr" / "lib").is_dir()
        assert "CPU part\t: 0xd0b" in (system / "proc" / "cpuinfo").read_text()
        assert device._folders == (folder / "arm64" / "site",)
        assert device._env["PYTHONPATH"] == "", "modules of this machine are not for that one"
        assert (device._limits.call_seconds, device._limits.start_seconds) == (2 * SLOWER, SLOWER)
    assert not system.exists()


def test_an_x86_processor_runs_our_own_python(folder):
    import sys

    device = EmulatedDevice("haswell")
    *command, overlay, python = device._python
    assert (command, python) == ([str(folder / "qemu-x86_64"), "-cpu", "Haswell", "-L"], sys.executable)
    assert [str(path.relative_to(overlay)) for path in Path(overlay).rglob("*") if path.is_file()] == ["proc/cpuinfo"]
    device.close()
    assert not Path(overlay).exists()


def test_a_missing_folder_names_the_command_that_makes_it(folder):
    (folder / "arm64" / "stamp").unlink()
    with pytest.raises(EnvironmentFault, match="no ARM64 system") as caught:
        EmulatedDevice("cortex-a53")
    assert caught.value.exit_code == EXIT_ENVIRONMENT
    assert caught.value.next_step == "make system-arm64"
    assert caught.value.where == str(folder / "arm64")
    assert "no ARM64 system" in emulated.missing()


def test_a_missing_emulator_is_told(folder):
    (folder / "qemu-aarch64").unlink()
    with pytest.raises(EnvironmentFault, match="qemu-aarch64 is not installed") as caught:
        EmulatedDevice("cortex-a53")
    assert "make system-arm64" in caught.value.next_step
    assert emulated.missing() == "qemu-aarch64 is not installed"


def test_nothing_is_measured(folder):
    with EmulatedDevice("cortex-a76") as device:
        opening = Opening(folder / "x", "onnxruntime")
        for call in (
            lambda: device.time([], ONE, rounds=1),
            lambda: device.start(opening, ONE),
            lambda: device.import_peak("onnxruntime", ONE),
        ):
            with pytest.raises(UsageError, match="qemu:cortex-a76 is emulated"):
                call()


def test_a_target_without_a_runtime_there_is_told_before_anything_starts(folder):
    with EmulatedDevice("cortex-a76") as device, pytest.raises(NotThere, match="executorch does not run on qemu:cor"):
        device.load(Opening(folder / "x", "executorch"))


@pytest.mark.parametrize(
    "name, said",
    [
        ("ssh", "there is no device 'ssh'"),
        ("adb", "there is no device 'adb'"),
        ("qemu:cortex-a77", "did you mean qemu:cortex-a7"),
        ("locl", "did you mean local"),
        ("qemu", "there is no device 'qemu'"),
        ("", "there is no device ''"),
    ],
)
def test_devices_that_do_not_exist(name, said):
    with pytest.raises(UsageError) as caught:
        devices.opened(name)
    assert said in caught.value.cause
    assert all(one in caught.value.next_step for one in devices.names())


def test_this_machine_by_its_name():
    device = devices.opened("local", Limits(call_seconds=3.0))
    assert type(device) is LocalDevice
    assert device._limits.call_seconds == 3.0


def test_an_unknown_processor():
    with pytest.raises(UsageError, match="did you mean haswell") as caught:
        EmulatedDevice("hasswell")
    assert "cortex-a53" in caught.value.next_step


def test_an_arm_processor_tells_its_features():
    assert "asimddp" in PROCESSORS["cortex-a76"].features.split()
    assert "asimddp" not in PROCESSORS["cortex-a53"].features.split()


@pytest.mark.parametrize(
    "settings, found, wanted",
    [
        ({"p": "1", "other": "2"}, ("aarch64", "asimddp"), {"other": "2"}),
        ({"p": "1"}, ("x86_64", "avx2"), {"p": "1"}),
        ({}, ("x86_64", "avx2"), {"p": "1"}),
        ({"other": "2"}, ("x86_64", "avx2"), {"other": "2", "p": "1"}),
        ({"p": "1"}, ("x86_64", "avx512_vnni"), {"p": "1"}),
        ({}, ("x86_64", "avx512_vnni"), {}),
        ({}, ("aarch64",), {}),
    ],
)
def test_a_file_is_opened_as_the_processor_needs_it(settings, found, wanted):
    from haversack.targets.onnxruntime import cpu

    spelled = lambda options: {cpu.PRECISION if name == "p" else name: value for name, value in options.items()}
    assert cpu.suited(spelled(settings), found) == spelled(wanted)


@x86
@pytest.mark.parametrize("name, gone", [("haswell", "avx512"), ("nehalem", "avx")])
def test_an_x86_processor_does_not_tell_what_it_lacks(name, gone):
    told = PROCESSORS[name].listing()
    flags = next(line for line in told.splitlines() if line.startswith("flags")).split()
    assert "sse2" in flags
    assert not [word for word in flags if word.startswith(gone)]


@pytest.mark.parametrize("name", [pytest.param("cortex-a76", marks=arm64), pytest.param("haswell", marks=x86)])
@pytest.mark.timeout(300)
def test_a_file_gives_its_values_on_another_processor(name, onnx_file):
    path, oracle = onnx_file()
    with devices.opened(f"qemu:{name}") as device:
        handle = device.load(Opening(path, "onnxruntime", {"session.x64quantprecision": "1"}))
        found = device.run(handle, ONE)["r1"]
        device.unload(handle)
    np.testing.assert_allclose(found, oracle(ONE["x"]), rtol=1e-5)
