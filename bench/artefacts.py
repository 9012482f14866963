"""Plans as artefacts in their runtime, scored on the whole evaluation set and not timed: tables of quality and size."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from accounting import ROOT, WORK, commit

from haversack import load, metrics, verify
from haversack.base.candidate import Artifact
from haversack.base.constraints import Constraints
from haversack.base.encodings import Encodings
from haversack.base.graph import Graph
from haversack.base.plan import Plan
from haversack.base.profile import Profile
from haversack.base.progress import silent
from haversack.flow.data import Data
from haversack.flow.replay import Replay
from haversack.flow.running import Running
from haversack.flow.settings import built
from haversack.flow.steps import Steps
from haversack.flow.workshop import Workshop
from haversack.lower.emit import emit
from haversack.measure import quality
from haversack.measure.device import Opening
from haversack.measure.local import LocalDevice
from haversack.targets.onnxruntime import cpu
from haversack.tools.store import atomic

TARGET = "onnxruntime"


@dataclass(frozen=True)
class Figures:
    """What one artefact reached in its runtime, on every sample of the evaluation set.

    Attributes:
        value: of the job's metric.
        drop: how much worse than the float artefact's, in the metric's unit.
        relative_error: of the outputs against the float artefact's.
        agreement: fraction of samples with float's arg-max; NaN where outputs are no class scores.
        bytes, download_bytes: of its files, and of them in the download form; 0 where they were not weighed.
        cpu_seconds: of our process while the plan was applied; ranges that were taken before do not count.
    """

    value: float
    drop: float
    relative_error: float
    agreement: float
    bytes: int = 0
    download_bytes: int = 0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Artefacts:
    """Makes plans of one job real in one runtime."""

    steps: Steps

    @property
    def graph(self) -> Graph:
        """The folded float model's."""
        return self.steps.model.graph

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        """The folded float model's, by name."""
        return self.steps.model.weights

    @property
    def demands(self) -> Constraints:
        """What the runtime demands."""
        return self.steps.constraints[TARGET]

    @property
    def profile(self) -> Profile:
        """What coarser steps of each layer lose, and weigh as a download."""
        return self.steps.profile

    @property
    def floats(self) -> Path:
        """The float file."""
        return self.steps.floats[TARGET].opening.path

    @property
    def options(self) -> Mapping[str, str]:
        """What a session must set here for integers to be right."""
        return cpu.session_options(cpu.features())

    @property
    def samples(self) -> int:
        """How many are scored."""
        return len(self.steps.baseline.rows)

    @property
    def calibration(self) -> int:
        """How many calibrate."""
        return self.steps.data.counts()[0]

    def of_float(self) -> Figures:
        """Return the float artefact's own figures."""
        artifact = self.steps.floats[TARGET].artifact
        value = self._value(self.steps.baseline.rows)
        agreement = math.nan if self.steps.metric.kind == "real" else 1.0
        return Figures(value, 0.0, 0.0, agreement, artifact.bytes, artifact.download_bytes)

    def made(self, plan: Plan) -> Figures:
        """Return the figures of a plan, applied, written as a file and run.

        What was measured before, of this very commit, is not measured again: a table that was interrupted goes on.

        Raises:
            HaversackError: the plan cannot be applied, or the runtime does not take the file.
        """
        tree, steps = commit(), self.steps
        kept = WORK / "figures" / f"{Path(steps.shop.out).name}-{self.samples}-{plan.id}-{tree}.json"
        if kept.exists():
            return Figures(**json.loads(kept.read_text(encoding="utf-8")))
        steps.ranges(steps.model)  # once for all plans: no plan's own expense
        began = time.process_time()
        compressed = steps.squeeze(plan)
        spent = time.process_time() - began
        folder = steps.shop.inside / "rows" / plan.id
        artifact = emit(compressed.model, compressed.encodings, steps.targets[TARGET], folder)
        figures = self.scored(Opening(folder / artifact.files[0].path, TARGET, artifact.session_options), artifact)
        found = replace(figures, bytes=artifact.bytes, download_bytes=artifact.download_bytes, cpu_seconds=spent)
        if tree != "unknown" and not tree.endswith("-dirty"):
            kept.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(kept, json.dumps(asdict(found)).encode())
        return found

    def scored(self, opening: Opening, like: Artifact) -> Figures:
        """Return the figures of a file, not weighed.

        Args:
            opening: of the file.
            like: an artefact with the same inputs and outputs.
        """
        steps = self.steps
        pairs = list(steps.data.evaluation())
        handle = steps.device.load(opening)
        try:
            predict = Replay(Running(steps.device, handle, like, steps.model.outputs))
            names = [port.name for port in steps.model.outputs]
            state = quality.score(predict, pairs, steps.metric, float_predict=steps.float_predict, names=names)
            parity = verify.compare(
                steps.model,
                Encodings.none(),
                predict,
                (inputs for inputs, _ in pairs),
                float_predict=steps.float_predict,
                reference_samples=0,
                layer_samples=0,
            )
        finally:
            steps.device.unload(handle)
        value, exact = self._value(state.rows()), self._value(steps.baseline.rows)
        drop = exact - value if steps.metric.direction == "higher" else value - exact
        agreement = math.nan if steps.metric.kind == "real" else parity.agreement
        return Figures(value, drop, parity.relative_error, agreement)

    def _value(self, rows: np.ndarray) -> float:
        return float(self.steps.metric.values(rows[None])[0])


@contextmanager
def opened(job: str) -> Iterator[Artefacts]:
    """Open a job file, given from the repository's root, in a folder of its own below build/bench."""
    source = load.open_job(str(ROOT / job))
    metric = metrics.resolve(source.metric)
    out = WORK / "rows" / Path(job).stem
    shutil.rmtree(out, ignore_errors=True)
    target = built(TARGET).sized(source.lengths)
    with LocalDevice() as device, Workshop(out, job, silent) as shop:
        yield Artefacts(Steps(shop, source, Data(source, None, metric), metric, {TARGET: target}, device))
