"""From ``open`` to the first answer, against what the runtime itself takes to load the file and call it once.

Each opening has a process of its own, in which the runtime and our modules are imported; ours and the runtime's by
turns. The file is in the page cache. Ours is ``Client.open`` of an installed release, and a call with labels, guard and
the model's own layout; beside it the same without a home, ``run.opening.load``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import serving
from accounting import ROOT, WORK, Table

from haversack.measure.noise import differ

Call = Callable[[], object]
BOUND = 1.2
ROUNDS = int(os.environ.get("HAVERSACK_ROUNDS", "25"))
AGAIN = 15
WAYS = ("own", "load", "open")
TARGETS = ("onnxruntime", "litert", "executorch")
HEAD = (
    "runtime",
    "its own load + first call, ms",
    "`Client.open` + first answer",
    "ratio (95 %)",
    "of CPU time",
    "without a home",
    "again in one process, of CPU time",
)
WORDS = f"""EfficientNet-Lite0 in integers, about 5 MB, packed by the part `three`; {ROUNDS} fresh processes each, by
turns, one thread, warm page cache; medians. «Its own» is the runtime's API alone, called with the same picture, scaled
and turned in NumPy as the bundle's preprocessing does it. Must reach x{BOUND}."""


def tables() -> list[Table]:
    """Return the table of first answers, a row for each runtime, and that of serving."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundled(WORK / "lite0-three", Path(folder))
        home = _home(bundle, Path(folder))
        rows, missed = zip(*(_row(target, home) for target in TARGETS), strict=True)
        first = Table("First answer", WORDS, HEAD, rows, tuple(one for one in missed if one))
        return [first, serving.table(bundle)]


def bundled(run: Path, folder: Path) -> Path:
    """Return a bundle of a run, made in a folder.

    Raises:
        SystemExit: there is no run.
    """
    from haversack.flow.bundle import bundle
    from haversack.flow.shipping import Wish

    if not (run / "report.json").exists():
        sys.exit("the part three packs what is opened here: python bench/run.py --only three")
    record = json.loads((run / "report.json").read_text(encoding="utf-8"))
    missed = any(not limit["met"] for limit in record["budget"])  # ExecuTorch may miss its limit of latency
    return bundle(run, folder / "lite0-1.0.0.haversack", Wish(allow=("missed",) if missed else ())).folder


def _home(bundle: Path, folder: Path) -> Path:
    """Return a home in which a bundle is installed, one line for each runtime."""
    from haversack.deliver.home import Home
    from haversack.deliver.slots import Slots
    from haversack.tools.trust.bundle import open_bundle

    manifest = open_bundle(bundle).manifest
    home = Home(folder / "home")
    for target in TARGETS:
        slot = home.line(target) / "next"
        slot.mkdir(parents=True)
        for name in ("manifest.json", *(file.name for file in manifest.of(target))):
            shutil.copyfile(bundle / name, slot / name)
        Slots(home.line(target)).activate("1.0.0", 1, target, 1.0)
    return home.folder


def _row(target: str, home: Path) -> tuple[tuple[str, ...], str]:
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(ROUNDS):
        for way in WAYS if number % 2 else WAYS[::-1]:
            taken[way].append(_fresh(way, target, home))
    wall, cpu = ({way: np.array(taken[way])[:, side] for way in WAYS} for side in (0, 1))
    opened, spent = differ(wall["open"], wall["own"]), differ(cpu["open"], cpu["own"])
    row = (
        target,
        f"{median(wall['own']):.1f}",
        f"{median(wall['open']):.1f}",
        f"x{opened.ratio:.2f} ({opened.low:.2f} to {opened.high:.2f})",
        f"x{spent.ratio:.2f} ({spent.low:.2f} to {spent.high:.2f})",
        f"x{differ(wall['load'], wall['own']).ratio:.2f}",
        f"x{_fresh('again', target, home)[1]:.2f}",
    )
    return row, f"{target} takes x{opened.ratio:.3f}" if opened.ratio > BOUND else ""


def _fresh(way: str, target: str, home: Path) -> tuple[float, float]:
    """Return milliseconds of one opening in a process of its own, by the clock and of its processor."""
    command = [sys.executable, str(Path(__file__)), way, target, str(home)]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    return float(told["ms"]), float(told["cpu_ms"])


def _child(way: str, target: str, home: Path) -> dict[str, float]:
    slot = home / "lines" / target / "a"
    about = json.loads((slot / f"{target}.json").read_text(encoding="utf-8"))
    path = str(slot / about["files"][0]["path"])
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    own = {"onnxruntime": _onnxruntime, "litert": _litert, "executorch": _executorch}[target]
    call = own(path, about["session_options"], image)  # imports the runtime
    if way == "load":
        from haversack.run.model import Model
        from haversack.run.opening import load, ready
        from haversack.run.source import found

        ready()

        def call() -> object:
            return Model(load(found(slot, target, verified=True)))(image)
    elif way in ("open", "again"):
        from haversack.flow.client import Client

        client, plain = Client(home), call

        def call() -> object:
            return client.open(target)(image)

        if way == "again":
            pairs = [(_spent(plain), _spent(call)) for _ in range(AGAIN)]
            return {name: median(mine[name] / own[name] for own, mine in pairs) for name in ("ms", "cpu_ms")}
    return _spent(call)


def _spent(call: Call) -> dict[str, float]:
    """Return milliseconds of a call, by the clock and of its processor."""
    cpu, began = time.process_time(), time.perf_counter()
    call()
    return {"ms": (time.perf_counter() - began) * 1000, "cpu_ms": (time.process_time() - cpu) * 1000}


def _fed(image: np.ndarray) -> np.ndarray:
    """Return a picture, uint8 [n, 224, 224, 3], as the network takes it: what the bundle's preprocessing does."""
    return image * np.float32(1 / 128) - np.float32(127 / 128)


def _onnxruntime(path: str, options: dict[str, str], image: np.ndarray) -> Call:
    import onnxruntime

    def call() -> object:
        chosen = onnxruntime.SessionOptions()
        chosen.intra_op_num_threads = chosen.inter_op_num_threads = 1
        for name, value in options.items():
            chosen.add_session_config_entry(name, value)
        session = onnxruntime.InferenceSession(path, chosen, providers=["CPUExecutionProvider"])
        return session.run(None, {session.get_inputs()[0].name: _fed(image).transpose(0, 3, 1, 2)})

    return call


def _litert(path: str, _: dict[str, str], image: np.ndarray) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    def call() -> object:
        interpreter = Interpreter(model_path=path, num_threads=1)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], _fed(image))
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return call


def _executorch(path: str, _: dict[str, str], image: np.ndarray) -> Call:
    from haversack.targets.executorch.session import bindings

    runtime = bindings(1)  # brings torch and the kernels
    import torch

    def call() -> object:
        method = runtime._load_program(path).load_method("forward")
        return method.call([torch.from_numpy(np.ascontiguousarray(_fed(image).transpose(0, 3, 1, 2)))])

    return call


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_child(sys.argv[1], sys.argv[2], Path(sys.argv[3]))) + "\n")
