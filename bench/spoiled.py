"""Spoiled model files in the self-test's child, and under the indexers: what becomes of each, and of who opens it.

A child tries one file after the other until it dies, as a device's does but for being used again: what one file did to
its memory, the next one meets.
"""

from __future__ import annotations

import random
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from accounting import WORK, Table

from haversack.base.errors import Refused
from haversack.deliver import selftest
from haversack.deliver.selftest import Demands, Trial, trial_of
from haversack.deliver.trial import opened
from haversack.flow.bundle import bundle
from haversack.flow.shipping import Wish
from haversack.tools.data import golden_file
from haversack.tools.data.golden_file import Golden
from haversack.tools.formats import index
from haversack.tools.worker.faults import WorkerCrashed, WorkerError, WorkerTimeout
from haversack.tools.worker.process import Worker

VARIANTS = 1000
"""Of each file and each way to spoil it."""
OTHERS = 16
"""Inputs beside the golden ones, on which a file that passed is asked as well."""
WAYS = ("truncated", "flipped")
TARGETS = ("litert", "executorch", "onnxruntime")
LIMITS = Demands(call_seconds=60.0, cpu_seconds=3600, start_seconds=300.0).limits(1 << 20)
HEAD = ("file", "spoiled", "variants", "child died", "refused", "wrong answers", "passed", "of these wrong elsewhere")
WORDS = f"""The keyword network in integers, packed by the part `networks`, as a bundle; the golden vectors of the
bundle are asked in a child, as before an installation. Truncated: cut at any byte. Flipped: one to eight bytes
changed. A file that passes is asked {OTHERS} inputs more, and held against what the whole file answers: «wrong
elsewhere» is what golden vectors do not show, and what the sha256 in the signed release stops before. No device gets
here with such a file: sizes and digests come first. One process asked of all of these, and lived."""
INDEXED = """The indexers of the same files, and of a small .gguf and .safetensors, in the process itself: publishers
and `delta make` read files with them. Either they return tensors inside the file, or they refuse it."""


@dataclass
class Ends:
    """How many variants ended in which way, and the largest time of one, in seconds."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def add(self, end: str, seconds: float) -> None:
        """Count one."""
        self.counts[end] += 1
        self.slowest = max(self.slowest, seconds)


def tables() -> list[Table]:
    """Return one table of children, a row for each file and way to spoil it, and one of indexers."""
    run = WORK / "keywords"
    if not (run / "report.json").exists():
        sys.exit("the part networks packs what is spoiled here: python bench/run.py --only networks")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        made = bundle(run, place / "keywords-1.0.0.haversack", Wish())
        trials = [trial_of(made.folder, target) for target in TARGETS]
        contents = {trial.main.name: trial.main.read_bytes() for trial in trials}
        children = _children(trials, place)
    return [children, _indexers(contents)]


def spoiled(data: bytes, way: str, number: int) -> bytes:
    """Return a variant of a file, the same for the same number."""
    draw = random.Random(f"{way} {number}")  # noqa: S311 - the same for everybody
    if way == "truncated":
        return data[: draw.randrange(len(data))]
    found = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        found[draw.randrange(len(found))] ^= draw.randint(1, 255)
    return bytes(found)


def _children(trials: list[Trial], place: Path) -> Table:
    rows, missed = [], []
    for trial in trials:
        for way in WAYS:
            ends = _tried(trial, way, place)
            found = [ends.counts[end] for end in ("died", "refused", "wrong", "passed", "elsewhere")]
            rows.append((f"`{trial.main.name}`", way, *map(str, [VARIANTS, *found])))
            if found[2] + found[1] + found[0] + found[3] != VARIANTS:
                missed.append(f"{trial.main.name}, {way}: not every variant has an end")
            sys.stdout.write(f"{trial.main.name} {way}: {dict(ends.counts)}, slowest {ends.slowest:.1f} s\n")
            sys.stdout.flush()
    return Table("Spoiled files in the child", WORDS, HEAD, tuple(rows), tuple(missed))


def _tried(trial: Trial, way: str, place: Path) -> Ends:
    """Try every variant; this process goes on whatever the child does."""
    whole, main = trial.main.read_bytes(), place / trial.main.name
    asked = replace(trial, main=main)
    elsewhere = replace(asked, golden=_others(trial, place / f"{trial.target}.npz"))
    main.write_bytes(whole)
    child, ends = selftest.start(LIMITS), Ends()
    for one in (asked, elsewhere):
        if faults := child.call("answer", one.header())[0]["faults"]:
            sys.exit(f"the whole {trial.main.name} fails: {faults[0]}")
    for number in range(VARIANTS):
        main.write_bytes(spoiled(whole, way, number))
        began = time.perf_counter()
        end, child = _end(child, asked)
        if end == "passed":
            other, child = _end(child, elsewhere)
            ends.counts["elsewhere"] += other != "passed"
        ends.add(end, time.perf_counter() - began)
    child.close()
    return ends


def _end(child: Worker, trial: Trial) -> tuple[str, Worker]:
    """Return what became of a file, and the child that is asked next."""
    try:
        told, _ = child.call("answer", trial.header())
    except WorkerError:
        return "refused", child
    except (WorkerCrashed, WorkerTimeout):
        child.close()
        return "died", selftest.start(LIMITS)
    return ("wrong" if told["faults"] else "passed"), child


def _others(trial: Trial, path: Path) -> Path:
    """Write what the whole file answers to inputs of the golden ones' numbers, in another order."""
    vectors = golden_file.read(trial.golden)
    session, draw, made = opened(trial.header()), np.random.default_rng(0), []
    for number in range(OTHERS):
        one = vectors[number % len(vectors)].inputs
        fed = {name: draw.permutation(array.ravel()).reshape(array.shape) for name, array in one.items()}
        made.append(Golden(fed, session.run(fed)))
    session.close()
    golden_file.write(made, path)
    return path


def _indexers(contents: Mapping[str, bytes]) -> Table:
    rows, missed = [], []
    for name, data in {**contents, "small.gguf": _gguf(), "small.safetensors": _safetensors()}.items():
        for way in WAYS:
            ends = Ends()
            for number in range(VARIANTS):
                began = time.perf_counter()
                ends.add(_indexed(spoiled(data, way, number), index.FORMATS[index.format_of(data)].index), 0)
                ends.slowest = max(ends.slowest, time.perf_counter() - began)
            found = [ends.counts[end] for end in ("refused", "read", "other")]
            rows.append((f"`{name}`", way, *map(str, [VARIANTS, *found]), f"{1e3 * ends.slowest:.0f} ms"))
            if found[2]:
                missed.append(f"{name}, {way}: {found[2]} ended in another way than refused")
    head = ("file", "spoiled", "variants", "refused", "read", "another error", "slowest")
    return Table("Spoiled files under the indexers", INDEXED, head, tuple(rows), tuple(missed))


def _indexed(data: bytes, indexer: Callable[[bytes], object]) -> str:
    try:
        indexer(data)
    except Refused:
        return "refused"
    except Exception:  # noqa: BLE001 - any other is what is looked for
        return "other"
    return "read"


def _gguf() -> bytes:
    """Return a file of two tensors, as its format's page has it."""

    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    pairs = [text(b"general.alignment") + struct.pack("<II", 4, 32), text(b"name") + struct.pack("<I", 8) + text(b"m")]
    tensors = [text(b"floats") + struct.pack("<I2QIQ", 2, 16, 4, 0, 0)]
    tensors.append(text(b"blocks") + struct.pack("<I2QIQ", 2, 32, 8, 8, 256))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs + tensors)
    return head + bytes(-len(head) % 32) + bytes(range(256)) + bytes(8 * 34)


def _safetensors() -> bytes:
    from safetensors.numpy import save

    return bytes(save({"a": np.arange(64, dtype=np.float32).reshape(8, 8), "b": np.int8([1, 2])}, {"of": "a bench"}))
