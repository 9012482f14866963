"""Names inside the file: every tensor tells the node of the canonical graph it belongs to.

========================  ======================================================================
``key:out``               the float tensor that the node key produces
``key/clamp:out``         that of the clamp which the node's operator does as well
``key:out/codes``         its int8 codes
``key:out/value``         the float value of the codes, where somebody reads it
``key/OP``                what lies between the operators of one key (``key/OP.1`` for a second one)
``key/PERMUTE``           axes that the model itself exchanged, moved for the reader ``key``
``key:weight``            a float weight; ``key:weight/codes`` an encoded one, ``…/whole`` with one scale for all
``key:bias/codes``        a derived bias; ``key:bias/none`` zeros where the layer has none
``key:weight/scale``      scales of a table whose rows are looked up; ``…/codes/scale`` those of blocks
========================  ======================================================================

A model's inputs and outputs have their users' names in the signature.
"""

from __future__ import annotations

import re

_EXACT = re.compile(r"([^:#]*:[A-Za-z_][A-Za-z0-9_]*#[0-9]+)(?:[:/].*)?")

CODES = "/codes"
VALUE = "/value"
SCALE = "/scale"
ASKED = "PERMUTE"
NONE = "/none"
WHOLE = "/whole"
HALF = "/float16"


def key_of(name: str) -> str:
    """Return the node key that a tensor's name in our file tells, or an empty string."""
    match = _EXACT.fullmatch(name)
    return match[1] if match else ""
