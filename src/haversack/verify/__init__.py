"""Verification: how far an artefact is from float and from the reference, and at which tensor it leaves them."""

from __future__ import annotations

from haversack.verify.across import across
from haversack.verify.location import first_float, is_exact, locate
from haversack.verify.parity import compare

__all__ = ["across", "compare", "first_float", "is_exact", "locate"]
