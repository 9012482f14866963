"""An artefact as a predictor of the model's samples, whatever its file calls them and however it lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from haversack.base.candidate import Artifact
from haversack.base.model import Port, Sample
from haversack.measure.device import Device, Handle
from haversack.tools.data import interface


@dataclass(frozen=True)
class Running:
    """An open artefact.

    Attributes:
        device: where it is open.
        handle: there.
        artifact: what it is.
        outputs: the model's outputs, in order.
    """

    device: Device
    handle: Handle
    artifact: Artifact
    outputs: Sequence[Port]

    def __call__(self, sample: Sample) -> tuple[np.ndarray, ...]:
        """Return the outputs for one batch, both as the model has them.

        Raises:
            WorkerFault: the runtime failed, died or hung; base class ``EnvironmentFault``.
        """
        found = interface.as_model(self.artifact, self.device.run(self.handle, feeds(self.artifact, sample)))
        return tuple(found[port.name] for port in self.outputs)


def feeds(artifact: Artifact, sample: Sample) -> Mapping[str, np.ndarray]:
    """Return a sample, arrays in the order of the model's inputs, by name as the file has them: codes where it has.

    Raises:
        ValueError: the sample has another number of arrays.
    """
    named = {port.name: array for port, array in zip(artifact.inputs, sample, strict=True)}
    return interface.as_file(artifact, named)
