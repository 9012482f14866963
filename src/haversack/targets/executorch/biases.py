"""Derived biases: no encoding holds them, so a file is held against the digests of what was written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from haversack.base import digest
from haversack.base.encodings import Encodings
from haversack.base.errors import Fault
from haversack.base.model import Model
from haversack.targets.executorch.constraints import constraints
from haversack.tools.graph.law import runs_in_integers
from haversack.tools.graph.roles import Role, role, units
from haversack.tools.numerics import affine

Biases = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Node key -> (int32 codes [channels], float32 scale [channels] or [])."""


def derived(model: Model, encodings: Encodings) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the bias that each layer must have that runs in integers and has one.

    Raises:
        ValueError: a code does not fit int32.
    """
    ops = constraints(model.graph).integer_ops
    found = {}
    for unit in units(model.graph):
        node = unit.head
        if role(node) is not Role.LAYER or node.bias is None or not runs_in_integers(unit, encodings, ops):
            continue
        source, weight = (encodings.affine(key) for key in (f"{node.inputs[0]}:out", f"{node.key}:weight"))
        assert source is not None, "the law demands an Affine input"
        assert weight is not None, "the law demands an Affine weight"
        codes = affine.bias_codes(model.weights[node.bias], source.scale, weight.scale)
        found[node.key] = codes, affine.bias_scale(source.scale, weight.scale)
    return found


def digests(biases: Biases) -> dict[str, str]:
    """Return node key -> digest of codes and scale: dtypes, shapes and bytes."""
    return {key: digest.of_arrays({"codes": codes, "scale": scale}) for key, (codes, scale) in biases.items()}


def differences(wanted: Mapping[str, str], found: Biases) -> tuple[Fault, ...]:
    """Return a fault for each layer whose bias is missing, was not asked for, or is not the one with that digest."""
    read = digests(found)
    causes = {
        key: "its bias is not stored as int32 codes with a constant scale" if key not in read else _OTHER
        for key in wanted
        if read.get(key) != wanted[key]
    }
    causes |= dict.fromkeys(read.keys() - wanted.keys(), "it has a bias in integers that nobody asked for")
    return tuple(Fault(key, cause) for key, cause in sorted(causes.items()))


_OTHER = "a code or the scale of its bias is not the one that was written"
