"""Where a bundle comes from: what ``provenance.json`` says, and nothing of who made it, when, or in which folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Provenance:
    """How the files of a bundle were made.

    Attributes:
        format: 1.
        job: the job file's name, without a folder.
        model: ``name``, ``digest`` (content of the float model), ``parameters`` and ``macs`` of one sample.
        recipe: as recipe.toml has it, of the runtimes in the bundle; the job by its name.
        environment: where it was measured: ``python``, ``os``, ``cpu``, ``cpu_flags``, ``device`` (its kind) and
            ``versions`` of packages.
        samples: how many calibrated, chose and were reported.
        allowed: kinds of findings that were allowed, and ``missed`` where the budget was.
        findings: what is to be known of the files: ``TARGET: KIND: TEXT``.
        hashes: path below the run's folder -> sha256, of each variant's files there.
    """

    format: int
    job: str
    model: Mapping[str, Any] = field(hash=False)
    recipe: Mapping[str, Any] = field(hash=False)
    environment: Mapping[str, Any] = field(hash=False)
    samples: Mapping[str, int] = field(hash=False)
    allowed: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict, hash=False)
