"""Where activations peak, as ``report.json`` holds it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bytes:
    """Bytes of something that has a key."""

    key: str
    bytes: int


@dataclass(frozen=True)
class Activations:
    """Where the activations of what ships for a target peak: counted from lifetimes of tensors, never measured.

    Attributes:
        peak_bytes: alive at the peak, for one sample.
        node: key of the node that runs then.
        exported_bytes: alive at the peak in the order in which the model was exported; the same where that order stays.
        float_bytes: alive at the peak with all activations in float, in the order that ships.
        keeps_order: whether the runtime runs a file in its order; another one has its own, and peaks elsewhere.
        alive: the tensors alive at the peak, largest first, by key of the node that makes them.
        live: what is alive while each step runs, in order, by node key.
    """

    peak_bytes: int
    node: str
    exported_bytes: int
    float_bytes: int
    keeps_order: bool = True
    alive: tuple[Bytes, ...] = ()
    live: tuple[Bytes, ...] = ()
