"""Names inside the files: every layer and blob tells the node of the canonical graph it belongs to.

===================  ========================================================================================
``key:out``          the float values that the node key produces
``key:out/codes``    its int8 codes
``key:out/whole``    these codes as float32 whole numbers, for a layer that ncnn has no integer kernel for
``key:out/value``    the float values of the codes, where somebody reads them
``key:out/scale``    one constant, the scale of the codes
``key:weight/scale`` the scale of an integer weight; ``…/scales`` one for each channel
``key``              the layer that computes the node key; ``key/…`` what else it takes
===================  ========================================================================================

A model's inputs and outputs have their users' names.
"""

from __future__ import annotations

import re

CODES, WHOLE, VALUE = "/codes", "/whole", "/value"
SCALE, SCALES = "/scale", "/scales"
FACTOR = "/factor"
"""A constant that sums are multiplied by."""
ROUND, SETTLE, CAST = "/round", "/settle", "/cast"
"""Layers: float values to codes; sums to codes; codes to whole numbers."""
_KEY = re.compile(r"([^:#]*:[A-Za-z_][A-Za-z0-9_]*#[0-9]+)(?:[:/].*)?")


def key_of(name: str) -> str:
    """Return the node key that a name in our files tells, or an empty string."""
    match = _KEY.fullmatch(name)
    return match[1] if match else ""
