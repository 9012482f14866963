"""A Candidate: a plan made real, with everything that was measured on the artefact itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from haversack.base.finding import Finding
from haversack.base.model import Port
from haversack.base.plan import Plan
from haversack.base.quality import Drop, Quality


@dataclass(frozen=True)
class ArtifactFile:
    """One file: path relative to the output folder, size in bytes, size in the download form (docs/spec), sha256."""

    path: str
    bytes: int
    download_bytes: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """All files of one target for one plan.

    Attributes:
        target: the runtime.
        files: the main file first, external data after it.
        inputs, outputs: the interface as the file has it.
        runtime_version: the lowest version of the runtime that takes it, as known.
        opset: the ONNX opset, or 0.
        cpu_features: features of the building CPU that decided ``session_options``.
        session_options: what a session must set to get the measured result.
        tensor_names: activation tensor key -> name in the file, for those that exist there.
        absorbed: encoded activation tensor key -> name in the file of the codes that serve it, for those that do not
            exist there by themselves (what a pad gives that a convolution does itself).
        layouts: port name, or activation tensor key -> order of its axes in the file (``NHWC`` for the model's NCHW,
            ``NWC`` for NCW), for those that are not as the model has them.
        bias_digests: node key -> digest of the int32 codes and the scale of its derived bias, as they were written.
        grids: port name -> (scale, zero-point) of the int8 codes that the file's interface has in place of float32.
        lengths: those that a free dimension of the model is fixed to in the file, ascending; empty where it stays free.
        injected, read_back: how many encodings and weight integers were written, and how many read back equal.
    """

    target: str
    files: tuple[ArtifactFile, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    runtime_version: str
    opset: int = 0
    cpu_features: tuple[str, ...] = ()
    session_options: Mapping[str, str] = field(default_factory=dict, hash=False)
    tensor_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    absorbed: Mapping[str, str] = field(default_factory=dict, hash=False)
    layouts: Mapping[str, str] = field(default_factory=dict, hash=False)
    bias_digests: Mapping[str, str] = field(default_factory=dict, hash=False)
    grids: Mapping[str, tuple[float, int]] = field(default_factory=dict, hash=False)
    lengths: tuple[int, ...] = ()
    injected: int = 0
    read_back: int = 0

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)

    @property
    def download_bytes(self) -> int:
        """Size of all files in the form in which they are downloaded, each by itself."""
        return sum(file.download_bytes for file in self.files)


@dataclass(frozen=True)
class Parity:
    """Against the float model, on the same inputs.

    Attributes:
        agreement: fraction of samples with the same arg-max (NaN when the outputs are no class scores).
        relative_error: |y - float| / |float| of a float output; of several the root of the mean of their squares, so
            that each counts by its own size. One that is all zero in float is held against the size of all. Over all
            outputs where none is float.
        reference_differing: output values that differ from the reference's, bit for bit; -1 when not compared.
        reference_compared: how many values were compared.
        layers: tensor key -> relative error of that tensor against float, worst first.
        reference_error: as ``relative_error``, the reference's own over the compared values; -1 when none was.
        reference_distance: so, the artefact against the reference over the same values; -1 when none was.
        choosing_error: as ``relative_error``, over the samples that choose alone; -1 when not measured by itself.
    """

    agreement: float
    relative_error: float
    reference_differing: int = -1
    reference_compared: int = 0
    layers: Mapping[str, float] = field(default_factory=dict, hash=False)
    reference_error: float = -1.0
    reference_distance: float = -1.0
    choosing_error: float = -1.0

    @property
    def ranking_error(self) -> float:
        """What choices go by: the error on the samples that choose, where it is known by itself."""
        return self.relative_error if self.choosing_error < 0 else self.choosing_error

    @property
    def worst_layer(self) -> str:
        """The tensor key with the largest relative error, or an empty string."""
        return next(iter(self.layers), "")


@dataclass(frozen=True)
class Latency:
    """Milliseconds for a batch of one on the named device.

    ``ratio`` and ``cpu_ratio`` are against the same runtime's float artefact, ``ratio_low`` and ``ratio_high`` the
    quartiles of the interleaved pairs; ``cold_ms`` is load plus first call.
    """

    ratio: float
    median_ms: float
    p95_ms: float
    cold_ms: float
    cpu_ratio: float
    ratio_low: float
    ratio_high: float
    float_median_ms: float
    pairs: int
    device: str = "local"
    threads: int = 1


@dataclass(frozen=True)
class Memory:
    """What a fresh process that runs the artefact takes, beyond one that only imports the runtime.

    Attributes:
        peak_bytes: resident at the peak, pages of mapped files among them.
        private_bytes: resident after the calls and backed by no file: neither shared with other processes nor dropped
            when memory is short; -1 where the device does not tell.
    """

    peak_bytes: int
    private_bytes: int = -1


@dataclass(frozen=True)
class Candidate:
    """What every search sees, and nothing else.

    Attributes:
        verdict: ``chosen``, ``met`` (all budgets met, but another is better), ``missed`` or ``failed``.
        reason: why it has that verdict.
        drop: None when it could not be scored.
        architecture: which of several it was made of; empty where the job gives one model.
    """

    plan: Plan
    artifact: Artifact | None
    quality: Quality | None
    drop: Drop | None
    parity: Parity | None
    latency: Latency | None
    memory: Memory | None
    findings: tuple[Finding, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict, hash=False)
    verdict: Literal["chosen", "met", "missed", "failed", "open"] = "open"
    reason: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    architecture: str = ""

    @property
    def id(self) -> str:
        """The plan's identity, behind the architecture where there are several: their plans may be alike."""
        return f"{self.architecture}-{self.plan.id}" if self.architecture else self.plan.id

    @property
    def exported(self) -> bool:
        """Whether its file was written and read back only: no runtime on this machine opens it."""
        return any(finding.kind == "export-only" for finding in self.findings)


@dataclass(frozen=True)
class Pair:
    """Two runs of the same samples, compared: artefacts by their target's name, the float model, the reference.

    Attributes:
        first, second: their names.
        differing: how many output values are not the same bits.
        compared: how many output values there are.
        relative_error: |first - second| / |second|, as ``Parity`` has it; NaN when nothing was compared.
    """

    first: str
    second: str
    differing: int
    compared: int
    relative_error: float
