"""What was released: a finished run's plans, encodings and float weights, as an update starts from them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from haversack import report
from haversack.base.encodings import Encodings
from haversack.base.errors import Fault, UsageError, VerificationError
from haversack.base.model import Model
from haversack.base.plan import Plan
from haversack.base.profile import Profile
from haversack.flow import choice
from haversack.flow.making import ENCODINGS, WEIGHTS
from haversack.flow.settings import built
from haversack.flow.shipped import Shipped
from haversack.flow.workshop import FOLDER, unfinished
from haversack.report.record import Record
from haversack.tools.formats import encodings_file

TRAINED = "trained.safetensors"
"""The float weights of an update, in its run's own folder: another update starts from them."""
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Released:
    """A finished run that is updated.

    Attributes:
        out: its folder.
        record: what it tells.
        ships: target -> what ships for it, for those that are updated.
        encodings: of all of them.
    """

    out: Path
    record: Record
    ships: Mapping[str, Shipped]
    encodings: Encodings

    @property
    def plans(self) -> dict[str, Plan]:
        """Target -> the plan that its file was made by."""
        return {target: one.record.plan for target, one in self.ships.items()}

    @property
    def base(self) -> str:
        """Digest of the job's own float model: an update's is another one than its release's."""
        return self.record.update.base if self.record.update is not None else self.record.model.digest

    @property
    def profile(self) -> Profile:
        """What the run knew of its layers."""
        return choice.read(self.out).profile

    def files(self, target: str) -> list[Path]:
        """Return the model's files of a target, the main one first."""
        ship = self.ships[target]
        return [ship.folder / name for name in ship.names]

    def model(self, own: Model) -> Model:
        """Return the float model that was released, with what preparation changed.

        Args:
            own: the job's, as a run of it would have it.

        Raises:
            UsageError: it is another model, or its float weights are gone.
        """
        if own.digest != self.base:
            raise UsageError(
                "it is a run of another model: the job's has other layers or weights",
                where=f"--from {self.out}",
                tried="comparing the digests of both float models",
                next_step="give the job the model that was released: its data are new, its model() is not",
            )
        from safetensors import SafetensorError
        from safetensors.numpy import load

        first = next(iter(self.ships.values()))
        paths = [self.out / FOLDER / "candidates" / first.record.plan.id / WEIGHTS]
        paths[:0] = [self.out / FOLDER / TRAINED] if self.record.update is not None else []
        try:
            for path in paths:
                own = own.with_weights(load(path.read_bytes()))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UsageError(
                f"the float weights that were released cannot be read: {error}",
                where=str(self.out),
                next_step=self.record.command or "pack the job again",
            ) from error
        if self.record.update is not None and own.digest != self.record.model.digest:
            cause = "the float weights that it keeps are not those of what it left"
            raise UsageError(cause, where=str(self.out), next_step=self.record.command)
        return own


def read(out: Path, targets: Sequence[str] = ()) -> Released:
    """Read a finished run; its files are those that were measured.

    Args:
        out: its folder.
        targets: which of its runtimes are updated; all of them, unless some are named.

    Raises:
        UsageError: there is no finished run of one model, or not for these runtimes, or their encodings differ.
        VerificationError: a file is not the one that was measured.
    """
    if (out / MANIFEST).is_file():
        cause = "it is a bundle, which holds no float weights: an update starts from the run that it was made of"
        raise UsageError(cause, where=f"--from {out}", next_step="--from the folder that pack was given with --out")
    if (stopped := unfinished(out)) is not None:
        raise stopped
    record = report.read(out)
    if record.architectures:
        cause = "its job gives several architectures, and one model is updated"
        raise UsageError(cause, where=f"--from {out}", next_step="pack the one that ships as a job of its own")
    strange = [name for name in targets if name not in record.best]
    if strange or not record.best:
        cause = f"it has no file for {', '.join(strange)}" if strange else "it left no file"
        raise UsageError(cause, where=f"--from {out}", next_step=f"it has {', '.join(record.best) or 'none'}")
    ships = {}
    for target in targets or tuple(record.best):
        candidate = record.best_of(target)
        assert candidate is not None, "a report's best are its candidates"
        ships[target] = Shipped.of(out, record, built(target, record.settings.get(target)), candidate)
    if changed := [fault for one in ships.values() for fault in one.hashes()[1]]:
        raise VerificationError(
            "what lies there is not what was measured",
            where=str(out),
            faults=tuple(changed),
            next_step=f"haversack verify {shlex.quote(str(out))}",
        )
    return Released(out, record, ships, _shared(out, ships))


def _shared(out: Path, ships: Mapping[str, Shipped]) -> Encodings:
    """Return the encodings that all targets have: one fine-tuning serves those alone.

    Raises:
        UsageError: some have other ones.
    """
    contents = {target: (one.folder / ENCODINGS).read_bytes() for target, one in ships.items()}
    first = next(iter(contents))
    if others := [target for target, content in contents.items() if content != contents[first]]:
        faults = tuple(Fault(target, f"its encodings are not those of {first}") for target in others)
        raise UsageError(
            "its runtimes do not share one set of integers, and one fine-tuning serves one set",
            where=f"--from {out}",
            faults=faults,
            next_step=f"--target {first}, and another --out for --target {others[0]}",
        )
    return encodings_file.from_bytes(contents[first], where=str(ships[first].folder / ENCODINGS))
