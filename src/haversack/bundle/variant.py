"""One runtime's part of a bundle: which files of a run go into it, under which names, and what a device is told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from haversack.base.bundle import MODELS, NAME, Role
from haversack.base.candidate import Artifact
from haversack.base.errors import Fault
from haversack.tools.trust import canonical

TOLERANCE = 0.01
"""|y - golden| / |golden| where layers compute in float: kernels of another processor add in another order, and a code
that is found at run time may flip by one."""
INEXACT = frozenset({"float-rounding", "not-exact", "kept-in-float", "joined-in-float", "nondeterministic"})
"""Findings after which another processor may end in other last bits."""


@dataclass(frozen=True)
class Piece:
    """A file that goes into a bundle.

    Attributes:
        name: there.
        role: what it is for.
        content: its bytes, or the file that holds them.
        sha256: what the file must have; empty for bytes.
        target: the runtime it is of; empty where every variant needs it.
    """

    name: str
    role: Role
    content: bytes | Path
    sha256: str = ""
    target: str = ""


@dataclass(frozen=True)
class Left:
    """What a run left of one runtime.

    Attributes:
        artifact: as artifact.json has it, paths below ``folder``.
        folder: where its files are.
        golden, encodings: file -> sha256, beside it.
    """

    artifact: Artifact
    folder: Path
    golden: tuple[str, str]
    encodings: tuple[str, str]

    @property
    def target(self) -> str:
        """The runtime."""
        return self.artifact.target


def unbundled(names: Sequence[str], *, runs_here: bool) -> str:
    """Say why a runtime's files have no place in a bundle, the main one first, or return an empty string."""
    ending = names[0].rpartition(".")[2] if names else ""
    if ending not in MODELS:
        return f"a bundle holds models that end in {', '.join(sorted(MODELS))}, and its files are of another kind"
    if not runs_here:
        return "it was written and not run, so that no golden vectors prove it on a device"
    strange = [name for name in names[1:] if not NAME.fullmatch(name)]
    return f"{strange[0]} beside its model is no name in a bundle" if strange else ""


def pieces(left: Left) -> Iterator[Piece]:
    """Yield the files of one runtime: the model, what lies beside it, what a device is told, its golden vectors."""
    target, files = left.target, left.artifact.files
    reduced = _reduced(left.artifact)
    for number, (file, renamed) in enumerate(zip(files, reduced.files, strict=True)):
        role: Role = "data" if number else "model"
        yield Piece(renamed.path, role, left.folder / file.path, file.sha256, target)
    yield Piece(f"{target}.json", "artifact", canonical.dumps(reduced), target=target)
    yield Piece(f"{target}.golden.npz", "golden", left.folder / left.golden[0], left.golden[1], target)


def encodings(lefts: Sequence[Left]) -> Iterator[Piece]:
    """Yield what layers are compared by: one file where all runtimes have the same numbers, else one for each."""
    shared = len({left.encodings[1] for left in lefts}) == 1
    for left in lefts[:1] if shared else lefts:
        name, sha256 = left.encodings
        owner = "" if shared else left.target
        yield Piece(f"{owner}.{name}".lstrip("."), "encodings", left.folder / name, sha256, owner)


def misfit(labels: Sequence[str], artifacts: Mapping[str, Artifact]) -> list[Fault]:
    """Return the runtimes none of whose outputs has as many classes as there are labels.

    Outputs of integers, and free lengths, tell no number of classes: nothing is said of these.
    """
    faults = []
    for target, artifact in artifacts.items():
        shapes = [
            port.spec.shape[1:] for port in artifact.outputs if port.name in artifact.grids or _real(port.spec.dtype)
        ]
        sizes = {size for shape in shapes for size in shape}
        if shapes and len(labels) not in sizes and not any(isinstance(size, str) for size in sizes):
            told = ", ".join(str(list(shape)) for shape in shapes)
            faults.append(
                Fault(target, f"there are {len(labels)} labels, and a sample's outputs have the shape {told}")
            )
    return faults


def exact(findings: Collection[str], *, whole: bool, differing: int, compared: int) -> bool:
    """Say whether golden outputs are demanded bit for bit.

    Args:
        findings: kinds that the run found.
        whole: whether every layer runs in integers.
        differing, compared: output values against the reference.
    """
    return whole and compared > 0 and differing == 0 and not INEXACT & {*findings}


def _reduced(artifact: Artifact) -> Artifact:
    """Return what a device must know: names as in the bundle, nothing that only the workshop needs."""
    first = artifact.files[0]
    main = f"{artifact.target}.{first.path.rpartition('.')[2]}"
    ports = {port.name for port in (*artifact.inputs, *artifact.outputs)}
    return replace(
        artifact,
        files=(replace(first, path=main), *artifact.files[1:]),
        tensor_names={},
        absorbed={},
        layouts={name: layout for name, layout in artifact.layouts.items() if name in ports},
        bias_digests={},
        injected=0,
        read_back=0,
    )


def _real(dtype: str) -> bool:
    return dtype.startswith("float")
