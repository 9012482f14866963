"""A Job: everything ``pack`` needs from its user, checked, whatever source it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from haversack.base.model import Sample

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


@dataclass(frozen=True)
class Job:
    """The content of a job file.

    Attributes:
        name: shown in reports.
        model: returns the nn.Module in eval mode.
        calibration: returns batches of inputs; used to set ranges, never to score.
        evaluation: returns (inputs, expected) pairs, batch first.
        metric: a name on the shelf of metrics, or a callable ``(outputs, expected) -> scores per sample``.
        preprocess: declarative operations by name and settings; if given, the data are raw.
        golden: returns inputs for golden vectors that may leave the workshop, or None for synthetic ones.
        training: returns (inputs, expected) pairs to fine-tune on, batch first; or None.
        loss: what fine-tuning makes small, ``(outputs, expected) -> scalar`` of tensors; None for the metric's own.
        baseline: the quality the user states for the float model, or None.
        input_names, output_names: names of the interface, or empty for the exporter's.
        dims: input name -> {axis: name of a free dimension}; axis 0 of every input is free unless this says otherwise.
        lengths: what free dimensions other than the batch are fixed to in files that have no free ones, ascending; or
            empty for the target's own.
        degraded: operations by name and settings, each one way to make the raw inputs worse: what ships is scored on
            them as well.
        layer_precisions: which layers have which precision, as ``GLOB=PRECISION`` over module paths.
        without: names of the precisions and parts that no plan may use.
        labels: of the classes, in order, for the bundle; or empty.
        source: the file or reference it was loaded from.
        models: returns architecture -> nn.Module in eval mode where the job gives several; ``model`` then serves none.
            ``load.architectures`` makes one job of each.
    """

    name: str
    model: Callable[[], nn.Module]
    calibration: Callable[[], Iterable[Sample]]
    evaluation: Callable[[], Iterable[tuple[Sample, np.ndarray]]]
    metric: str | Callable[[Any, Any], Any]
    preprocess: tuple[Mapping[str, Any], ...] = ()
    golden: Callable[[], Iterable[Sample]] | None = None
    training: Callable[[], Iterable[tuple[Sample, np.ndarray]]] | None = None
    loss: Callable[[Any, Any], Any] | None = None
    baseline: float | None = None
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    dims: Mapping[str, Mapping[int, str]] = field(default_factory=dict, hash=False)
    lengths: tuple[int, ...] = ()
    degraded: tuple[Mapping[str, Any], ...] = ()
    layer_precisions: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    source: str = ""
    models: Callable[[], Mapping[str, nn.Module]] | None = None
