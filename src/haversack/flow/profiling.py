"""Taking a run's profile: what layers cost in every float file, and what their options lose and weigh."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from haversack.base.profile import Profile
from haversack.base.progress import Event
from haversack.base.recipe import structure, unstructure
from haversack.choose.options import stores, ways
from haversack.compress.importance import importance
from haversack.compress.perturb import perturb
from haversack.compress.rates import rates
from haversack.flow.proposals import mostly_linear, worth_knowing
from haversack.flow.squeeze import narrowable
from haversack.profile.layers import layers
from haversack.profile.sensitivity import held_rows, sensitivity
from haversack.tools.worker.again import twice
from haversack.tools.worker.faults import WorkerFault

if TYPE_CHECKING:
    from haversack.flow.steps import Steps

PROFILE_RUNS = 20


def profiled(steps: Steps) -> Profile:
    """Return seconds of each layer in every float file, the sensitivity and the rates of each layer.

    Palettes compute in float, so that weights of as few bits under integer kernels are smaller and faster: what
    palettes lose is worth knowing only where a model's layers have no such kernels.

    Args:
        steps: of the run: its model, float files, data and ledger.
    """
    model, shop = steps.model, steps.shop
    narrow = narrowable(steps.constraints.values())
    precisions = [frozenset(one.precisions) for one in steps.targets.values()]
    able, shared = worth_knowing(model.graph, precisions, narrow), frozenset.intersection(*precisions)
    palettes = steps.limited and "palette" in shared and mostly_linear(model.graph)

    def make() -> Profile:
        seconds = layers(model.graph, {name: partial(_times, steps, name) for name in steps.running})
        for name in {*steps.running} - {*seconds}:
            shop.tell(Event("profile", "note", f"{name} reports no time for any layer: none is forecast"))
        counted = [node.key for node in model.graph.nodes if node.weight] if palettes else []
        counts = importance(model, counted, steps.data.calibration())
        found = partial(perturb, ranges=steps.ranges(model), widths=narrow, importance=counts)
        free = all(port.spec.shape and isinstance(port.spec.shape[0], str) for port in model.inputs)
        held = held_rows(steps.data.calibration(), steps.data.counts()[0], cut=free)
        kinds = partial(ways, light=steps.light, palettes=palettes)
        tried = partial(sensitivity, ways=lambda node: kinds(able(node)), spread=steps.spread)
        losses = tried(model, found, held, shop.tell)
        stored = partial(stores, able=shared, palettes=palettes)
        weigh = partial(rates, ways=lambda node: stored(able(node)), importance=counts, spread=steps.spread)
        return Profile(seconds, losses, weigh(model) if steps.light else {})

    return shop.remember(
        "profile",
        "time and sensitivity of layers",
        [*steps.content, *steps.targets, *sorted(narrow), steps.light, sorted(shared), palettes],
        make,
        save=lambda made: ({"profile": unstructure(made)}, {}),
        load=lambda data, _: structure(data["profile"], Profile, where="ledger"),
    )


def _times(steps: Steps, name: str) -> Mapping[str, float]:
    """Return node key -> seconds in the float file of a target; nothing where it tells none."""
    one = steps.floats[name]
    steps.shop.tell(Event("profile", "start", f"time of each layer in the float file for {name}"))
    row = tuple(array[:1] for array in steps.data.first())
    try:
        found = twice(lambda: steps.device.layer_seconds(one.opening, one.artifact, row, PROFILE_RUNS))
    except WorkerFault as error:
        steps.shop.tell(Event("profile", "note", f"{name} tells no times of layers: {error.cause}"))
        return {}
    return {key: seconds for key, seconds in found.items() if key}
