"""A little world in which every cost has a closed form: what a search finds in it can be checked by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from haversack.base.candidate import Artifact, ArtifactFile, Candidate, Latency, Memory, Parity
from haversack.base.graph import Graph, Node, TensorSpec
from haversack.base.plan import PRECISIONS, LayerPlan, Plan
from haversack.base.profile import Profile
from haversack.base.quality import Drop, Quality
from haversack.choose.mixing import Mixer
from haversack.choose.options import BYTES_PER_WEIGHT, SECONDS_PER_BORDER_ELEMENT

TARGET = "onnxruntime"


@dataclass
class World:
    """A chain of linear layers with a relu behind each; bytes, seconds and squared errors add up, borders included.

    ``surprise`` is what measuring a mixed plan finds on top of the sums, as a fraction of its bytes.
    """

    elements: tuple[int, ...] = (40_000, 10_000, 90_000, 60_000)
    seconds: tuple[float, ...] = (4e-3, 1e-3, 3e-3, 2e-3)
    errors: tuple[float, ...] = (0.03, 0.08, 0.01, 0.02)
    half_errors: tuple[float, ...] = (1e-4, 2e-4, 1e-4, 1e-4)
    relu_seconds: float = 5e-4
    width: int = 1000
    overhead: int = 7_000
    speed: float = 0.5
    packing: float = 0.9
    surprise: float = 0.0
    drop_per_error: float = 0.1
    failing: frozenset[str] = frozenset()
    calls: list[str] = field(default_factory=list)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(f"block.{index}:linear#0" for index in range(len(self.elements)))

    @property
    def graph(self) -> Graph:
        spec = TensorSpec(("batch", self.width), "float32")
        nodes = [Node(":input#0", "input", "x", (), spec)]
        for index, key in enumerate(self.layers):
            name = f"block.{index}.weight"
            nodes.append(
                Node(key, "linear", f"linear_{index}", (nodes[-1].key,), spec, weight=name, parameters=(name,))
            )
            nodes.append(Node(f"block.{index}:relu#0", "relu", f"relu_{index}", (key,), spec))
        return Graph(tuple(nodes), (":input#0",), (nodes[-1].key,))

    @property
    def profile(self) -> Profile:
        times = dict(zip(self.layers, self.seconds, strict=True))
        times |= {f"block.{index}:relu#0": self.relu_seconds for index in range(len(self.layers))}
        losses = {
            key: {"int8": error, "float16": half}
            for key, error, half in zip(self.layers, self.errors, self.half_errors, strict=True)
        }
        return Profile({TARGET: times}, losses)

    @property
    def mixer(self) -> Mixer:
        return Mixer(self.graph, self.profile, dict(zip(self.layers, self.elements, strict=True)), {TARGET: PRECISIONS})

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds) + len(self.layers) * self.relu_seconds

    def plan(self, *precisions: str, origin: str = "") -> Plan:
        """Return a plan: one precision for all layers, or one for each."""
        each = precisions * len(self.layers) if len(precisions) == 1 else precisions
        layers = {key: LayerPlan(name) for key, name in zip(self.layers, each, strict=True) if name != "float32"}
        return Plan(TARGET, layers, origin=origin or "/".join(precisions))

    def truth(self, plan: Plan) -> tuple[float, float, float]:
        """Return (bytes, seconds, relative error) as this world's laws have them."""
        kinds = [plan.layers[key].precision if key in plan.layers else "float32" for key in self.layers]
        size = self.overhead + sum(n * BYTES_PER_WEIGHT[kind] for n, kind in zip(self.elements, kinds, strict=True))
        fast = [kind == "int8" for kind in kinds]
        times = [t * (self.speed if quick else 1.0) for t, quick in zip(self.seconds, fast, strict=True)]
        rest = len(self.layers) * self.relu_seconds * (self.speed if any(fast) else 1.0)
        crossings = sum(one != other for one, other in itertools.pairwise(fast))
        losses = {"int8": self.errors, "float16": self.half_errors, "float32": (0.0,) * len(self.layers)}
        squared = sum(losses[kind][index] ** 2 for index, kind in enumerate(kinds))
        border = crossings * self.width * SECONDS_PER_BORDER_ELEMENT
        return size, sum(times) + rest + border, squared**0.5

    def evaluate(self, plan: Plan) -> Candidate:
        self.calls.append(plan.digest)
        if plan.origin in self.failing:
            return Candidate(plan, None, None, None, None, None, None, verdict="failed", reason="the runtime crashed")
        size, seconds, error = self.truth(plan)
        mixed = len({layer.precision for layer in plan.layers.values()} | {len(plan.layers)}) > 2
        mixed |= 0 < len(plan.layers) < len(self.layers)
        return candidate(
            plan,
            size=round(size * (1 + self.surprise * mixed)),
            download=round(size * self.packing),
            ratio=seconds / self.total_seconds,
            float_ms=self.total_seconds * 1e3,
            error=error,
            drop=error * self.drop_per_error,
        )


def candidate(
    plan: Plan,
    *,
    size: int = 1_000_000,
    download: int | None = None,
    ratio: float | None = 0.5,
    float_ms: float = 10.0,
    error: float | None = 0.05,
    drop: float | None = 0.0,
    memory: int | None = 10_000_000,
    verdict: str = "open",
    reason: str = "",
    extra: Mapping[str, object] | None = None,
) -> Candidate:
    """Return a candidate with these measurements; None is what was not measured."""
    file = ArtifactFile("model.onnx", size, size if download is None else download, "0" * 64)
    latency = None
    if ratio is not None:
        latency = Latency(ratio, ratio * float_ms, ratio * float_ms, 50.0, ratio, ratio, ratio, float_ms, 100)
    return Candidate(
        plan,
        Artifact(plan.target, (file,), (), (), "1.18"),
        Quality("top1", 0.9, "fraction", "higher", 100, 0.03),
        None if drop is None else Drop(drop, drop - 0.01, drop + 0.01, 100),
        None if error is None else Parity(0.98, error),
        latency,
        None if memory is None else Memory(memory),
        verdict=verdict,
        reason=reason,
        extra=extra or {},
    )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    return World


@pytest.fixture
def make():
    """Make a candidate with some measurements; ``name`` tells plans apart."""

    def build(name: str = "", **measured):
        return candidate(Plan(TARGET, {f"{name or 'a'}:linear#0": LayerPlan()}, origin=name), **measured)

    return build
