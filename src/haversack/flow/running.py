"""An artefact as a predictor of the model's samples, whatever its file calls them and however it lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from haversack.base.candidate import Artifact
from haversack.base.model import Port, Sample
from haversack.measure.device import Device, Handle
from haversack.tools.data import codes, layouts


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
        found = self.device.run(self.handle, feeds(self.artifact, sample))
        return tuple(self._meant(port.name, found[port.name]) for port in self.outputs)

    def _meant(self, name: str, array: np.ndarray) -> np.ndarray:
        laid_out, grids = self.artifact.layouts, self.artifact.grids
        array = codes.to_values(array, grids[name]) if name in grids else array
        return layouts.to_model(array, laid_out[name]) if name in laid_out else array


def feeds(artifact: Artifact, sample: Sample) -> Mapping[str, np.ndarray]:
    """Return a sample, arrays in the order of the model's inputs, by name as the file has them: codes where it has.

    Raises:
        ValueError: the sample has another number of arrays.
    """
    found = {
        port.name: layouts.to_file(array, artifact.layouts[port.name]) if port.name in artifact.layouts else array
        for port, array in zip(artifact.inputs, sample, strict=True)
    }
    grids = artifact.grids
    return {name: codes.to_codes(array, grids[name]) if name in grids else array for name, array in found.items()}
