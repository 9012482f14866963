"""An update of a release by fine-tuning, as ``report.json`` holds it: quality against the bytes of the delta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PointRecord:
    """One way to update the release, measured on its artefact and its real delta.

    Attributes:
        name: what it is: ``released``, ``chosen`` …
        bytes: of the delta, the largest of all runtimes.
        value, standard_error: quality on the new data, in the metric's unit; None where the metric has none.
        loss: mean on the training samples held back, before the model was packed.
        layers: key of a layer that changes -> how: ``channels`` or ``weights``.
        ships: whether it is what the run left.
    """

    name: str
    bytes: int
    value: float | None
    standard_error: float | None
    loss: float
    layers: Mapping[str, str] = field(default_factory=dict, hash=False)
    ships: bool = False


@dataclass(frozen=True)
class OfferRecord:
    """What the change of one layer was found to bring: less loss, for so many bytes of a delta (a forecast)."""

    layer: str
    way: str
    gain: float
    bytes: int
    chosen: bool = False


@dataclass(frozen=True)
class UpdateRecord:
    """An update.

    Attributes:
        released: the folder of the run that was updated, as it was typed.
        base: digest of the job's own float model.
        limit: bytes that the delta may have.
        deltas: target -> bytes of its real delta.
        points: the release first, then what was made, in order.
        offers: what each layer brings, best paid first.
        training: samples trained on, and held back.
    """

    released: str
    base: str
    limit: int
    deltas: Mapping[str, int] = field(hash=False)
    points: tuple[PointRecord, ...] = ()
    offers: tuple[OfferRecord, ...] = ()
    training: tuple[int, int] = (0, 0)

    @property
    def first(self) -> PointRecord:
        """The release on the new data."""
        return self.points[0]

    @property
    def shipped(self) -> PointRecord:
        """What the run left."""
        return next(one for one in self.points if one.ships)
