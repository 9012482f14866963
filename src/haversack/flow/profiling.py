"""Taking a run's profile: what layers cost in every float file, and what their options lose and weigh."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from haversack.base.graph import Node
from haversack.base.model import Model
from haversack.base.plan import LayerPlan, Precision
from haversack.base.profile import Profile, TensorStatistics
from haversack.base.progress import Event, Sink
from haversack.base.spread import Spread, here
from haversack.choose.options import stores, ways
from haversack.compress.importance import importance
from haversack.compress.perturb import perturb
from haversack.compress.rates import rates
from haversack.flow.data import Data
from haversack.flow.proposals import mostly_linear, worth_knowing
from haversack.profile.sensitivity import ROWS, sensitivity
from haversack.tools.data.stock import DIVIDED, Stock
from haversack.tools.graph import tied

SHARED = f"fewer than {DIVIDED} calibration samples: layers and variants are tried on some that set ranges as well"


@dataclass(frozen=True)
class Looking:
    """What is worth knowing of a model's layers.

    Attributes:
        model: the folded float model.
        narrow: node key -> fewer bits than 8 that its weights can have in some target.
        precisions: those of each target.
        light: whether it is worth knowing what coarser steps lose and weigh as a download.
        limited: whether the bytes are limited.
        spread: where layers are tried.
        groups: node key -> how many 4-bit weights may share a scale in every target.
        static: whether that is of layers with fixed scales of activations in a mostly linear model, too.
        rows: of samples that each layer is tried on.
    """

    model: Model
    narrow: Mapping[str, frozenset[int]]
    precisions: Sequence[frozenset[Precision]]
    light: bool = True
    limited: bool = False
    spread: Spread = here
    groups: Mapping[str, frozenset[int]] = field(default_factory=dict)
    static: bool = False
    rows: int = ROWS

    @property
    def shared(self) -> frozenset[Precision]:
        """What all targets have."""
        return frozenset.intersection(*self.precisions)

    @property
    def palettes(self) -> bool:
        """Whether palettes are among it.

        They compute in float: weights of as few bits under integer kernels are smaller and faster. So what palettes
        lose is worth knowing only where a model's layers have no such kernels.
        """
        return self.limited and "palette" in self.shared and mostly_linear(self.model.graph)

    @property
    def grouped(self) -> Mapping[str, frozenset[int]]:
        """Node key -> how many 4-bit weights may share a scale, where it is worth knowing what they lose so.

        That is where the bytes are limited, and layers quantize their activations at run time.
        """
        wanted = self.limited and "w4_grouped" in self.shared and mostly_linear(self.model.graph)
        return self.groups if wanted else {}

    @property
    def key(self) -> list[object]:
        """What decides the result beside the model and its data."""
        groups = {key: sorted(found) for key, found in sorted(self.grouped.items())}
        once = [[node.key for node in nodes] for nodes in tied.shared(self.model.graph)]
        found = [sorted(self.narrow), self.light, sorted(self.shared), self.palettes, groups, self.static, self.rows]
        return [*found, once] if once else found

    def taken(
        self,
        seconds: Mapping[str, Mapping[str, float]],
        ranges: Mapping[str, TensorStatistics],
        data: Data,
        sink: Sink,
    ) -> Profile:
        """Return the profile.

        Args:
            seconds: target -> node key -> of the layer in the target's float file.
            ranges: of activations over the calibration set.
            data: has the rows that layers are tried on, held back from calibration where there are enough.
            sink: told after each layer.
        """
        model, able = self.model, worth_knowing(self.model.graph, self.precisions, self.narrow, static=self.static)
        layers = [node.key for node in model.graph.nodes if node.weight] if self.palettes else []
        counts = importance(model, layers, data.calibration)
        found = partial(perturb, ranges=ranges, widths=self.narrow, importance=counts)
        held = Stock.of(model.inputs, data.held).take(1, self.rows)
        if data.shared:
            sink(Event("profile", "note", SHARED))
        each = partial(self._ways, able)
        losses = sensitivity(model, found, held, sink, ways=each, spread=self.spread, rows=self.rows)
        weigh = partial(rates, ways=partial(self._stores, able), importance=counts, spread=self.spread)
        return Profile(seconds, losses, weigh(model) if self.light else {})

    def _ways(self, able: Callable[[Node], Collection[Precision]], node: Node) -> Mapping[str, LayerPlan]:
        groups = self.grouped.get(node.key, ())
        return ways(able(node), light=self.light, palettes=self.palettes, groups=groups)

    def _stores(self, able: Callable[[Node], Collection[Precision]], node: Node) -> Mapping[str, LayerPlan]:
        groups = self.grouped.get(node.key, ())
        return stores(able(node), self.shared, palettes=self.palettes, groups=groups)
