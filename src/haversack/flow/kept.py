"""What a run keeps of its steps in the ledger, as data and arrays, and whether the files that they left are there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from haversack.base import digest
from haversack.base.candidate import Artifact
from haversack.base.profile import TensorStatistics
from haversack.base.recipe import unstructure
from haversack.flow.making import Made
from haversack.flow.workshop import Saved


def intact(folder: Path, artifact: Artifact) -> bool:
    """Say whether all files of an artefact are there, with the content that was measured."""
    return all(
        (folder / file.path).is_file() and digest.of_file(folder / file.path) == file.sha256 for file in artifact.files
    )


def save_ranges(made: Mapping[str, TensorStatistics]) -> Saved:
    """Return activation ranges, by tensor key, as data and arrays of counts."""
    fields = {key: {name: value for name, value in vars(one).items() if name != "counts"} for key, one in made.items()}
    return {"tensors": fields}, {key: one.counts for key, one in made.items()}


def save_made(made: Made) -> Saved:
    """Return a candidate as data, and the metric's rows as an array where it was scored."""
    return {"candidate": unstructure(made.candidate)}, {} if made.rows is None else {"rows": made.rows}
