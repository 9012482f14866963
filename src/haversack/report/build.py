"""Make the record of a run from the values that its stages returned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from haversack.base.budget import Budget
from haversack.base.candidate import Artifact, Candidate, Latency, Memory, Pair, Parity
from haversack.base.finding import Finding
from haversack.base.plan import GROUPS, STATIC, WEIGHT_BITS, LayerPlan, Precision
from haversack.base.quality import Drop, Quality
from haversack.report.record import (
    FORMAT,
    ArtifactRecord,
    Baseline,
    CandidateRecord,
    Environment,
    FileRecord,
    FindingRecord,
    FloatFile,
    Forecast,
    LatencyRecord,
    LayerFacts,
    LayerRecord,
    Limit,
    MemoryRecord,
    ModelFacts,
    PairRecord,
    ParityRecord,
    QualityRecord,
    Record,
    Samples,
)
from haversack.targets.contract import SHELF as TARGETS
from haversack.tools.numerics.planes import stored_bits

_INTEGERS = 8
_UNITS = {"size": "bytes", "download": "bytes", "memory": "bytes", "latency_ms": "ms", "latency_ratio": "x"}


def build(
    candidates: Sequence[Candidate],
    *,
    model: ModelFacts,
    baseline: Quality,
    budget: Budget,
    best: Mapping[str, str],
    environment: Environment,
    samples: Samples,
    seconds: Mapping[str, float],
    command: str,
    stated: float | None = None,
    created: str = "",
    next_step: str = "",
    allowed: Sequence[str] = (),
    floats: Mapping[str, Artifact] | None = None,
    after: Mapping[str, ModelFacts] | None = None,
    forecasts: Mapping[str, Forecast] | None = None,
) -> Record:
    """Return the record of a run.

    Args:
        candidates: all of them, judged, failed ones too.
        best: target -> id of the candidate that ships for it; a target without one is left out.
        stated: the baseline that the user stated, in the metric's unit.
        allowed: kinds of findings that the user allowed.
        floats: target -> its float artefact.
        after: candidate id -> the compressed model (``time_share`` of its layers as measured on the artefact).
        forecasts: candidate id -> what was expected of it.

    Raises:
        ValueError: ``best`` names a candidate that is not among the candidates of its target.
    """
    records = tuple(
        _candidate(one, model, set(allowed), (after or {}).get(one.id), (forecasts or {}).get(one.id))
        for one in candidates
    )
    for target, chosen in best.items():
        if not any(record.id == chosen and record.target == target for record in records):
            raise ValueError(f"the best candidate of {target} is not among its candidates: {chosen}")
    return Record(
        format=FORMAT,
        model=model,
        baseline=_baseline(baseline, stated),
        budget=_limits(budget, records, best, baseline.unit),
        best=dict(best),
        candidates=records,
        environment=environment,
        seconds={stage: round(value, 3) for stage, value in seconds.items()},
        samples=samples,
        command=command,
        created=created,
        next_step=next_step,
        allowed=tuple(allowed),
        floats={target: _float_file(artifact) for target, artifact in (floats or {}).items()},
    )


def pair(found: Pair) -> PairRecord:
    """Return the record of two runs that were compared."""
    return PairRecord(found.first, found.second, found.differing, found.compared, _finite(found.relative_error))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _baseline(quality: Quality, stated: float | None) -> Baseline:
    return Baseline(
        metric=quality.metric,
        value=_finite(quality.value),
        unit=quality.unit,
        samples=quality.samples,
        standard_error=_finite(quality.standard_error),
        direction=quality.direction,
        stated=stated,
    )


def _limits(
    budget: Budget, records: Sequence[CandidateRecord], best: Mapping[str, str], metric_unit: str
) -> tuple[Limit, ...]:
    """Return every limit of every target: of what ships, else of the first candidate, best first, that left a file."""
    targets = dict.fromkeys(record.target for record in records)
    chosen = {record.target: record for record in records if best.get(record.target) == record.id}
    for record in records:
        if record.artifact is not None:
            chosen.setdefault(record.target, record)
    rows = []
    for target in targets:
        for name, allowed in budget.limits().items():
            got = _got(name, chosen.get(target))
            over = None if got is None else got - allowed
            unit = _UNITS.get(name, metric_unit)
            met = over is not None and over <= 0
            judged = got is not None or target not in chosen or not chosen[target].exported
            rows.append(Limit(name, float(allowed), got, met, target, unit, over, judged))
    return tuple(rows)


def _got(limit: str, candidate: CandidateRecord | None) -> float | None:
    """Return what was measured for a limit, or None."""
    if candidate is None:
        return None
    sources: dict[str, tuple[object, str]] = {
        "size": (candidate.artifact, "bytes"),
        "download": (candidate.artifact, "download_bytes"),
        "memory": (candidate.memory, "peak_bytes"),
        "latency_ms": (candidate.latency, "median_ms"),
        "latency_ratio": (candidate.latency, "ratio"),
        "drop": (candidate.quality, "drop"),
    }
    source, name = sources[limit]
    value: float | None = getattr(source, name, None)
    return None if value is None else float(value)


def _candidate(
    one: Candidate, model: ModelFacts, allowed: set[str], after: ModelFacts | None, forecast: Forecast | None
) -> CandidateRecord:
    return CandidateRecord(
        id=one.id,
        target=one.plan.target,
        plan=one.plan,
        artifact=_artifact(one.artifact) if one.artifact else None,
        quality=_quality(one.quality, one.drop) if one.quality else None,
        parity=_parity(one.parity) if one.parity else None,
        latency=_latency(one.latency) if one.latency else None,
        memory=memory(one.memory) if one.memory else None,
        findings=tuple(_finding(finding, allowed) for finding in one.findings),
        verdict="not made" if one.artifact is None and one.verdict == "missed" else one.verdict,
        reason=one.reason,
        layers=_layers(one, model, after) if one.artifact else (),
        after=after,
        forecast=forecast,
        seconds={stage: round(value, 3) for stage, value in one.seconds.items()},
        architecture=one.architecture,
    )


def memory(found: Memory) -> MemoryRecord:
    """Return the record of what a process takes; what the device did not tell is None."""
    return MemoryRecord(found.peak_bytes, None if found.private_bytes < 0 else found.private_bytes)


def _artifact(artifact: Artifact) -> ArtifactRecord:
    main = artifact.files[0]
    return ArtifactRecord(
        path=main.path,
        bytes=artifact.bytes,
        download_bytes=artifact.download_bytes,
        sha256=main.sha256,
        files=tuple(FileRecord(f.path, f.bytes, f.download_bytes, f.sha256) for f in artifact.files),
        runtime_version=artifact.runtime_version,
        opset=artifact.opset,
        cpu_features=artifact.cpu_features,
        session_options=dict(artifact.session_options),
        lengths=artifact.lengths,
        injected=artifact.injected,
        read_back=artifact.read_back,
    )


def _float_file(artifact: Artifact) -> FloatFile:
    return FloatFile(artifact.bytes, artifact.download_bytes, artifact.files[0].sha256)


def _quality(quality: Quality, drop: Drop | None) -> QualityRecord:
    return QualityRecord(
        value=_finite(quality.value),
        drop=_finite(drop.value) if drop else None,
        samples=quality.samples,
        standard_error=_finite(quality.standard_error),
        metric=quality.metric,
        unit=quality.unit,
        drop_low=_finite(drop.low) if drop else None,
        drop_high=_finite(drop.high) if drop else None,
    )


def _parity(parity: Parity) -> ParityRecord:
    return ParityRecord(
        agreement=_finite(parity.agreement),
        relative_error=_finite(parity.relative_error),
        worst_layer=parity.worst_layer,
        reference_differing=parity.reference_differing,
        reference_compared=parity.reference_compared,
        layers={key: _finite(error) for key, error in parity.layers.items()},
    )


def _latency(latency: Latency) -> LatencyRecord:
    return LatencyRecord(
        ratio=_finite(latency.ratio),
        median_ms=_finite(latency.median_ms),
        p95_ms=_finite(latency.p95_ms),
        cold_ms=_finite(latency.cold_ms),
        cpu_ratio=_finite(latency.cpu_ratio),
        ratio_low=_finite(latency.ratio_low),
        ratio_high=_finite(latency.ratio_high),
        float_median_ms=_finite(latency.float_median_ms),
        pairs=latency.pairs,
        device=latency.device,
        threads=latency.threads,
    )


def _finding(finding: Finding, allowed: set[str]) -> FindingRecord:
    return FindingRecord(finding.kind, finding.severity, finding.layer, finding.text, finding.kind in allowed)


def _layers(one: Candidate, model: ModelFacts, after: ModelFacts | None) -> tuple[LayerRecord, ...]:
    errors = one.parity.layers if one.parity else {}
    now = {layer.key: layer for layer in after.layers} if after else {}
    target = one.plan.target
    kernels = TARGETS.type_of(target).kernels if target in TARGETS.names() else {}  # a third party's may be gone
    return tuple(
        _layer(layer, now.get(layer.key), one.plan.layers.get(layer.key), _error(layer, errors), kernels)
        for layer in model.layers
    )


def _layer(
    before: LayerFacts,
    now: LayerFacts | None,
    plan: LayerPlan | None,
    error: float | None,
    kernels: Mapping[Precision, str],
) -> LayerRecord:
    shown = now or before
    precision = plan.precision if plan else "float32"
    return LayerRecord(
        key=before.key,
        op=before.op,
        macs=shown.macs,
        parameters=shown.parameters,
        precision=precision,
        bits=_bits(plan) if plan else float(WEIGHT_BITS[precision]),
        granularity=_granularity(plan) if plan else "",
        relative_error=error,
        time_share=now.time_share if now else None,
        float_time_share=before.time_share,
        kernel=kernels.get(precision, ""),
    )


def _bits(plan: LayerPlan) -> float:
    """Return the bits that a weight takes as it is stored: a ternary one takes 1.6."""
    bits = int(plan.weights.settings.get("bits", WEIGHT_BITS[plan.precision]))
    return float(stored_bits(bits) if plan.precision in STATIC else bits)


def _granularity(plan: LayerPlan) -> str:
    """Return what shares one scale of a layer's integers, in a word; empty where it has no scales."""
    if plan.precision == "w4_grouped":
        return f"group of {plan.weights.settings.get('group', GROUPS[0])}"
    return plan.granularity if WEIGHT_BITS[plan.precision] <= _INTEGERS and plan.precision != "palette" else ""


def _error(layer: LayerFacts, errors: Mapping[str, float]) -> float | None:
    """Return the error of the tensor the layer leaves; a clamp that was fused with it hides its own output."""
    for tensor in filter(None, (layer.tensor, f"{layer.key}:out")):
        if tensor in errors:
            return _finite(errors[tensor])
    return None
