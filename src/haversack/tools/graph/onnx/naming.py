"""Names inside the file: every node and tensor tells the node of the canonical graph it belongs to.

========================  ======================================================================
``key``                   the node that produces the node key's value
``key/Op``                the other nodes of the key (``key/Op.1`` for a second one)
``key:out``               a float tensor
``key:out/codes``         its uint8 codes; ``key:out/value`` the float value of the codes
``key:out/scale``         and ``key:out/zero_point``: what the codes mean
``key:weight/codes``      and ``key:weight/scale``: an encoded weight; ``key:bias/…``: a derived bias
``layer.weight``          a float parameter, by its own name
========================  ======================================================================

A model's inputs and outputs have their users' names.
"""

from __future__ import annotations

import re

_KEY = re.compile(r"([^:#]*:[A-Za-z_][A-Za-z0-9_]*#[0-9]+)")
_EXACT = re.compile(r"([^:#]*:[A-Za-z_][A-Za-z0-9_]*#[0-9]+)(?:/.*)?")
_FUSED = ("fused ", "nhwc ")

CODES = "/codes"
VALUE = "/value"
SCALE = "/scale"
ZERO_POINT = "/zero_point"


def key_of(node_name: str) -> str:
    """Return the node key a node's name in our file tells, or an empty string."""
    match = _EXACT.fullmatch(node_name)
    return match[1] if match else ""


def key_within(node_name: str, known: frozenset[str]) -> str:
    """Return which of the ``known`` keys a node belongs to after the runtime gave it a name made of ours, or "".

    ONNX Runtime adds words before and after the names of the nodes that it replaces.
    """
    match = _KEY.search(node_name)
    if match is None:
        return ""
    found = match[1]
    while found not in known:
        prefix = next((word for word in _FUSED if found.startswith(word)), "")
        if not prefix:
            return ""
        found = found.removeprefix(prefix)
    return found
