"""The examination: what is needed and broken is told with its pip command, and nothing is ever raised."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from haversack.base.errors import EnvironmentFault
from haversack.flow import doctor
from haversack.flow.doctor import Examination, Opened, kernels
from haversack.flow.requirements import Package
from haversack.flow.room import available
from haversack.report import facts

MACHINE = facts.of_machine()
RIGHT = Package("numpy", "core", ">=2.1", "2.4.6")
WELL = Examination(MACHINE, "words", (RIGHT,), (Opened("onnxruntime", ("int8",), True, ""),), "", 10 << 30, 8 << 30)


def test_a_healthy_machine():
    assert WELL.healthy
    assert WELL.lines()[-1] == "everything that packing needs works"


@pytest.mark.parametrize(
    "change, said",
    [
        ({"packages": ()}, "not installed"),
        ({"packages": (Package("torch", "pack", "==2.13.0", ""),)}, "torch (pack): missing, wanted ==2.13.0"),
        ({"packages": (Package("onnx", "pack", ">=1.23", "1.2"),)}, "onnx (pack): wrong version"),
        ({"worker": "the process ended"}, "workers: the process ended"),
        ({"targets": (Opened("tin", ("int8",), True, "it does not open"),)}, "tin: it does not open"),
        ({"machine": replace(MACHINE, python="2.7")}, None),
    ],
)
def test_what_is_broken_is_told(change, said):
    found = replace(WELL, **change)
    if said is None:  # what counts is the Python that runs
        assert found.healthy
        return
    assert not found.healthy
    assert any(said in fault for fault in found.faults())
    assert any(said in line for line in found.lines())


def test_the_exact_command_is_given():
    found = replace(WELL, packages=(RIGHT, Package("torch", "pack", "==2.13.0", "")))
    assert found.lines()[-1] == "next: pip install 'haversack[pack]'"
    assert found.data()["commands"] == {"pack": "pip install 'haversack[pack]'"}


def test_an_extra_that_packing_does_not_need_is_told_and_no_fault():
    found = replace(WELL, packages=(RIGHT, Package("tokenizers", "lm", ">=0.23", "")))
    assert found.healthy
    assert "  missing: tokenizers (wanted >=0.23)" in found.lines()
    assert "  pip install 'haversack[lm]'" in found.lines()


def test_little_room_is_told():
    found = replace(WELL, disk_bytes=5, memory_bytes=7)
    assert sum("(little)" in line for line in found.lines()) == 1
    assert next(line for line in found.lines() if "free here" in line).count("(little)") == 2
    assert "not told" in "\n".join(replace(WELL, memory_bytes=None).lines())


def test_data_are_json():
    data = json.loads(json.dumps(WELL.data(), allow_nan=False))
    assert data["healthy"] is True
    assert data["packages"][0]["state"] == "installed"
    assert data["targets"][0]["works"] is True


@pytest.mark.parametrize(
    "os, flags, said",
    [
        ("Linux 6 x86_64", ("avx2",), "AVX2 without VNNI"),
        ("Linux 6 x86_64", ("avx2", "avx_vnni"), "VNNI: int8"),
        ("Linux 6 x86_64", ("avx512_vnni",), "VNNI: int8"),
        ("Linux 6 x86_64", (), "without AVX2"),
        ("Linux 6 aarch64", ("asimd", "asimddp"), "ARM with dot products"),
        ("Linux 6 aarch64", ("asimd",), "no flag"),
        ("Linux 6 riscv64", (), "no flag"),
    ],
)
def test_what_flags_mean(os, flags, said):
    assert said in kernels(replace(MACHINE, os=os, cpu_flags=flags))


@pytest.mark.parametrize(
    "text, found",
    [("MemTotal: 9 kB\nMemAvailable:   12 kB\n", 12 * 1024), ("MemTotal: 9 kB\n", None), (None, None)],
)
def test_available_memory(tmp_path, text, found):
    path = tmp_path / "meminfo"
    if text is not None:
        path.write_text(text)
    assert available(path) == found


def test_a_target_that_works():
    found = doctor.opened("onnxruntime")
    assert found.works, found.cause
    assert "int8" in found.precisions


@pytest.mark.parametrize(
    "error, said",
    [
        (EnvironmentFault("the disk is full", where="/tmp"), "the disk is full"),
        (ImportError("libtorch.so is broken"), "libtorch.so is broken"),
        (OSError("no such device"), "no such device"),
    ],
)
def test_a_target_that_fails_is_told_and_not_raised(monkeypatch, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(doctor, "_tried", fail)
    found = doctor.opened("onnxruntime")
    assert not found.works
    assert said in found.cause
