"""Measured files of a finished run that are gone or are other ones now: what was measured of them stays true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from haversack.base import digest
from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.choose import resolve as choosing
from haversack.choose.mixing import Mixer
from haversack.choose.resolve import Resolution

GONE = "its file is gone, or is not the one that was measured"


def there(candidate: Candidate, out: Path) -> Candidate:
    """Return a candidate; as failed when its files below ``out`` are not those that were measured."""
    files = candidate.artifact.files if candidate.artifact is not None else ()
    if all((out / file.path).is_file() and digest.of_file(out / file.path) == file.sha256 for file in files):
        return candidate
    return replace(candidate, verdict="failed", reason=GONE)


@dataclass(frozen=True)
class Answers:
    """What was found for each target.

    Attributes:
        found: by the files that are there. Where none of them meets the budget, the plan is one whose file was measured
            to meet it and is gone (it has no forecast), or one that is forecast from all that was measured.
        measured: the same as if every file were there.
    """

    found: Mapping[str, Resolution]
    measured: Mapping[str, Resolution]


def answers(candidates: Sequence[Candidate], out: Path, budget: Budget, mixer: Mixer) -> Answers:
    """Hold measured candidates against another budget; a file that is gone answers nothing, and is forecast from.

    Args:
        candidates: of a finished run, all targets.
        out: the run's folder.
        budget: the other limits.
        mixer: from the run's profile.
    """
    measured = choosing.resolve(candidates, budget, mixer)
    left = [there(one, out) for one in candidates]
    if left == list(candidates):
        return Answers(measured, measured)
    found = choosing.resolve(left, budget, mixer)
    return Answers({target: _again(one, measured[target]) for target, one in found.items()}, measured)


def _again(one: Resolution, measured: Resolution) -> Resolution:
    """Return the answer for one target by the files that are there, with the plan that all measurements lead to."""
    if one.met:
        return one
    if measured.met:
        return replace(one, plan=measured.candidates[0].plan, forecast=None)
    return replace(one, plan=measured.plan, forecast=measured.forecast)
