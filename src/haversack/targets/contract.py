"""What a target is: a runtime that takes a model with encodings, and whose files are read back before they count.

An author writes the methods whose names begin with an underscore; the public ones check before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from haversack.base import digest, versions
from haversack.base.candidate import Artifact, ArtifactFile
from haversack.base.constraints import Constraints
from haversack.base.encodings import Affine, BlockAffine, Codebook, Encodings
from haversack.base.errors import ConversionError, Fault, UsageError, VerificationError
from haversack.base.finding import Finding
from haversack.base.graph import Graph
from haversack.base.keys import split_tensor
from haversack.base.model import Model, Port, Sample
from haversack.base.plan import PRECISIONS, Precision
from haversack.base.shelf import Shelf
from haversack.tools.codec import download
from haversack.tools.formats.index import hints
from haversack.tools.graph.tied import Stores
from haversack.tools.graph.trial import placeless
from haversack.tools.store import atomic

SHELF = Shelf("haversack.targets", "target", also=frozenset({"reference"}))

PLATFORMS = ("android", "ios", "linux-arm", "browser")
"""Where a user may say that the artefact will run."""
Opens = Callable[[Path, Mapping[str, str], int], None]
"""(path, session options, threads): opens the file elsewhere, and raises where the runtime does not survive that."""
DELEGATE = "delegate"
"""The session option that chooses what computes inside a runtime; a device sets it by measurement, never a file."""
_elsewhere: ContextVar[Opens | None] = ContextVar("elsewhere", default=None)
_SHOWN = 20


@dataclass(frozen=True)
class Lengths:
    """What a target's files take where a model has free dimensions other than the batch.

    Attributes:
        fixed: the lengths that stand in the file, ascending; an input of another length is filled up to the next, or
            not taken. Empty where lengths stay free.
        longest: the longest that is taken; 0 where there is no limit.
    """

    fixed: tuple[int, ...] = ()
    longest: int = 0


class Session(Protocol):
    """A file that is open in its runtime. Whatever runs it needs no torch."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The file's inputs, in order."""

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The file's outputs, in order."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return output name -> array for input name -> array, batch first, dtypes as the file has them."""

    def close(self) -> None:
        """Let go of the runtime's memory; later calls of ``run`` raise."""


@contextmanager
def opened_first(opens: Opens) -> Iterator[None]:
    """Within the block, let ``opens`` open every file before a target does: a crash then does not end this process.

    ``lower`` opens what it has just written, and a runtime may die of it.
    """
    token = _elsewhere.set(opens)
    try:
        yield
    finally:
        _elsewhere.reset(token)


class Target:
    """The base of all targets; parts are frozen dataclasses.

    Attributes:
        platforms: platform -> what it takes to ship the runtime there, in words that have held for years; it does not
            run on a platform that is absent. Told beside measurements, never instead of them.
        packages: distributions whose versions decide what its files hold and compute.
        verified: distribution -> versions with which its writer and reader were proven, such as ``>=1.5.1,<1.6``; what
            another version makes of the same bytes nobody has seen.
        runs_here: whether the runtime opens files on this machine (otherwise export only).
        runs_where: for export only: on which device, and what to type there; ``{file}`` is the main file.
        precisions: what a layer can be in its files.
        kernels: precision -> what computes a layer of it when the file runs, for each of ``precisions``.
        session_settings: the only session options that its artefacts may ask for.
        delegates: values of the session option ``DELEGATE``; left out, the runtime's own choice computes.
        overlapping: whether calls of one open file may overlap in several threads.
        arithmetic: how its integer kernels round, as ``Reference.arithmetic`` says.
        stores: how often its files hold a weight that several layers read.
        keeps_order: whether it runs a file's operations in the order in which they stand there.
    """

    platforms: ClassVar[Mapping[str, str]] = {}
    packages: ClassVar[tuple[str, ...]] = ()
    verified: ClassVar[Mapping[str, str]] = {}
    runs_here: ClassVar[bool] = True
    runs_where: ClassVar[str] = ""
    precisions: ClassVar[tuple[Precision, ...]] = PRECISIONS
    kernels: ClassVar[Mapping[Precision, str]] = {}
    session_settings: ClassVar[frozenset[str]] = frozenset()
    delegates: ClassVar[tuple[str, ...]] = ()
    overlapping: ClassVar[bool] = False
    arithmetic: ClassVar[str] = "law"
    keeps_order: ClassVar[bool] = True
    stores: ClassVar[Stores] = "weight"

    def constraints(self, graph: Graph) -> Constraints:
        """Return what the runtime demands of the encodings of this graph; every key in it is one of the graph's.

        Raises:
            ConversionError: an author's mistake, a key that the graph does not have.
        """
        found = self._constraints(graph)
        named = {key for tie in found.ties for key in tie} | {*found.fixed, *found.bounds}
        named |= {key for ratio in found.ratios for key in (ratio.input, ratio.output)} | found.floats
        stray = sorted(key for key in named if split_tensor(key)[0] not in graph.by_key)
        if stray:
            raise ConversionError(f"constraints on tensors that the graph does not have: {', '.join(stray[:_SHOWN])}")
        return found

    def demands(self, model: Model) -> Constraints:
        """Return the constraints of a model's graph, and which tensors of it a file of this target has no codes for.

        The writer itself is asked, with trial encodings: what it would refuse when a plan is made real is known here.

        Raises:
            ConversionError: the target does not take the model at all (see ``refusals``).
        """
        found = self.constraints(model.graph)
        return replace(found, floats=placeless(model, found, lambda trial: self._unheld(model, trial)))

    def sized(self, lengths: Sequence[int]) -> Target:
        """Return the target whose files take these lengths, ascending, where a model's are free; itself where any fit.

        Args:
            lengths: those that the user wants, or none for the target's own.
        """
        return self._sized(lengths) if lengths else self

    def lengths_of(self, model: Model) -> Lengths:
        """Return which lengths its files take; nothing where the model has no free dimension but the batch."""
        return self._lengths() if model.free_lengths else Lengths()

    def refusals(self, model: Model) -> tuple[Fault, ...]:
        """Return what the runtime cannot take, by module path, and why; empty when it takes all."""
        return self._refusals(model)

    def unverified(self) -> tuple[Fault, ...]:
        """Return the installed packages whose version is none of ``verified``; empty when all are."""
        found = {name: versions.installed(name) for name in self.verified}
        return tuple(
            Fault(name, f"version {found[name]} is installed, {limits} is verified")
            for name, limits in self.verified.items()
            if found[name] and not versions.fits(found[name], limits)
        )

    def lower(self, model: Model, encodings: Encodings, folder: Path) -> Artifact:
        """Write the runtime's files into ``folder``, open them again, and compare what they hold with what was asked.

        Args:
            model: the canonical model; its current weights count.
            encodings: none for the float file.
            folder: made if it is missing; files of the same names are replaced.

        Returns:
            The artifact, its paths relative to ``folder``, with the number of encodings and integers that were
            injected and read back equal.

        Raises:
            ConversionError: a layer or an encoding has no form in the runtime, or the runtime refuses the file; or
                there are encodings, and the runtime's version is not one that was verified: nothing is written then.
            VerificationError: the file does not hold what was asked for; every difference is a fault.
            EnvironmentFault: the folder cannot be written.
        """
        faults = encoding_faults(model, encodings)
        if faults:
            raise ConversionError(
                "these encodings do not fit the model",
                where=model.name,
                faults=faults,
                next_step="encode the model again from its plan",
            )
        if encodings.tensors and (unverified := self.unverified()):
            asked = " ".join(f"'{fault.where}{self.verified[fault.where]}'" for fault in unverified)
            raise ConversionError(
                "no parameters are put into files by a version that was not verified",
                where=type(self).__name__,
                faults=unverified,
                next_step=f"pip install {asked}",
            )
        with atomic.told(folder, "write the file"):
            artifact = self._lower(model, encodings, atomic.make_folder(folder))
        if artifact.read_back != artifact.injected:
            raise VerificationError(
                f"{artifact.injected - artifact.read_back} of {artifact.injected} values do not read back",
                where=str(folder),
            )
        return artifact

    def read(self, path: Path, artifact: Artifact) -> Encodings:
        """Return what a file really holds, under the model's tensor keys.

        Args:
            path: the artifact's main file.
            artifact: what ``lower`` returned.

        Raises:
            VerificationError: the file is not one of ours, or its structure is not what we write.
        """
        return self._read(path, artifact)

    def open_session(
        self, path: Path, options: Mapping[str, str] | None = None, threads: int = 1, *, proven: bool = False
    ) -> Session:
        """Open a file in the runtime; torch is not needed.

        Args:
            path: the artifact's main file.
            options: the artifact's ``session_options``.
            threads: of one call.
            proven: whether these very bytes were opened and tried before, in a child: what a target looks at itself
                before the runtime does is not looked at again.

        Raises:
            ConversionError: the runtime does not open it.
            UsageError: ``threads`` is below 1.
        """
        if threads < 1:
            raise UsageError(f"a session needs at least one thread, not {threads}")
        opens = _elsewhere.get()
        if opens is not None:
            opens(path, options or {}, threads)
        return (self._open_proven if proven else self._open)(path, options or {}, threads)

    def tensors(self, path: Path, artifact: Artifact, inputs: Sample, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Return tensor key -> its array as the runtime computes it: uint8 codes where it is encoded, else float32.

        Only those of ``keys`` that the file holds and that can be looked at without changing what is computed.

        Args:
            path: the artifact's main file.
            artifact: what ``lower`` returned.
            inputs: one batch, its axes as the model has them; so are those of what is returned.
            keys: activation tensor keys.
        """
        return self._tensors(path, artifact, inputs, [key for key in keys if key in artifact.tensor_names])

    def layer_seconds(self, path: Path, artifact: Artifact, inputs: Sample, runs: int = 20) -> dict[str, float]:
        """Return node key -> median seconds of its kernels in one call, one thread, from the runtime's own profiler.

        Time of kernels that belong to no layer (reordering, quantizing at the border) stands under an empty key.

        Args:
            path: the artifact's main file.
            artifact: what ``lower`` returned.
            inputs: one batch, its axes as the model has them.
            runs: calls that count, after one that does not.

        Raises:
            UsageError: ``runs`` is below 1.
        """
        if runs < 1:
            raise UsageError(f"layers are timed over at least one run, not {runs}")
        return self._layer_seconds(path, artifact, inputs, runs)

    def unfused(self, path: Path, artifact: Artifact) -> tuple[str, ...]:
        """Return the node keys of layers that were written for integers and that the runtime computes in float."""
        return self._unfused(path, artifact)

    def findings(self, path: Path, artifact: Artifact) -> tuple[Finding, ...]:
        """Return what a file's structure tells: detours and fallbacks by node key, risks on other processors."""
        return self._findings(path, artifact)

    def _constraints(self, graph: Graph) -> Constraints:
        raise UsageError(f"{type(self).__name__} states no constraints")

    def _unheld(self, model: Model, encodings: Encodings) -> tuple[Fault, ...]:
        """Return what a file of a model has no place for, by tensor or node key."""
        return ()

    def _sized(self, lengths: Sequence[int]) -> Target:
        return self

    def _lengths(self) -> Lengths:
        return Lengths()

    def _refusals(self, model: Model) -> tuple[Fault, ...]:
        raise UsageError(f"{type(self).__name__} states no refusals")

    def _lower(self, model: Model, encodings: Encodings, folder: Path) -> Artifact:
        raise UsageError(f"{type(self).__name__} cannot lower")

    def _read(self, path: Path, artifact: Artifact) -> Encodings:
        raise UsageError(f"{type(self).__name__} cannot read")

    def _open(self, path: Path, options: Mapping[str, str], threads: int) -> Session:
        raise UsageError(f"{type(self).__name__} cannot run here")

    def _open_proven(self, path: Path, options: Mapping[str, str], threads: int) -> Session:
        return self._open(path, options, threads)

    def _tensors(self, path: Path, artifact: Artifact, inputs: Sample, keys: Sequence[str]) -> dict[str, np.ndarray]:
        raise UsageError(f"{type(self).__name__} shows no tensors")

    def _layer_seconds(self, path: Path, artifact: Artifact, inputs: Sample, runs: int) -> dict[str, float]:
        raise UsageError(f"{type(self).__name__} has no profiler")

    def _unfused(self, path: Path, artifact: Artifact) -> tuple[str, ...]:
        raise UsageError(f"{type(self).__name__} does not tell what it fused")

    def _findings(self, path: Path, artifact: Artifact) -> tuple[Finding, ...]:
        return ()


def told_by(write: Callable[[], object]) -> tuple[Fault, ...]:
    """Return what a writer refuses, all that its error tells; nothing where it writes."""
    try:
        write()
    except ConversionError as error:
        return error.faults or (Fault(error.where, error.cause),)
    return ()


def encoding_faults(model: Model, encodings: Encodings) -> tuple[Fault, ...]:
    """Return every encoding that names no node of the model, or integers that do not fit their weight."""
    faults = []
    for key in sorted(encodings.tensors):
        node_key, port = split_tensor(key)
        node = model.graph.by_key.get(node_key)
        if node is None:
            faults.append(Fault(key, "the model has no such node"))
        elif port == "weight" and node.weight is None:
            faults.append(Fault(key, f"{node.op} has no weight"))
        elif port == "weight" and isinstance(encodings.tensors[key], Affine | BlockAffine | Codebook):
            cause = _integer_fault(encodings.integers.get(key), model.weights[str(node.weight)].shape)
            faults += [Fault(key, cause)] if cause else []
    return tuple(faults)


def _integer_fault(codes: np.ndarray | None, shape: tuple[int, ...]) -> str:
    if codes is None:
        return "its integers are missing"
    if codes.shape != shape:
        return f"integers of shape {codes.shape} for a weight of shape {shape}"
    return ""


def artifact_file(path: Path, folder: Path) -> ArtifactFile:
    """Return a written file's record; its size as a download is that of the form in docs/spec/download.md.

    Where the file keeps its tensors is told to the form, as it is when the file is published.

    Raises:
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    packed = len(download.pack(data, hints(data)))
    return ArtifactFile(path.relative_to(folder).as_posix(), len(data), packed, digest.of_bytes(data))
