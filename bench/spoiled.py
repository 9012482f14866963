"""Spoiled model files in the self-test's child, and under the indexers: what becomes of each, and of who opens it.

A child has the limits of a self-test's and runs the same code, but is forked from a process that has the runtimes at
hand, and tries one file after the other until it dies: what one file did to its memory, the next one meets.
"""

from __future__ import annotations

import importlib
import os
import random
import resource
import select
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from accounting import WORK, Table

from haversack.base.errors import Refused
from haversack.deliver.selftest import Demands, Trial, trial_of
from haversack.deliver.trial import answer, opened
from haversack.flow.bundle import bundle
from haversack.flow.shipping import Wish
from haversack.targets.executorch.session import BINDINGS
from haversack.tools.data import golden_file
from haversack.tools.data.golden_file import Golden
from haversack.tools.formats import index

VARIANTS = 1000
"""Of each file and each way to spoil it."""
OTHERS = 16
"""Inputs beside the golden ones, on which a file that passed is asked as well."""
WAYS = ("truncated", "flipped")
TARGETS = ("litert", "executorch", "onnxruntime")
LIMITS = Demands(call_seconds=60.0).limits(1 << 20)
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


def tables() -> list[Table]:
    """Return one table of children, a row for each file and way to spoil it, and one of indexers."""
    run = WORK / "keywords"
    if not (run / "report.json").exists():
        sys.exit("the part networks packs what is spoiled here: python bench/run.py --only networks")
    _warm()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        made = bundle(run, place / "keywords-1.0.0.haversack", Wish())
        trials = [trial_of(made.folder, target) for target in TARGETS]
        contents = {trial.main.name: trial.main.read_bytes() for trial in trials}
        children = _children(trials, place)
    return [children, _indexers(contents)]


def _warm() -> None:
    """Import what children need, and open nothing: threads of a runtime would not be there in a fork."""
    for target in TARGETS:
        importlib.import_module(f"haversack.targets.{target}")
    for name in ("ai_edge_litert.interpreter", "onnxruntime", "torch", BINDINGS):
        importlib.import_module(name)


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
            counts = ends.counts
            passed = counts["passed"] + counts["elsewhere"]
            found = [counts["died"], counts["refused"], counts["wrong"], passed, counts["elsewhere"]]
            rows.append((f"`{trial.main.name}`", way, *map(str, [VARIANTS, *found])))
            if sum(found[:4]) != VARIANTS:
                missed.append(f"{trial.main.name}, {way}: not every variant has an end")
            sys.stdout.write(f"{trial.main.name} {way}: {dict(counts)}\n")
            sys.stdout.flush()
    return Table("Spoiled files in the child", WORDS, HEAD, tuple(rows), tuple(missed))


def _tried(trial: Trial, way: str, place: Path) -> Ends:
    """Try every variant in forked children, each until it dies; this process goes on whatever they do."""
    whole, main = trial.main.read_bytes(), place / trial.main.name
    asked = replace(trial, main=main)
    elsewhere = replace(asked, golden=place / f"{trial.target}.npz")
    main.write_bytes(whole)
    _forked(lambda _: _others(asked, elsewhere.golden))
    if (good := _forked(lambda tell: [tell(_end(one)) for one in (asked, elsewhere)])) != ["passed", "passed"]:
        sys.exit(f"the whole {trial.main.name} does not pass: {good}")

    def work(first: int, tell: Callable[[str], None]) -> None:
        for number in range(first, VARIANTS):
            main.write_bytes(spoiled(whole, way, number))
            end = _end(asked)
            tell("elsewhere" if end == "passed" and _end(elsewhere) != "passed" else end)

    ends, number = Counter[str](), 0
    while number < VARIANTS:
        told = _forked(partial(work, number))
        ends.update(told)
        number += len(told)
        if number < VARIANTS:
            ends["died"] += 1
            number += 1
    return Ends(ends)


def _forked(work: Callable[[Callable[[str], None]], object]) -> list[str]:
    """Return the words that work tells in a forked child, with the limits of a self-test's, until it ends or dies."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            resource.setrlimit(resource.RLIMIT_AS, (LIMITS.address_space, LIMITS.address_space))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            work(lambda word: os.write(writing, f"{word}\n".encode()) and None)
        finally:
            os._exit(0)
    os.close(writing)
    told = b""
    while select.select([reading], [], [], LIMITS.call_seconds)[0] and (more := os.read(reading, 1 << 16)):
        told += more
    os.kill(child, signal.SIGKILL)  # it hangs, or is gone
    os.waitpid(child, 0)
    os.close(reading)
    return told.decode().split()


def _end(trial: Trial) -> str:
    """Return what becomes of a file in this process, if it lives on."""
    try:
        told, _ = answer(trial.header(), {})
    except Exception:  # noqa: BLE001 - a runtime may raise anything; a worker tells it as it comes
        return "refused"
    return "wrong" if told["faults"] else "passed"


def _others(trial: Trial, path: Path) -> None:
    """Write what the whole file answers to inputs of the golden ones' numbers, in another order."""
    vectors = golden_file.read(trial.golden)
    session, draw, made = opened(trial.header()), np.random.default_rng(0), []
    for number in range(OTHERS):
        one = vectors[number % len(vectors)].inputs
        fed = {name: draw.permutation(array.ravel()).reshape(array.shape) for name, array in one.items()}
        made.append(Golden(fed, session.run(fed)))
    session.close()
    golden_file.write(made, path)


def _indexers(contents: Mapping[str, bytes]) -> Table:
    rows, missed = [], []
    for name, data in {**contents, "small.gguf": _gguf(), "small.safetensors": _safetensors()}.items():
        for way in WAYS:
            ends = Ends()
            for number in range(VARIANTS):
                began = time.perf_counter()
                indexer = index.FORMATS[index.format_of(data)].index
                ends.counts[_indexed(spoiled(data, way, number), indexer)] += 1
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
