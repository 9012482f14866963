"""Updates by fine-tuning: the CIFAR-10 network under another camera, quality against the bytes of a real delta."""

from __future__ import annotations

import shutil

from accounting import ROOT, WORK, Table, meanwhile, pack

from haversack.flow.finetune import Wish, finetune
from haversack.report.update import PointRecord, UpdateRecord

RELEASE, JOB = "examples/cifar10.py", "examples/cifar10_shifted.py"
SHIFTS = ("blur", "noise", "blur+noise")
LIMIT = "12KB"
GAIN, SHARE = 0.8, 0.25
"""So much of the gain of fine-tuning all layers is to be had, for so much of its delta."""
HEAD = ("camera", "update", "layers changed", "delta, bytes", "of all layers'", "top1", "gain, pt", "of all layers'")
WORDS = f"""ResNet-20 packed in int8 for ONNX Runtime (`haversack pack {RELEASE}`), then
`haversack finetune {JOB} --max-delta {LIMIT} --compare-full`: 3,584 labelled photographs of another
camera, 512 held back, 2,000 reported that nothing has seen. *All layers* is every layer's integers and biases, trained
for as long in the same way. Deltas are the real ones of the files, HVD1 or bsdiff4, whichever is smaller. Held to: at
least {GAIN:.0%} of the gain of all layers with at most {SHARE:.0%} of its bytes, on each camera."""


def tables() -> list[Table]:
    """Return one table, with the front of each camera."""
    released = pack("released", RELEASE, "drop=1pt", allow=("slower-than-float",), effort="fast").out
    rows, missed = [], []
    for shift in SHIFTS:
        out = WORK / f"finetuned-{shift}"
        shutil.rmtree(out, ignore_errors=True)
        with meanwhile("HAVERSACK_SHIFT", shift):
            wish = Wish(str(ROOT / JOB), LIMIT, released, out, compare_full=True)
            update = finetune(wish).record.update
        assert update is not None, "the run is an update"
        full = update.points[-1]
        rows += [_row(shift, update, one, full) for one in update.points]
        missed += faults(shift, update, full)
    return [Table("Updates by fine-tuning", WORDS, HEAD, tuple(rows), tuple(missed))]


def faults(shift: str, update: UpdateRecord, full: PointRecord) -> list[str]:
    """Return what an update misses of what it is held to, in words."""
    mine = update.shipped
    share, gain = mine.bytes / full.bytes, gained(update, mine) / gained(update, full)
    found = [f"{shift}: {share:.1%} of the bytes of all layers"] if share > SHARE else []
    return found + ([f"{shift}: {gain:.1%} of the gain of all layers"] if not gain >= GAIN else [])


def gained(update: UpdateRecord, one: PointRecord) -> float:
    """Return by how much a point is better than the release."""
    assert one.value is not None, "ONNX Runtime runs here"
    assert update.first.value is not None, "as above"
    return one.value - update.first.value


def _row(shift: str, update: UpdateRecord, one: PointRecord, full: PointRecord) -> tuple[str, ...]:
    gain = gained(update, one)
    return (
        shift,
        f"**{one.name}, ships**" if one.ships else one.name,
        str(len(one.layers)),
        f"{one.bytes:,}",
        f"{one.bytes / full.bytes:.1%}",
        f"{one.value:.4f}",
        f"{100 * gain:.2f}",
        f"{gain / gained(update, full):.1%}",
    )
