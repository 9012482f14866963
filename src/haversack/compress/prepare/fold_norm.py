"""Folding batch norms: in inference a norm is a scale and a shift of each channel, which the layer before can carry."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from haversack.base.counted import counted
from haversack.base.graph import Node
from haversack.base.keys import split_node
from haversack.base.model import Model
from haversack.compress.prepare.contract import PrepareContext, PrepareStep, only_reader
from haversack.tools.graph.rewrite import rewrite
from haversack.tools.graph.roles import Role, role

if TYPE_CHECKING:
    from torch import fx

NORM = "batch_norm"
FOLDED = re.compile(r"fold_norm: \d+ norms? folded: ")
"""Begins the note of what was folded; module paths follow."""


@dataclass(frozen=True)
class FoldNorm(PrepareStep):
    """Folds each batch norm into the convolution or linear layer before it (Jacob et al. 2018, arXiv:1712.05877, 3.2).

    W' = W * g / sqrt(var + eps), b' = (b - mean) * g / sqrt(var + eps) + beta, in float64. A norm stays, in float,
    when no layer stands before it, when others read its input or the layer's parameters, or when it does not run on
    the layer's channels; the model's notes say which and why. Doing it twice changes nothing more.
    """

    leaves: ClassVar[frozenset[str]] = frozenset({"outputs"})

    def _inner(self, model: Model, context: PrepareContext) -> Model:  # noqa: ARG002 - weights say it all
        norms = [node for node in model.graph.nodes if node.op == NORM]
        reasons = {node.key: _obstacle(model, node) for node in norms}
        kept = [f"fold_norm: {split_node(key)[0] or key} stays in float: {why}" for key, why in reasons.items() if why]
        foldable = [node for node in norms if not reasons[node.key]]
        new = tuple(note for note in kept if note not in model.notes)
        if foldable:
            layers = {node.name: model.graph.by_key[node.inputs[0]].name for node in foldable}
            places = ", ".join(split_node(node.key)[0] or node.key for node in foldable)
            words = f"fold_norm: {counted(len(foldable), 'norm')} folded: {places}"
            model = rewrite(model, lambda module: _fold(module, layers), words)
        return replace(model, notes=(*model.notes, *new)) if new else model


def _obstacle(model: Model, norm: Node) -> str:
    """Return why a norm cannot be folded, or an empty string."""
    before = model.graph.by_key[norm.inputs[0]]
    if role(before) is not Role.LAYER or before.weight is None:
        return f"it follows {before.op}, not a layer with weights"
    if norm.attributes.get("training"):
        return "it is in training mode"
    if len(norm.parameters) < len([p for p in (norm.weight, norm.bias) if p]) + 2:
        return "it keeps no running mean and variance"
    if len(model.graph.consumers[before.key]) > 1 or before.key in model.graph.outputs:
        return "other nodes read its input"
    if before.op == "linear" and len(before.output.shape) != 2:
        return "it does not normalize the linear layer's features"
    shared = [name for name in (before.weight, before.bias) if name and not only_reader(model, before, name)]
    return f"other nodes read {', '.join(shared)}" if shared else ""


def folded(model: Model) -> tuple[str, ...]:
    """Return the module paths of the norms that were folded into the layers before them."""
    told = (note[found.end() :] for note in model.notes if (found := FOLDED.match(note)))
    return tuple(path for note in told for path in note.split(", "))


def _fold(module: fx.GraphModule, layers: dict[str, str]) -> None:
    """Fold in place: ``layers`` maps the name of each norm to that of the layer before it."""
    by_name = {node.name: node for node in module.graph.nodes}
    for norm_name, layer_name in layers.items():
        norm, layer = by_name[norm_name], by_name[layer_name]
        _, gain, beta, mean, variance, _, _, eps, *_ = norm.args
        scale = _values(module, gain, 1.0) / np.sqrt(_values(module, variance, 1.0) + eps)
        weight = layer.args[1]
        values = _values(module, weight, 1.0)
        bias = layer.args[2] if len(layer.args) > 2 else None
        shift = (_values(module, bias, 0.0) - _values(module, mean, 0.0)) * scale + _values(module, beta, 0.0)
        _set(module, str(weight.target), values * scale.reshape(-1, *[1] * (values.ndim - 1)))
        name = str(bias.target) if bias is not None else f"{str(weight.target).rpartition('.')[0]}.bias".lstrip(".")
        _set(module, name, shift)
        with module.graph.inserting_before(layer):
            fetched = module.graph.get_attr(name)
        layer.args = (*layer.args[:2], fetched, *layer.args[3:])
        norm.replace_all_uses_with(layer)
        module.graph.erase_node(norm)


def _values(module: fx.GraphModule, node: Any, default: float) -> np.ndarray:  # noqa: ANN401 - an fx argument
    """Return a parameter's values in float64; the default where the norm has none."""
    if node is None:
        return np.array(default)
    owner, _, leaf = str(node.target).rpartition(".")
    return np.asarray(getattr(module.get_submodule(owner), leaf).detach().numpy(), np.float64)


def _set(module: fx.GraphModule, path: str, values: np.ndarray) -> None:
    """Set a parameter, new or not, to values in float32."""
    import torch

    owner, _, leaf = path.rpartition(".")
    parameter = torch.nn.Parameter(torch.from_numpy(values.astype(np.float32)), requires_grad=False)
    submodule = module.get_submodule(owner)
    if hasattr(submodule, leaf):
        delattr(submodule, leaf)
    submodule.register_parameter(leaf, parameter)
