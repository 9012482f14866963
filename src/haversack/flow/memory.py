"""Memory of a run: what the float file takes, and where activations peak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from haversack import report
from haversack.base.candidate import Candidate, Memory
from haversack.base.recipe import structure, unstructure
from haversack.flow.order import lengths
from haversack.flow.running import feeds
from haversack.measure import starts
from haversack.report.activations import Activations, Bytes
from haversack.report.record import Record
from haversack.tools.formats import encodings_file
from haversack.tools.graph.lifetimes import Lifetimes, lifetimes

if TYPE_CHECKING:
    from haversack.flow.steps import Steps


def told(record: Record, steps: Steps, best: Mapping[str, Candidate], folders: Mapping[str, Path]) -> Record:
    """Return a record with the memory of the float files, and where activations of what ships peak.

    Args:
        record: of the run.
        steps: the run.
        best: target -> what ships for it.
        folders: target -> folder with its encodings.
    """
    asked = lengths(steps.model, steps.data.first())
    found = {}
    floats = dict(record.floats)
    for target in best:
        held = encodings_file.read(folders[target] / "encodings.safetensors")
        graph = steps.model.graph
        found[target] = _activations(
            lifetimes(graph, held, asked),
            exported=lifetimes(steps.exported.graph, held, asked).peak.bytes,
            in_float=lifetimes(graph, None, asked).peak.bytes,
            keeps_order=steps.targets[target].keeps_order,
        )
        if target in floats and target in steps.running:
            floats[target] = replace(floats[target], memory=report.memory(_of_float(steps, target)))
    return replace(record, activations=found, floats=floats)


def _activations(now: Lifetimes, *, exported: int, in_float: int, keeps_order: bool) -> Activations:
    return Activations(
        peak_bytes=now.peak.bytes,
        node=now.peak.node,
        exported_bytes=exported,
        float_bytes=in_float,
        keeps_order=keeps_order,
        alive=tuple(Bytes(key, size) for key, size in now.alive),
        live=tuple(Bytes(one.node, one.bytes) for one in now.live),
    )


def _of_float(steps: Steps, target: str) -> Memory:
    """Return what the float file of a target takes, measured once as candidates are."""
    floats = steps.floats[target]
    inputs = feeds(floats.artifact, tuple(array[:1] for array in steps.data.first()))

    def make() -> Memory:
        begun = starts.take(steps.device, floats.opening, inputs, repeats=1, sink=steps.shop.tell)
        return starts.memory(steps.device, floats.opening, inputs, begun, sink=steps.shop.tell)

    return steps.shop.remember(
        "measure",
        f"memory of the float file for {target}",
        [*(file.sha256 for file in floats.artifact.files), steps.device.name, *steps.content],
        make,
        save=lambda made: ({"memory": unstructure(made)}, {}),
        load=lambda data, _: structure(data["memory"], Memory, where="ledger"),
    )
