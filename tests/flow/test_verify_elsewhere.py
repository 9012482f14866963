"""A finished run verified on other devices: emulated processors, and machines over SSH."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from haversack.base.errors import EnvironmentFault
from haversack.flow.verify import Answer, verify
from haversack.measure import emulated
from haversack.measure.remote import RemoteDevice
from haversack.tools.worker.faults import LinkLost

arm64 = pytest.mark.skipif(bool(emulated.missing()), reason=f"{emulated.missing()}; {emulated.COMMAND}")
x86 = pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="qemu-x86_64 is not installed; make system-arm64")


def where(answer: Answer) -> str:
    return "\n".join(answer.lines())


@pytest.mark.parametrize("name", [pytest.param("cortex-a76", marks=arm64), pytest.param("haswell", marks=x86)])
@pytest.mark.timeout(300)
def test_integers_are_the_same_on_a_processor_that_is_not_here(static, name):
    answer = verify(static, device=f"qemu:{name}")
    assert answer.exit_code == 0, where(answer)
    assert f"vectors in the runtime on qemu:{name}, bit for bit" in answer.checks[2].text


def test_integers_are_the_same_over_ssh(static, board):
    answer = verify(static, device=board.device)
    assert answer.exit_code == 0, where(answer)
    assert f"vectors in the runtime on {board.device}, bit for bit" in answer.checks[2].text


def far(monkeypatch, board, **packages):
    """Let the device say that it has other packages."""
    real = RemoteDevice._asked

    def asked(device):
        about = real(device)
        return replace(about, packages={**about.packages, **packages})

    monkeypatch.setattr(RemoteDevice, "_asked", asked)
    return board.device


def test_a_machine_that_could_have_the_runtime_and_lacks_it_is_a_fault_of_the_environment(static, board, monkeypatch):
    with pytest.raises(EnvironmentFault, match="nothing of this run can run there") as caught:
        verify(static, device=far(monkeypatch, board, onnxruntime=""))
    assert "has no onnxruntime" in str(caught.value)
    assert caught.value.next_step == f"haversack doctor --device {board.device}"
    assert caught.value.exit_code == 6


def test_a_connection_lost_while_verifying_says_nothing_of_the_file(static, board, monkeypatch):
    def lost(*_):
        raise LinkLost("ssh:board: nothing was heard of it for 20 s")

    monkeypatch.setattr(RemoteDevice, "load", lost)
    with pytest.raises(LinkLost, match="nothing was heard of it") as caught:
        verify(static, device=board.device)
    assert caught.value.exit_code == 6


def test_what_a_device_has_no_runtime_for_is_skipped_and_said(static, monkeypatch, tmp_path):
    (tmp_path / "qemu-aarch64").write_text("#!/bin/sh\n")
    (tmp_path / "qemu-aarch64").chmod(0o755)
    (tmp_path / "root").mkdir()
    (tmp_path / "stamp").write_text("1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HAVERSACK_SYSROOT", str(tmp_path))
    monkeypatch.setattr(emulated, "RUNTIMES", ("litert",))
    answer = verify(static, device="qemu:cortex-a76")
    assert answer.exit_code == 0
    assert answer.lines()[2].startswith(
        "skip   onnxruntime: golden vectors: onnxruntime does not run on qemu:cortex-a76"
    )
    assert [check["skipped"] for check in answer.data()["checks"]] == [False, False, True, False]
