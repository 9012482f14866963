"""Tensor keys: the one name of a tensor in plans, encodings, errors and reports.

A node of the canonical graph is ``module.path:op#call`` (``features.3.conv:conv2d#0``); its tensors add a port:
``:in`` (what is read, as this node sees it), ``:out`` (what is produced), ``:weight``. ``call`` counts the calls of
the same op by the same module, in execution order, so reused modules, residual adds and tied weights stay apart.
"""

from __future__ import annotations

import re

PORTS = ("in", "out", "weight")
_NODE = re.compile(r"(?P<module>[^:#\s]*):(?P<op>[A-Za-z_][A-Za-z0-9_]*)#(?P<call>0|[1-9][0-9]*)")


def node_key(module: str, op: str, call: int) -> str:
    """Return ``module:op#call``.

    Raises:
        ValueError: the parts do not form a key that reads back.
    """
    key = f"{module}:{op}#{call}"
    if not _NODE.fullmatch(key):
        message = f"not a node key: {key!r}"
        raise ValueError(message)
    return key


def split_node(key: str) -> tuple[str, str, int]:
    """Return (module path, op, call) of a node key.

    Raises:
        ValueError: ``key`` is not a node key.
    """
    match = _NODE.fullmatch(key)
    if match is None:
        message = f"not a node key: {key!r} (expected module.path:op#call)"
        raise ValueError(message)
    return match["module"], match["op"], int(match["call"])


def tensor_key(node: str, port: str) -> str:
    """Return ``node:port``.

    Raises:
        ValueError: ``port`` is none of in, out, weight, or ``node`` is not a node key.
    """
    split_node(node)
    if port not in PORTS:
        message = f"not a port: {port!r} (one of {', '.join(PORTS)})"
        raise ValueError(message)
    return f"{node}:{port}"


def split_tensor(key: str) -> tuple[str, str]:
    """Return (node key, port) of a tensor key.

    Raises:
        ValueError: ``key`` is not a tensor key.
    """
    node, _, port = key.rpartition(":")
    if port not in PORTS:
        message = f"not a tensor key: {key!r} (expected module.path:op#call:in|out|weight)"
        raise ValueError(message)
    split_node(node)
    return node, port
