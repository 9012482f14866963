"""All shelves by the noun of their parts: what ``haversack parts`` lists, read without importing a part."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from haversack import metrics
from haversack.base.shelf import Shelf
from haversack.compress.palettize import contract as palettize
from haversack.compress.prepare import contract as prepare
from haversack.compress.quantize import contract as quantize
from haversack.targets import contract as targets
from haversack.tools.data.preprocess import pipeline


def all_shelves() -> Mapping[str, Shelf]:
    """Return noun -> shelf, in the order in which a run uses them; torch is not imported."""
    found = (pipeline.SHELF, metrics.SHELF, prepare.SHELF, quantize.SHELF, palettize.SHELF, targets.SHELF)
    return MappingProxyType({shelf.noun: shelf for shelf in found})
