"""Truncated and flipped model files in the self-test's child: the child may die, this process may not."""

from __future__ import annotations

import random

import pytest

from haversack.deliver import selftest
from haversack.deliver.selftest import Demands, Trial
from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerTimeout

VARIANTS = 50
LIMITS = Demands(call_seconds=20.0, cpu_seconds=120).limits(1 << 20)


def spoiled(data, number):
    """Return a variant of a file: its end cut off, or one to eight of its bytes changed."""
    draw = random.Random(number)
    if number % 3 == 0:
        return data[: draw.randrange(len(data))]
    found = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        found[draw.randrange(len(found))] ^= draw.randint(1, 255)
    return bytes(found)


@pytest.mark.parametrize("target", ["onnxruntime", "litert", "executorch"])
def test_no_file_takes_this_process_down(piece, tmp_path, target):
    one = piece(target)
    name = one.artifact.files[0].path
    whole, main = (one.left.folder / name).read_bytes(), tmp_path / name
    golden, options = one.left.folder / "golden.npz", one.artifact.session_options
    header = Trial(target, main, golden, options, one.exact, one.tolerance).header()
    ends = {"well": 0, "wrong": 0, "refused": 0, "died": 0}
    child = selftest.start(LIMITS)
    try:
        main.write_bytes(whole)
        assert child.call("answer", header)[0]["faults"] == []
        for number in range(VARIANTS):
            main.write_bytes(spoiled(whole, number))
            try:
                told, _ = child.call("answer", header)
            except WorkerError:
                ends["refused"] += 1
            except (WorkerCrashed, WorkerTimeout):
                ends["died"] += 1
                child.close()
                child = selftest.start(LIMITS)
            else:
                ends["wrong" if told["faults"] else "well"] += 1
        main.write_bytes(whole)
        assert child.call("answer", header)[0]["faults"] == []
    finally:
        child.close()
    assert sum(ends.values()) == VARIANTS
    assert ends["refused"] + ends["wrong"] + ends["died"] > VARIANTS // 3, ends
