"""What a finished run keeps so that another budget is answered in seconds, without torch: ``.haversack/choice.json``.

It holds what the knapsack needs (the graph's wiring, the profile, the sizes of weights) and every candidate with the
figures of both halves of the evaluation set. Costs that were not measured may be NaN, as Python's JSON writes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from haversack.base.budget import Budget
from haversack.base.candidate import Candidate
from haversack.base.errors import UsageError
from haversack.base.graph import Graph
from haversack.base.profile import Profile
from haversack.base.recipe import structure, unstructure
from haversack.base.scope import Scope
from haversack.flow.settings import Settings
from haversack.flow.workshop import FOLDER, MARKER, unfinished
from haversack.tools.store import atomic

FORMAT = 2
"""2 keeps what the user allowed as well; 1 is read."""
NAME = "choice.json"
SEVERAL = "architectures"


@dataclass(frozen=True)
class Choice:
    """What choosing went by in one run.

    Attributes:
        format: the file's format number.
        job: the job file or reference.
        model_digest: content digest of the folded float model.
        graph: its wiring, shapes and ops; attributes and parameters are left out.
        profile: seconds and sensitivity of layers.
        weight_elements: node key -> number of weight elements.
        candidates: as in the report: figures of the untouched half, paths relative to the output folder.
        chosen_on: candidate id -> its drop on the half that chose, in the metric's unit.
        settings: target -> its own, for targets that were given some.
        scope: what the user allows of plans.
        architecture: of the candidates, where the run had several: the file holds one choice of each.
        float_drop: of its float model against the best one, on the half that chose.
        budget: the limits of the run.
    """

    format: int
    job: str
    model_digest: str
    graph: Graph
    profile: Profile = field(hash=False)
    weight_elements: Mapping[str, int] = field(hash=False)
    candidates: tuple[Candidate, ...]
    chosen_on: Mapping[str, float] = field(hash=False)
    settings: Mapping[str, Settings] = field(default_factory=dict, hash=False)
    scope: Scope = field(default_factory=Scope)
    architecture: str = ""
    float_drop: float = 0.0
    budget: Budget = field(default_factory=Budget)

    def severe(self) -> list[Candidate]:
        """Return the candidates with the worse drop of the two halves: what meets a limit so, meets it on both."""
        return [
            one
            if one.drop is None
            else replace(one, drop=replace(one.drop, value=max(one.drop.value, self.chosen_on.get(one.id, -math.inf))))
            for one in self.candidates
        ]


def wiring(graph: Graph) -> Graph:
    """Return a graph with what choosing looks at: keys, ops, edges and shapes."""
    nodes = tuple(replace(node, parameters=(), attributes={}) for node in graph.nodes)
    return Graph(nodes, graph.inputs, graph.outputs)


def write(choice: Choice, out: Path) -> Path:
    """Write it into a run's folder and return its path.

    Raises:
        EnvironmentFault: the folder cannot be written.
    """
    path = out / FOLDER / NAME
    atomic.write_text(path, json.dumps(unstructure(choice), sort_keys=True) + "\n")
    return path


def write_several(choices: Sequence[Choice], out: Path) -> Path:
    """Write what choosing went by in each architecture into a run's folder and return the file's path.

    Raises:
        EnvironmentFault: the folder cannot be written.
    """
    path = out / FOLDER / NAME
    data = {"format": FORMAT, SEVERAL: [unstructure(one) for one in choices]}
    atomic.write_text(path, json.dumps(data, sort_keys=True) + "\n")
    return path


def read(out: Path) -> Choice:
    """Return what the run in a folder, of one model, chose by.

    Raises:
        UsageError: as ``read_all``, or the run had several architectures.
    """
    first, *others = read_all(out)
    if others or first.architecture:
        raise UsageError("the run there had several architectures", where=str(out))
    return first


def read_all(out: Path) -> tuple[Choice, ...]:
    """Return what the run in a folder chose by: one for each architecture, one alone for one model.

    Raises:
        UsageError: the folder is none of ours, its run is not finished, or the file cannot be read (all faults).
    """
    marker, path = out / FOLDER / MARKER, out / FOLDER / NAME
    if not marker.is_file():
        raise UsageError(
            "there is no run of haversack" if out.exists() else "there is no such folder",
            where=str(out),
            next_step="haversack pack JOB --budget … --out " + str(out),
        )
    source = source_of(out)
    again = f"haversack pack {source} --out {out}"
    if not path.is_file():
        raise unfinished(out) or UsageError(
            "the run there is not finished", where=str(out), next_step=f"{again}    (it resumes)"
        )
    data = _load(path, again)
    if data.get("format") not in (FORMAT, FORMAT - 1):
        cause = f"format {data.get('format')!r} is not one this version reads ({FORMAT - 1} or {FORMAT})"
        raise UsageError(cause, where=str(path), next_step=again)
    several = data.get(SEVERAL)
    if several is None:
        return (structure(data, Choice, where=str(path)),)
    if not isinstance(several, list) or not several or not all(isinstance(one, dict) for one in several):
        raise UsageError(f"{SEVERAL} is no list of objects", where=str(path), next_step=again)
    return tuple(structure(one, Choice, where=str(path)) for one in several)


def drops(candidates: Sequence[Candidate]) -> dict[str, float]:
    """Return candidate id -> drop, for those that were scored."""
    return {one.id: one.drop.value for one in candidates if one.drop is not None}


def source_of(out: Path) -> str:
    """Return the job that the run in a folder is of: a job file by its whole path.

    Raises:
        UsageError: the marker of the run cannot be read.
    """
    data = _load(out / FOLDER / MARKER, "haversack pack JOB --out FOLDER    makes a new run")
    return str(data.get("source", "JOB"))


def _load(path: Path, again: str) -> Mapping[str, object]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"it cannot be read: {atomic.why(error)}", where=str(path), next_step=again) from error
    if not isinstance(data, dict):
        raise UsageError("the top of it is no object", where=str(path), next_step=again)
    return data
