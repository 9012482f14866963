"""What a device does with what came: decrypting it, making the file of its download form; and what the bytes are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from accounting import ROOT, WORK, Table
from running import bundled

from haversack.flow.bundle import inspect
from haversack.tools.codec import download
from haversack.tools.formats import index

LEAST_RATE = 1e9
"""Bytes a second of encrypting and of decrypting."""
MOST_SECONDS, MOST_DOWNLOAD, SLACK = 0.15, 4_200_000, 16 << 20
SIZE, ROUNDS = 64 << 20, 5
_STREAM = """
import io, json, os, sys, time
from haversack.tools.trust import stream
size, rounds = int(sys.argv[1]), int(sys.argv[2])
plain, key = os.urandom(1 << 20) * (size >> 20), os.urandom(32)
sealed, opened, told = io.BytesIO(bytes(size + (1 << 20))), io.BytesIO(bytes(size)), {"encrypt": [], "decrypt": []}
for _ in range(rounds):
    for name in told:
        for each in (sealed, opened):
            each.seek(0)
        begun = time.perf_counter(), time.process_time()
        if name == "encrypt":
            stream.encrypt(io.BytesIO(plain), sealed, key, "ab" * 32)
            sealed.truncate()
        else:
            stream.decrypt(sealed, opened, key, limit=size)
        told[name].append([time.perf_counter() - begun[0], time.process_time() - begun[1]])
assert opened.getbuffer()[:size] == plain
print(json.dumps(told))
"""
_UNPACK = """
import json, resource, sys, time
from haversack.tools.codec import download
packed, size, rounds = open(sys.argv[1], "rb").read(), int(sys.argv[2]), int(sys.argv[3])
download.unpack(download.pack(b"warm" * 100), limit=400)
def resident():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) << 10
before, spent = resident(), []
for _ in range(rounds):
    begun = time.process_time()
    content = download.unpack(packed, limit=size)
    spent.append(time.process_time() - begun)
    del content
print(json.dumps([spent, resident() - before]))
"""


def tables() -> list[Table]:
    """Return the tables of encryption, of unpacking, and of what a release's bytes are."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundled(WORK / "lite0-three", Path(folder))
        return [encryption(), unpacking(bundle, Path(folder)), contents(bundle)]


def encryption() -> Table:
    """Return how quickly 64 MiB are encrypted and decrypted, in memory."""
    told = json.loads(_child(_STREAM, str(SIZE), str(ROUNDS)))
    rows, missed = [], []
    for name, taken in told.items():
        wall, cpu = (median(one[side] for one in taken) for side in (0, 1))
        told = [text for spent in (wall, cpu) for text in (f"{spent * 1e3:.0f}", f"{SIZE / spent / 1e9:.2f}")]
        rows.append((name, *told))
        if SIZE / cpu < LEAST_RATE:
            missed.append(f"{name}: {SIZE / cpu / 1e9:.2f} GB a second of the processor")
    words = (
        f"AES-256-GCM in chunks of 1 MiB (docs/spec/repository.md), 64 MiB in memory, one thread, median of {ROUNDS}. "
        "Must reach 1 GB a second each, of the processor's time: the clock's is what other work on the machine leaves."
    )
    head = ("what", "wall, ms", "GB a second", "CPU, ms", "GB a CPU second")
    return Table("Encrypting 64 MiB", words, head, tuple(rows), tuple(missed))


def unpacking(bundle: Path, folder: Path) -> Table:
    """Return what making the model's file of its download form takes, with the C coder and without."""
    rows, missed = [], []
    for path in sorted(bundle.iterdir()):
        if path.suffix not in (".onnx", ".tflite", ".pte"):
            continue
        content = path.read_bytes()
        tensors = index.index(content)
        packed = folder / f"{path.name}.packed"
        packed.write_bytes(download.pack(content, tensors))
        largest = max((one.length for one in tensors), default=0)
        for coder, switch in (("C", "1"), ("NumPy", "0")):
            rounds = ROUNDS if coder == "C" else 1
            spent, peak = json.loads(_child(_UNPACK, str(packed), str(len(content)), str(rounds), switch=switch))
            held = coder == "C" and (median(spent) > MOST_SECONDS or peak > len(content) + largest + SLACK)
            if held:
                missed.append(f"{path.name} in C: {median(spent):.2f} CPU s, {peak / 1e6:.1f} MB")
            sizes = (f"{len(content):,}", f"{packed.stat().st_size:,}")
            rows.append((path.name, coder, *sizes, f"{median(spent):.3f}", f"{peak / 1e6:.1f}"))
        if packed.stat().st_size > MOST_DOWNLOAD:
            missed.append(f"{path.name}: a download of {packed.stat().st_size:,} bytes")
    words = (
        "EfficientNet-Lite0 in int8. CPU seconds in a fresh process, sha256 of the result among them; memory above "
        f"that of the process before, the file itself among it. Held to {MOST_SECONDS} s in C, and each download to "
        f"{MOST_DOWNLOAD / 1e6:g} MB."
    )
    head = ("file", "coder", "bytes", "download", "CPU s", "peak, MB")
    return Table("Unpacking the download form", words, head, tuple(rows), tuple(missed))


def contents(bundle: Path) -> Table:
    """Return which bytes a device fetches, by role."""
    found = inspect(bundle)
    roles = {one.target: found.roles(one.target) for one in found.bundle.manifest.variants}
    names = sorted({name for each in roles.values() for name in each})
    rows = [
        (target, *(f"{each.get(name, 0):,}" for name in names), f"{sum(each.values()):,}")
        for target, each in roles.items()
    ]
    words = "EfficientNet-Lite0 in int8, a first full download, the manifest left out; golden vectors: four pictures."
    return Table("What the bytes are", words, ("runtime", *names, "all"), tuple(rows))


def _child(code: str, *words: str, switch: str = "1") -> str:
    """Return what a fresh process prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HAVERSACK_NATIVE": switch}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
