"""What serving a model from Python costs beside the call itself: the pool, the cache of answers, the guard, batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from accounting import Table

from haversack.run.guard import Guard, look
from haversack.run.loaded import Serving
from haversack.run.model import Model
from haversack.run.opening import open_model
from haversack.run.pool import Busy
from haversack.run.results import Bounds

CALLERS, SECONDS, CALLS = 4, 3.0, 40
MOST_GUARD = 0.02
"""Of a call, what its guard may take."""


def table(bundle: Path) -> Table:
    """Return the figures of a bundle's model in ONNX Runtime, one thread a call."""
    images = np.random.default_rng(0).integers(0, 256, (CALLS, 1, 224, 224, 3), np.uint8)
    rows = []
    for sessions in (1, 2):
        with open_model(bundle, target="onnxruntime", threads=1, serving=Serving(sessions=sessions)) as model:
            rate, slowest = pressed(model, images)
        told = f"{rate:.1f} calls a second, slowest {slowest * 1e3:.0f} ms"
        rows.append((f"{CALLERS} callers, {sessions} at once", told))
    with open_model(bundle, target="onnxruntime", threads=1, serving=Serving(waiting=0)) as model:
        rows.append((f"{CALLERS} callers, none may wait", f"{refused(model, images):.0%} are refused at once (Busy)"))
    with open_model(bundle, target="onnxruntime", threads=1, serving=Serving(results=Bounds())) as model:
        new = median(timed(lambda image=image: model(image)) for image in images)
        known = median(timed(lambda image=image: model(image)) for image in images)
        rows.append(("a call, and one that the cache answers (CPU)", f"{new * 1e3:.2f} ms, {known * 1e3:.3f} ms"))
    with open_model(bundle, target="onnxruntime", threads=1) as model:
        one = median(timed(lambda: [model(image) for image in images[:8]]) for _ in range(5)) / 8
        many = median(timed(lambda: model.batch(list(images[:8]))) for _ in range(5)) / 8
        rows.append(("a picture, one by one and in a batch of 8 (CPU)", f"{one * 1e3:.2f} ms, {many * 1e3:.2f} ms"))
        share = guarding(model, images[0]) / one
    rows.append((f"the guard (held to {MOST_GUARD:.0%} of a call)", f"{share:.2%}"))
    words = "EfficientNet-Lite0 in int8, ONNX Runtime, one thread a call, preprocessing among it; Python's own callers."
    missed = (f"the guard takes {share:.2%} of a call",) if share > MOST_GUARD else ()
    return Table("Serving", words, ("what", "measured"), tuple(rows), missed)


def pressed(model: Model, images: np.ndarray) -> tuple[float, float]:
    """Return calls a second of several callers at once, and seconds of the slowest."""
    until, taken = time.perf_counter() + SECONDS, []

    def call() -> None:
        while time.perf_counter() < until:
            began = time.perf_counter()
            model(images[len(taken) % CALLS])
            taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    _together(call)
    return len(taken) / (time.perf_counter() - began), max(taken)


def refused(model: Model, images: np.ndarray) -> float:
    """Return which part of calls is refused where all come at once and none may wait."""
    told: list[bool] = []

    def call() -> None:
        for image in images[:10]:
            try:
                model(image)
            except Busy:
                told.append(True)
                time.sleep(0.002)
            else:
                told.append(False)

    _together(call)
    return sum(told) / len(told)


def guarding(model: Model, image: np.ndarray) -> float:
    """Return the processor's seconds of what a guard does at one call that goes well."""
    outputs, guard = dict(model(image)), Guard("bench")

    def call() -> None:
        guard.call(lambda: look(model.outputs, outputs))

    return timed(lambda: [call() for _ in range(1000)]) / 1000


def timed(work: Callable[[], object]) -> float:
    """Return the processor's seconds that this thread takes for it."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _together(work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
