"""Where a bundle comes from, told without telling who made it, when, or in which folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from haversack.base import recipe
from haversack.base.provenance import Provenance
from haversack.bundle.variant import Piece
from haversack.flow.outputs import RECIPE
from haversack.report.record import Record
from haversack.tools.trust import canonical

FORMAT = 1


def piece(record: Record, run: Path, targets: Sequence[str], allow: Sequence[str]) -> Piece:
    """Return ``provenance.json`` of a run.

    Args:
        record: of the run.
        run: its folder.
        targets: the runtimes that go into the bundle.
        allow: what was allowed when it was made.

    Raises:
        UsageError: recipe.toml cannot be read.
    """
    told = recipe.unstructure(recipe.read(run / RECIPE))
    told["job"] = bare(told["job"])
    told["plans"] = [plan for plan in told["plans"] if plan["target"] in targets]
    for name in ("settings", "architectures"):
        told[name] = {target: one for target, one in told[name].items() if target in targets}
    where = record.environment
    best = [(target, record.best_of(target)) for target in sorted(targets)]
    found = Provenance(
        FORMAT,
        job=bare(record.model.source),
        model={"digest": record.model.digest, "parameters": record.model.parameters, "macs": record.model.macs},
        recipe=told,
        environment={
            "python": where.python,
            "os": " ".join(dict.fromkeys([*where.os.split()[:1], *where.os.split()[-1:]])),
            "cpu": where.cpu,
            "cpu_flags": list(where.cpu_flags),
            "device": where.device.partition(":")[0],
            "versions": dict(where.versions),
        },
        samples={
            "calibration": record.samples.calibration,
            "choosing": record.samples.choosing,
            "reported": record.samples.reported,
        },
        allowed=tuple(sorted({*record.allowed, *allow})),
        findings=tuple(
            f"{target}: {finding.kind}{f': {finding.layer}' if finding.layer else ''}"
            for target, one in best
            for finding in (one.findings if one else ())
        ),
        hashes={path: sha for path, sha in sorted(_hashes(record).items()) if path.split("/")[1] in targets},
    )
    return Piece("provenance.json", "provenance", canonical.dumps(found))


def bare(source: str) -> str:
    """Return a job's source without folders: ``/home/me/job.py:build`` is ``job.py:build``."""
    return "@".join(part.rpartition("/")[2] for part in source.split("@"))


def _hashes(record: Record) -> dict[str, str]:
    best = [record.best_of(target) for target in record.best]
    files = [file for one in best if one is not None and one.artifact is not None for file in one.artifact.files]
    return {**record.proofs, **{file.path: file.sha256 for file in files}}
