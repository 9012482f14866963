"""Between a model and its file: an artefact has other layouts than the model, and codes where the model has values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from haversack.base.candidate import Artifact
from haversack.base.graph import TensorSpec
from haversack.base.model import Port
from haversack.tools.data import codes, layouts

Arrays = Mapping[str, np.ndarray]
"""Input or output name -> array, batch first."""


def as_file(artifact: Artifact, inputs: Arrays) -> dict[str, np.ndarray]:
    """Return inputs by name as the file has them: its order of axes, and int8 codes where it has these.

    Raises:
        ValueError: an array is not of the layout's rank, or is NaN where the file has codes.
    """
    found = {
        name: layouts.to_file(array, artifact.layouts[name]) if name in artifact.layouts else array
        for name, array in inputs.items()
    }
    grids = artifact.grids
    return {name: codes.to_codes(array, grids[name]) if name in grids else array for name, array in found.items()}


def as_model(artifact: Artifact, outputs: Arrays) -> dict[str, np.ndarray]:
    """Return outputs by name as the model has them: its order of axes, and float32 values of codes."""
    grids = artifact.grids
    found = {name: codes.to_values(array, grids[name]) if name in grids else array for name, array in outputs.items()}
    return {
        name: layouts.to_model(array, artifact.layouts[name]) if name in artifact.layouts else array
        for name, array in found.items()
    }


def port_of_model(artifact: Artifact, port: Port) -> Port:
    """Return an input or output of the file as the model has it: its order of axes, float32 where the file has codes.

    Raises:
        ValueError: its layout is not of its rank.
    """
    shape, layout = port.spec.shape, artifact.layouts.get(port.name, "")
    order = layouts.order_of(layout, len(shape))
    dtype = "float32" if port.name in artifact.grids else port.spec.dtype
    return replace(port, spec=TensorSpec(tuple(shape[order.index(axis)] for axis in range(len(shape))), dtype))
