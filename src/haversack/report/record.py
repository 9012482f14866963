"""The record of a run, as ``report.json`` holds it (format 1): everything the page and the terminal show.

A number is None where it was not measured, and where the metric cannot state it; JSON writes null, never NaN.
Sizes are bytes, times milliseconds unless a name says seconds, fractions lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from haversack.base.finding import Severity
from haversack.base.plan import Plan
from haversack.base.quality import HALVES, Direction
from haversack.report.activations import Activations
from haversack.report.degraded import DegradedRecord
from haversack.report.update import UpdateRecord

FORMAT = 1
Verdict = Literal["chosen", "met", "missed", "failed", "not made", "open"]


@dataclass(frozen=True)
class LayerFacts:
    """One weighted layer of a model.

    Attributes:
        key: node key (``features.3.conv:conv2d#0``).
        op: the ATen name without overload.
        macs: multiply-accumulates for one sample.
        parameters: elements of its weight and bias.
        tensor: key of the tensor it leaves, behind the clamp fused with it; empty for ``key:out``.
        time_share: measured fraction of the model's time, or None.
    """

    key: str
    op: str
    macs: int
    parameters: int
    tensor: str = ""
    time_share: float | None = None


@dataclass(frozen=True)
class ModelFacts:
    """A model in numbers, before or after compression.

    Attributes:
        name: shown in the title.
        parameters: elements of all weights that some node reads.
        macs: multiply-accumulates for one sample.
        weight_bytes: bytes of these weights as they are stored.
        digest: content digest of graph, interface and weights.
        source: the job file or reference it came from.
        notes: what preparation did, one line each.
        layers: weighted layers in execution order.
    """

    name: str
    parameters: int
    macs: int
    weight_bytes: int
    digest: str = ""
    source: str = ""
    notes: tuple[str, ...] = ()
    layers: tuple[LayerFacts, ...] = ()


@dataclass(frozen=True)
class Samples:
    """How many samples calibrated, chose and were reported; the last two are disjoint halves of one set."""

    calibration: int
    choosing: int
    reported: int
    note: str = HALVES


@dataclass(frozen=True)
class Baseline:
    """Quality of the float model on the reported half; ``stated`` is what the user said it would be."""

    metric: str
    value: float | None
    unit: str
    samples: int
    standard_error: float | None
    direction: Direction = "higher"
    stated: float | None = None


@dataclass(frozen=True)
class Limit:
    """One limit for one target, against what ships for it; or its best candidate, where another runtime's file ships.

    Attributes:
        limit: the field of the budget: size, download, memory, latency_ms, latency_ratio or drop.
        allowed, got: in ``unit``; ``got`` is None when it was not measured.
        met: never true for what was not measured.
        target: the runtime.
        unit: bytes, ms, x, fraction, or the metric's own.
        over: ``got - allowed``: positive by how much it was missed, negative what was left.
        judged: false where the file does not run here and so nothing can be said of it.
    """

    limit: str
    allowed: float
    got: float | None
    met: bool
    target: str
    unit: str
    over: float | None
    judged: bool = True

    @property
    def missed(self) -> bool:
        """Whether it was judged and not met."""
        return self.judged and not self.met


@dataclass(frozen=True)
class FloatFile:
    """The float artefact of a target, that ratios refer to; its peak memory is measured as a candidate's is."""

    bytes: int
    download_bytes: int
    sha256: str
    memory: MemoryRecord | None = None


@dataclass(frozen=True)
class FileRecord:
    """One file: path relative to the output folder, bytes, bytes as a compressed download, sha256."""

    path: str
    bytes: int
    download_bytes: int
    sha256: str


@dataclass(frozen=True)
class ArtifactRecord:
    """An artefact; ``path`` and ``sha256`` are those of its main file, the sizes those of all files together.

    ``injected`` and ``read_back`` count encodings and weight integers written, and read back equal; ``lengths`` are
    those that a free dimension is fixed to.
    """

    path: str
    bytes: int
    download_bytes: int
    sha256: str
    files: tuple[FileRecord, ...] = ()
    runtime_version: str = ""
    opset: int = 0
    cpu_features: tuple[str, ...] = ()
    session_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    lengths: tuple[int, ...] = ()
    injected: int = 0
    read_back: int = 0


@dataclass(frozen=True)
class QualityRecord:
    """The artefact's own score, and its drop against float on the same samples with a 95 % paired interval."""

    value: float | None
    drop: float | None
    samples: int
    standard_error: float | None
    metric: str = ""
    unit: str = ""
    drop_low: float | None = None
    drop_high: float | None = None


@dataclass(frozen=True)
class ParityRecord:
    """Against float on both halves' inputs; ``reference_*`` against the reference, bit for bit (-1: not compared).

    ``layers`` maps tensor keys to the relative error of that tensor, worst first.
    """

    agreement: float | None
    relative_error: float | None
    worst_layer: str
    reference_differing: int = -1
    reference_compared: int = 0
    layers: Mapping[str, float | None] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class LatencyRecord:
    """A batch of one on ``device``; ratios against the same runtime's float, quartiles over interleaved pairs."""

    ratio: float | None
    median_ms: float | None
    p95_ms: float | None
    cold_ms: float | None
    cpu_ratio: float | None
    ratio_low: float | None = None
    ratio_high: float | None = None
    float_median_ms: float | None = None
    pairs: int = 0
    device: str = "local"
    threads: int = 1


@dataclass(frozen=True)
class MemoryRecord:
    """Peak resident bytes above the bare runtime's; ``private_bytes`` after the calls, those that no file backs."""

    peak_bytes: int
    private_bytes: int | None = None


@dataclass(frozen=True)
class FindingRecord:
    """One finding; ``allowed`` says that the user allowed its kind, so it does not fail the run."""

    kind: str
    severity: Severity
    layer: str
    text: str
    allowed: bool = False


@dataclass(frozen=True)
class LayerRecord:
    """How one layer is stored and what that costs.

    Attributes:
        bits: of a weight as it is stored.
        kernel: what computes it when the file runs, in words; empty in reports of earlier versions.
        relative_error: of the tensor it leaves, against float; None when not compared.
        time_share, float_time_share: measured fraction of the artefact's time, and of the float artefact's.
    """

    key: str
    op: str
    macs: int
    parameters: int
    precision: str
    bits: float
    granularity: str
    relative_error: float | None
    time_share: float | None
    float_time_share: float | None = None
    kernel: str = ""


@dataclass(frozen=True)
class Forecast:
    """What choosing expected before the candidate was made: estimates, never measurements; None where it had none."""

    bytes: int | None = None
    drop: float | None = None
    relative_error: float | None = None
    latency_ratio: float | None = None


@dataclass(frozen=True)
class CandidateRecord:
    """A candidate with its verdict and the reason for it; ``layers`` is empty when no artefact was made.

    ``architecture`` is the one it was made of, where the job gives several.
    """

    id: str
    target: str
    plan: Plan
    artifact: ArtifactRecord | None
    quality: QualityRecord | None
    parity: ParityRecord | None
    latency: LatencyRecord | None
    memory: MemoryRecord | None
    findings: tuple[FindingRecord, ...]
    verdict: Verdict
    reason: str
    layers: tuple[LayerRecord, ...] = ()
    after: ModelFacts | None = None
    forecast: Forecast | None = None
    seconds: Mapping[str, float] = field(default_factory=dict, hash=False)
    architecture: str = ""

    @property
    def exported(self) -> bool:
        """Whether its file was written and read back only: it does not run here."""
        return any(finding.kind == "export-only" for finding in self.findings)


@dataclass(frozen=True)
class Environment:
    """Where: ``cpu_flags`` decide integer kernels, ``versions`` is package -> version, ``device`` another machine."""

    python: str
    os: str
    cpu: str
    cpu_flags: tuple[str, ...] = ()
    cores: int = 0
    threads: int = 1
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    device: str = ""


@dataclass(frozen=True)
class PairRecord:
    """Two of the artefacts that ship (by target), the float model or the reference, run on the same samples.

    Attributes:
        differing, compared: how many output values are not the same bits, of how many.
        relative_error: |first - second| / |second|; None where that is not finite.
    """

    first: str
    second: str
    differing: int
    compared: int
    relative_error: float | None


@dataclass(frozen=True)
class ArchitectureRecord:
    """One of several architectures: its model and float quality (None where it was lost, and why), its float files."""

    model: ModelFacts | None
    baseline: Baseline | None
    floats: Mapping[str, FloatFile] = field(default_factory=dict, hash=False)
    lost: str = ""


@dataclass(frozen=True)
class Record:
    """``report.json``.

    Attributes:
        best: target -> id of the candidate that ships for it (also the best effort, when a limit was missed).
        floats: target -> its float artefact.
        why: why this runtime's file ships and no other's, one paragraph; empty where the user named the targets.
        across: what ships for several targets, compared; empty for one.
        settings: target -> its own settings, for targets that were given some.
        proofs: path below the output folder -> sha256, of what lies beside the artefacts that ship.
        activations: target -> where the activations of what ships for it peak.
        degraded: what ships for each target on inputs made worse, each way by itself; empty where none was asked for.
        architectures: name -> what it is, where the job gives several; then ``model`` and ``baseline`` are those of the
            best float model among them, which every drop is against, and ``floats`` those of what ships.
        between: target -> why the file of this architecture ships and no other's.
        preprocess, labels: what the job does to raw inputs (None: it was not kept), and its classes: for the bundle.
        update: of a release by fine-tuning, where the run is one: ``model`` and ``baseline`` are the new float model's.
        seconds: stage -> seconds it took.
        command, created: what repeats the run, and when it was, ISO 8601 in UTC; empty when not told.
        allowed: kinds of findings that the user allowed.
        next_step: the command to type next.
    """

    format: int
    model: ModelFacts
    baseline: Baseline
    budget: tuple[Limit, ...]
    best: Mapping[str, str] = field(hash=False)
    candidates: tuple[CandidateRecord, ...]
    environment: Environment
    seconds: Mapping[str, float] = field(hash=False)
    samples: Samples
    command: str
    created: str = ""
    next_step: str = ""
    allowed: tuple[str, ...] = ()
    floats: Mapping[str, FloatFile] = field(default_factory=dict, hash=False)
    why: str = ""
    across: tuple[PairRecord, ...] = ()
    proofs: Mapping[str, str] = field(default_factory=dict, hash=False)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    activations: Mapping[str, Activations] = field(default_factory=dict, hash=False)
    degraded: tuple[DegradedRecord, ...] = ()
    architectures: Mapping[str, ArchitectureRecord] = field(default_factory=dict, hash=False)
    between: Mapping[str, str] = field(default_factory=dict, hash=False)
    preprocess: tuple[Mapping[str, Any], ...] | None = field(default=None, hash=False)
    labels: tuple[str, ...] = ()
    update: UpdateRecord | None = None

    def model_of(self, candidate: CandidateRecord) -> ModelFacts:
        """Return the model that a candidate was made of, before compression."""
        found = self.architectures.get(candidate.architecture)
        return found.model if found is not None and found.model is not None else self.model

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets in order of their first candidate."""
        return tuple(dict.fromkeys(candidate.target for candidate in self.candidates))

    def best_of(self, target: str) -> CandidateRecord | None:
        """Return the candidate that ships for ``target``, or None when there is none."""
        wanted = self.best.get(target)
        return next((candidate for candidate in self.candidates if candidate.id == wanted), None)

    def limits_of(self, target: str) -> tuple[Limit, ...]:
        """Return the limits of ``target``."""
        return tuple(limit for limit in self.budget if limit.target == target)
