"""What a report tells of a model and of the machine, taken from these themselves."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from haversack.base.graph import Graph, Node
from haversack.base.model import Model
from haversack.report.record import Environment, LayerFacts, ModelFacts

CLAMPS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min"})
PACKAGES = ("haversack", "torch", "numpy")
"""What computes whatever the runtime is; a target names its own."""
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "f16c", "fma", "asimd", "asimddp", "i8mm", "sve")
NAMED = 3
"""Names that a note lists before it counts the rest."""
CPUINFO = Path("/proc/cpuinfo")


def of_model(model: Model, *, source: str = "", time_share: Mapping[str, float] | None = None) -> ModelFacts:
    """Return a model in numbers.

    Args:
        source: the job file or reference it came from.
        time_share: node key -> measured fraction of the model's time.
    """
    shares = time_share or {}
    read = {name for node in model.graph.nodes for name in node.parameters}
    return ModelFacts(
        name=model.name,
        parameters=model.parameter_count,
        macs=model.macs,
        weight_bytes=sum(model.weights[name].nbytes for name in read),
        digest=model.digest,
        source=source,
        notes=tuple(map(brief, model.notes)),
        layers=tuple(_layer(model, node, shares.get(node.key)) for node in model.graph.nodes if node.weight),
    )


def brief(note: str) -> str:
    """Return a note with the first of many names that it lists, and how many more there are."""
    names = note.split(", ")
    return note if len(names) <= NAMED + 1 else f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def _layer(model: Model, node: Node, share: float | None) -> LayerFacts:
    names = filter(None, (node.weight, node.bias))
    return LayerFacts(
        key=node.key,
        op=node.op,
        macs=node.macs,
        parameters=sum(model.weights[name].size for name in names),
        tensor=_left(model.graph, node),
        time_share=share,
    )


def _left(graph: Graph, node: Node) -> str:
    """Return the key of the tensor a layer leaves: behind the clamp that alone reads it, if there is one."""
    readers = graph.consumers[node.key]
    fused = len(readers) == 1 and readers[0].op in CLAMPS and node.key not in graph.outputs
    return readers[0].out if fused else node.out


def of_machine(*, threads: int = 1, packages: Iterable[str] = PACKAGES) -> Environment:
    """Return this machine: Python, system, CPU with the flags that decide integer kernels, versions of packages.

    Args:
        threads: how many a session ran with.
        packages: distributions to name; those that are not installed are left out.
    """
    cpu, flags = _processor(CPUINFO.read_text(encoding="utf-8") if CPUINFO.exists() else "")
    return Environment(
        python=platform.python_version(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu or platform.processor() or "unknown",
        cpu_flags=tuple(flag for flag in FLAGS if flag in flags),
        cores=os.cpu_count() or 0,
        threads=threads,
        versions=_versions(packages),
    )


def of_device(
    packer: Environment, *, device: str, python: str, os: str, cpuinfo: str, cores: int, versions: Mapping[str, str]
) -> Environment:
    """Return another machine that measured, named ``device``.

    Args:
        packer: the machine that packed; what is installed on it and not on the device computed the files.
        cpuinfo: the beginning of the device's /proc/cpuinfo.
        versions: package -> version on the device.
    """
    cpu, flags = _processor(cpuinfo)
    return replace(
        packer,
        python=python,
        os=os,
        cpu=cpu or "unknown",
        cpu_flags=tuple(flag for flag in FLAGS if flag in flags),
        cores=cores,
        versions={**packer.versions, **versions},
        device=device,
    )


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor(cpuinfo: str) -> tuple[str, frozenset[str]]:
    """Return (model name, flags) of the first processor in Linux's /proc/cpuinfo (``Features`` on ARM)."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    flags = fields.get("flags", fields.get("features", ""))
    board = fields.get("model", "") if "model name" not in fields else ""  # ARM boards tell theirs, x86 a number
    return fields.get("model name", fields.get("cpu model", board)), frozenset(flags.split())
