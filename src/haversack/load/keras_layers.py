"""Keras layers as PyTorch modules: a closed list, so that a network comes out as one written for PyTorch would.

Keras' own forward on PyTorch permutes around every layer and computes weights as it runs, which leaves nothing to
quantise. Here images are turned once, where they enter ([N, H, W, C] to [N, C, H, W]), and back where they leave.
Definitions: the Keras 3 layer reference; padding "same" as in TensorFlow (more behind than before).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from haversack.base.errors import HaversackError
from haversack.load import keras_modules

if TYPE_CHECKING:
    import torch
    from torch import nn

SKIPPED = frozenset({"Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "ActivityRegularization"})
"""Layers that do nothing in inference."""
IMAGE = keras_modules.IMAGE


class Untranslated(HaversackError):
    """A layer is outside of what is translated; ``cause`` says by what. It never leaves ``keras_file.py``."""


def layer_of(layer: Any) -> nn.Module:  # noqa: ANN401 - a Keras layer
    """Return the PyTorch module of a Keras layer, in eval mode; images are [N, C, H, W] on both of its sides.

    Args:
        layer: built, with its weights, float32.

    Raises:
        Untranslated: its kind or a setting is not in the list.
    """
    kind = type(layer).__name__
    if kind in SKIPPED:
        from torch import nn

        return nn.Identity()
    if kind not in BUILDERS:
        raise Untranslated(f"is a {kind}, which is not translated")
    if getattr(layer, "compute_dtype", "float32") != "float32":
        raise Untranslated(f"computes in {layer.compute_dtype}, not in float32")
    if getattr(layer, "data_format", None) == "channels_first":
        raise Untranslated("has data_format channels_first")
    parts = BUILDERS[kind](layer)
    activation = getattr(layer, "activation", None)
    if activation is not None and kind != "Activation" and activation.__name__ != "linear":
        parts["activation"] = _activation(activation.__name__, len(layer.output.shape))
    return _chain(parts).eval()


def _chain(parts: Mapping[str, nn.Module]) -> nn.Module:
    """Return modules as one: the module itself if there is one, which keeps the layer's name for its path."""
    from torch import nn

    return next(iter(parts.values())) if len(parts) == 1 else nn.Sequential(OrderedDict(parts))


def _tensor(value: Any) -> torch.Tensor:  # noqa: ANN401 - a Keras variable
    found: torch.Tensor = value.value.detach().cpu().clone()
    return found


def _filled(module: nn.Module, weight: torch.Tensor, bias: Any) -> nn.Module:  # noqa: ANN401 - a Keras variable or None
    import torch

    values = {"weight": weight} if bias is None else {"weight": weight, "bias": _tensor(bias)}
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(value)
    return module


def _margins(layer: Any, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> list[int]:  # noqa: ANN401
    """Return what "same" pads: [left, right, top, bottom]; nothing for "valid"."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    found: list[int] = []
    for axis in (1, 0):
        length, wide = layer.input.shape[1 + axis], (kernel[axis] - 1) * dilation[axis] + 1
        if length is None and stride[axis] > 1:
            raise Untranslated('pads "same" with strides on an image of free size')
        steps = -(-length // stride[axis]) if stride[axis] > 1 else 0
        total = max((steps - 1) * stride[axis] + wide - length, 0) if stride[axis] > 1 else wide - 1
        found += [total // 2, total - total // 2]
    return found


def _padded(margins: list[int], build: Callable[[tuple[int, int]], nn.Module]) -> dict[str, nn.Module]:
    """Return a layer that pads by itself where both sides are equal, else a pad and the layer."""
    from torch import nn

    left, right, top, bottom = margins
    if left == right and top == bottom:
        return {"layer": build((top, left))}
    return {"pad": nn.ZeroPad2d((left, right, top, bottom)), "layer": build((0, 0))}


def _convolution(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    """A kernel [kh, kw, in / groups, out] becomes [out, in / groups, kh, kw]."""
    return _convolved(layer, _tensor(layer.kernel).permute(3, 2, 0, 1), layer.groups, layer.bias)


def _depthwise(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    """A kernel [kh, kw, in, multiplier] becomes [in · multiplier, 1, kh, kw], one group a channel."""
    kernel = _tensor(layer.kernel)
    channels = int(kernel.shape[2])
    return _convolved(layer, kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None], channels, layer.bias)


def _separable(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    from torch import nn

    kernel, point = _tensor(layer.depthwise_kernel), _tensor(layer.pointwise_kernel).permute(3, 2, 0, 1)
    parts = _convolved(layer, kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None], int(kernel.shape[2]), None)
    parts["depthwise"] = parts.pop("layer")
    into, out = int(point.shape[1]), int(point.shape[0])
    parts["pointwise"] = _filled(nn.Conv2d(into, out, 1, bias=layer.use_bias), point, layer.bias)
    return parts


def _convolved(layer: Any, weight: torch.Tensor, groups: int, bias: Any) -> dict[str, nn.Module]:  # noqa: ANN401
    from torch import nn

    out, into = int(weight.shape[0]), int(weight.shape[1]) * groups
    kernel, stride, dilation = tuple(weight.shape[2:]), tuple(layer.strides), tuple(layer.dilation_rate)

    def build(padding: tuple[int, int]) -> nn.Module:
        made = nn.Conv2d(into, out, (kernel[0], kernel[1]), (stride[0], stride[1]), padding,
                         (dilation[0], dilation[1]), groups, bias=bias is not None)  # fmt: skip
        return _filled(made, weight, bias)

    return _padded(_margins(layer, kernel, stride, dilation), build)


def _dense(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    from torch import nn

    if len(layer.output.shape) == IMAGE:
        raise Untranslated("is a Dense layer over images: use Conv2D(units, 1)")
    weight = _tensor(layer.kernel).T
    return {"layer": _filled(nn.Linear(weight.shape[1], weight.shape[0], bias=layer.use_bias), weight, layer.bias)}


def _norm(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    import torch
    from torch import nn

    rank = len(layer.output.shape)
    if rank not in (2, IMAGE) or layer.axis not in (-1, rank - 1):
        raise Untranslated(f"normalises axis {layer.axis} of {rank}")
    mean = _tensor(layer.moving_mean)
    made = (nn.BatchNorm2d if rank == IMAGE else nn.BatchNorm1d)(len(mean), eps=layer.epsilon)
    with torch.no_grad():
        made.running_mean.copy_(mean)  # type: ignore[union-attr]
        made.running_var.copy_(_tensor(layer.moving_variance))  # type: ignore[union-attr]
        made.weight.copy_(_tensor(layer.gamma) if layer.scale else torch.ones(len(mean)))
        made.bias.copy_(_tensor(layer.beta) if layer.center else torch.zeros(len(mean)))
    return {"layer": made}


def _relu(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    from torch import nn

    most, slope = layer.max_value, float(layer.negative_slope)
    if layer.threshold or (most is not None and slope):
        raise Untranslated("has a threshold, or both max_value and negative_slope")
    if most is not None:
        return {"layer": nn.ReLU6() if most == 6 else nn.Hardtanh(0.0, float(most))}
    return {"layer": nn.LeakyReLU(slope) if slope else nn.ReLU()}


def _activation(name: str, rank: int) -> nn.Module:
    from torch import nn

    known: dict[str, Callable[[], nn.Module]] = {
        "linear": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh,
        "silu": nn.SiLU, "hard_sigmoid": nn.Hardsigmoid, "hard_silu": nn.Hardswish, "gelu": nn.GELU, "elu": nn.ELU,
        "softplus": nn.Softplus, "softmax": lambda: nn.Softmax(1 if rank == IMAGE else -1),
    }  # fmt: skip
    if name not in known:
        raise Untranslated(f"has the activation {name}, which is not translated")
    return known[name]()


def _pool(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    from torch import nn

    size, stride = tuple(layer.pool_size), tuple(layer.strides)
    left, right, top, bottom = _margins(layer, size, stride, (1, 1))
    if (left, top) != (right, bottom):
        raise Untranslated('pools with padding "same" that is wider on one side: crop or pad the image before it')
    if type(layer).__name__ == "MaxPooling2D":
        return {"layer": nn.MaxPool2d(size, stride, (top, left))}
    return {"layer": nn.AvgPool2d(size, stride, (top, left), count_include_pad=False)}


def _upsampling(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    from torch import nn

    if layer.interpolation != "nearest":
        raise Untranslated(f"enlarges by {layer.interpolation}, only nearest is translated")
    return {"layer": nn.Upsample(scale_factor=tuple(float(size) for size in layer.size), mode="nearest")}


def _zeros(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    from torch import nn

    (top, bottom), (left, right) = layer.padding
    return {"layer": nn.ZeroPad2d((left, right, top, bottom))}


def _plain(name: str) -> Callable[[Any], dict[str, nn.Module]]:
    """Return the builder of a layer that ``keras_modules.py`` writes out."""

    def build(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
        return {"layer": keras_modules.build(name, layer)}

    return build


def _slope(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    from torch import nn

    return {"layer": nn.LeakyReLU(float(layer.negative_slope))}


def _named(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    return {"layer": _activation(layer.activation.__name__, len(layer.output.shape))}


def _softmax(layer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - a Keras layer
    if layer.axis not in (-1, len(layer.output.shape) - 1):
        raise Untranslated(f"is a softmax over axis {layer.axis}")
    return {"layer": _activation("softmax", len(layer.output.shape))}


BUILDERS: Mapping[str, Callable[[Any], dict[str, nn.Module]]] = {
    "Activation": _named,
    "AveragePooling2D": _pool,
    "BatchNormalization": _norm,
    "Conv2D": _convolution,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "LeakyReLU": _slope,
    "MaxPooling2D": _pool,
    "ReLU": _relu,
    "SeparableConv2D": _separable,
    "Softmax": _softmax,
    "UpSampling2D": _upsampling,
    "ZeroPadding2D": _zeros,
} | {
    name: _plain(name)
    for name in "Add Concatenate Flatten GlobalAveragePooling2D GlobalMaxPooling2D Multiply Rescaling Reshape".split()
}
"""Class of a Keras layer -> what builds its module."""
