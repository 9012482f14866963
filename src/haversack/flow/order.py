"""The order of operations in which the model is written: one in which little is alive at once."""

from __future__ import annotations

from haversack.base.model import Model, Sample
from haversack.base.progress import Event, Sink
from haversack.tools.graph.reorder import lowered


def frugal(model: Model, batch: Sample, sink: Sink) -> Model:
    """Return the model in an order in which less is alive at the peak; the very same one where none is found.

    Args:
        model: as it was exported.
        batch: one batch, arrays in the order of the model's inputs; its lengths count, for one sample.
        sink: told where the order changes.
    """
    found = lowered(model, lengths(model, batch))
    if found.model is not model:
        before, after = found.before.peak, found.after.peak
        text = f"another order of the same operations: activations peak at {after.bytes} bytes, not {before.bytes}"
        sink(Event("load", "note", text, data={"before": before.bytes, "after": after.bytes, "at": after.node}))
    return found.model


def lengths(model: Model, batch: Sample) -> dict[str, int]:
    """Return the lengths of free dimensions as a batch has them, for one sample of it."""
    found = {
        size: array.shape[axis]
        for port, array in zip(model.inputs, batch, strict=True)
        for axis, size in enumerate(port.spec.shape)
        if isinstance(size, str)
    }
    firsts = {port.spec.shape[0] for port in model.inputs if port.spec.shape}
    return {name: 1 if name in firsts else length for name, length in found.items()}
