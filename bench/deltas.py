"""Deltas of real pairs, beside those of others: how many bytes, and what applying one takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import delta_pairs
from accounting import ROOT, WORK, Table

from haversack.flow import deltas
from haversack.tools.codec import bsdiff

MODELS = ("model.onnx", "model.tflite", "model.pte", "encodings.safetensors")
HELD = ("model.onnx", "model.tflite")
"""Files that are held against the bounds after all layers were trained."""
MOST, SHARE = 500_000, 0.75
SWEEPS = 3
SECONDS, MEMORY = 0.15, 16e6
_WINDOW = 25
_APPLY = """
import json, mmap, os, sys, time
from haversack.tools.codec import delta
old = open(sys.argv[1], "rb")
view = memoryview(mmap.mmap(old.fileno(), 0, access=mmap.ACCESS_READ))
patch = open(sys.argv[2], "rb").read()
def resident(what):
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith(what))) << 10
small = memoryview(bytes.fromhex(sys.argv[3])), bytes.fromhex(sys.argv[4])
delta.apply_to(*small, lambda piece: None, limit=1 << 20)
sum(view[::4096])  # the old file is in memory from here on: it is mapped, and not counted
open("/proc/self/clear_refs", "w").write("5")  # the kernel's own record of the peak begins anew
before, sink = resident("VmRSS"), open(os.devnull, "wb")
start = time.process_time()
delta.apply_to(view, patch, sink.write, limit=1 << 30)
spent = time.process_time() - start
peak = resident("VmHWM")
print(json.dumps([spent, peak - before]))
"""


def tables() -> list[Table]:
    """Return the table of all pairs, made where they are not there yet (HAVERSACK_PAIRS names another folder)."""
    folder = Path(os.environ.get("HAVERSACK_PAIRS", WORK / "pairs"))
    delta_pairs.main(folder)
    pairs = [Pair.of(folder, update, name) for update in delta_pairs.UPDATES for name in MODELS]
    sweeps = [[applied(pair.old, pair.ours) for pair in pairs] for _ in range(SWEEPS)]
    rows, missed = [], []
    for pair, *runs in zip(pairs, *sweeps, strict=True):
        spent, peak = min(run[0] for run in runs), max(run[1] for run in runs)
        rows.append((*pair.sizes, f"{spent:.2f}", f"{peak / 1e6:.1f}"))
        missed += pair.faults(spent, peak)
    words = (
        "EfficientNet-Lite0 in int8 before and after an update, packed with one plan: all layers trained for "
        f"{delta_pairs.STEPS} steps, normalisation among them (all-layers) or left as it is (fixed-norms), with the "
        "scales that they had or packed anew; the last layer trained (head); ranges of other pictures (recalibrated); "
        "the last layer trained and a softmax behind it, so that all has other names and lies elsewhere (moved). "
        f"CPU seconds of applying HVD1, the least of {SWEEPS} sweeps over all pairs (neighbours on a core double them "
        "for a while), and the most that memory (VmHWM) peaks above that of a process that holds both files. "
        f"HVD1 is held to {MOST:,} bytes and to {SHARE:g} of bsdiff4 for {' and '.join(HELD)} of all-layers, and to "
        "bsdiff4 everywhere."
    )
    head = ("update", "file", "bytes", "zstd --patch-from", "bsdiff4", "HVD1", "of bsdiff4", "apply, CPU s", "peak, MB")
    return [Table("Deltas", words, head, tuple(rows), tuple(missed))]


@dataclass(frozen=True)
class Pair:
    """A file before and after an update, and its delta.

    Attributes:
        update, name: of the update and of the file.
        old: where the file before lies.
        ours: the delta, HVD1.
        theirs: bytes of bsdiff4's.
        sizes: the row of the table, without what applying costs.
    """

    update: str
    name: str
    old: Path
    ours: bytes
    theirs: int
    sizes: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, update: str, name: str) -> Pair:
        """Make the deltas of a pair."""
        old = folder / "old" / name
        before, after = old.read_bytes(), (folder / update / name).read_bytes()
        ours, theirs = deltas.make(before, after, "hvd1")["hvd1"], len(bsdiff.make(before, after))
        sizes = [f"{size:,}" for size in (len(after), patched(before, after), theirs, len(ours))]
        return cls(update, name, old, ours, theirs, (update, name, *sizes, f"{len(ours) / theirs:.3f}"))

    def faults(self, spent: float, peak: float) -> list[str]:
        """Return what the pair misses, given CPU seconds and bytes of memory that applying takes."""
        share, what = len(self.ours) / self.theirs, f"{self.update}, {self.name}"
        held = self.update == "all-layers" and self.name in HELD
        found = [f"{what}: {len(self.ours):,} bytes of HVD1, {self.theirs:,} of bsdiff4"] if share > 1 else []
        if held and (share > SHARE or len(self.ours) > MOST):
            found.append(f"{what}: {len(self.ours):,} bytes, {share:.2f} of bsdiff4")
        if spent > SECONDS:
            found.append(f"{what}: {spent:.2f} CPU s to apply")
        if peak > MEMORY:
            found.append(f"{what}: {peak / 1e6:.1f} MB to apply")
        return found


def patched(old: bytes, new: bytes) -> int:
    """Return the bytes that ``zstd --patch-from`` takes at level 19."""
    import zstandard

    known = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    wide = zstandard.ZstdCompressionParameters.from_level(19, window_log=_WINDOW, enable_ldm=True)
    return len(zstandard.ZstdCompressor(dict_data=known, compression_params=wide).compress(new))


def applied(old: Path, patch: bytes) -> tuple[float, float]:
    """Return CPU seconds and bytes of memory that applying a delta takes in a fresh process."""
    path = old.with_name(f".{old.name}.{os.getpid()}.delta")
    small = deltas.make(b"warm" * 40, b"warmer" * 40, "hvd1")["hvd1"]
    path.write_bytes(patch)
    try:
        command = [sys.executable, "-c", _APPLY, str(old), str(path), (b"warm" * 40).hex(), small.hex()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    finally:
        path.unlink()
    spent, peak = json.loads(done.stdout)
    return float(spent), float(peak)
