"""Every op that has a writer, alone in a network, against PyTorch."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError
from haversack.targets.litert import LiteRT
from haversack.targets.litert.ops import WRITERS
from haversack.tools.graph import canonical

IMAGE, LINE, ROWS, PAIR = (2, 3, 6, 8), (2, 4, 9), (2, 5), (2, 6, 5)
GRID = (2, 3, 4, 5)

UNARY = {
    "sigmoid": "torch.sigmoid(x)",
    "tanh": "torch.tanh(x)",
    "relu": "torch.relu(x)",
    "relu6": "F.relu6(4 * x)",
    "neg": "-x",
    "abs": "x.abs()",
    "exp": "x.exp()",
    "log": "x.abs().add(0.1).log()",
    "sqrt": "x.abs().sqrt()",
    "rsqrt": "x.abs().add(0.1).rsqrt()",
    "square": "x.square()",
    "sin": "x.sin()",
    "cos": "x.cos()",
    "floor": "x.floor()",
    "ceil": "x.ceil()",
    "round": "x.round()",
    "hardswish": "F.hardswish(3 * x)",
    "hardsigmoid": "F.hardsigmoid(3 * x)",
    "silu": "F.silu(x)",
    "gelu": "F.gelu(x)",
    "gelu, by tanh": "F.gelu(x, approximate='tanh')",
    "leaky_relu": "F.leaky_relu(x, 0.2)",
    "elu": "F.elu(x)",
    "elu of another slope": "F.elu(x, 2.0)",
    "selu": "F.selu(x)",
    "celu": "F.celu(x, 0.7)",
    "softplus": "F.softplus(x)",
    "softplus, far out": "F.softplus(40 * x, beta=2.5)",
    "log_sigmoid": "F.logsigmoid(9 * x)",
    "mish": "F.mish(5 * x)",
    "glu": "F.glu(x, 1)",
    "threshold": "F.threshold(x, 0.2, -3.0)",
    "sign": "x.round().sign()",
    "roll": "x.roll((1, -2), (1, 2))",
    "pow 2": "x ** 2",
    "pow 3": "x ** 3",
    "pow half": "x.abs() ** 0.5",
    "pow minus half": "x.abs().add(0.1) ** -0.5",
    "clamp": "x.clamp(-0.3, 0.4)",
    "clamp below": "x.clamp(min=-0.3)",
    "clamp_max": "x.clamp_max(0.4)",
    "hardtanh": "F.hardtanh(x)",
    "add a number": "x + 1.5",
    "a number less": "1.5 - x",
    "rsub": "torch.rsub(x, 2.0)",
    "times a number": "x * -0.25",
    "through a number": "x / 3.0",
    "number through": "1.0 / (x.abs() + 1)",
    "minimum": "torch.minimum(x, -x)",
    "maximum": "torch.maximum(x, x * 0.5)",
    "compare and choose": "torch.where(x > 0.2, x, -x)",
    "equal": "torch.where(x.round() == 0, x, x + 1)",
    "not equal": "torch.where(x.round() != 0, x, x + 1)",
    "both": "torch.where((x > 0) & (x < 1), x, 0.0 * x)",
    "either": "torch.where((x < 0) | (x >= 1), x, 0.0 * x)",
    "not": "torch.where(torch.logical_not(x <= 0), x, 2 * x)",
    "masked_fill": "x.masked_fill(x > 0, -1.0)",
    "softmax": "torch.softmax(x, -1)",
    "log_softmax": "torch.log_softmax(x, -1)",
    "mean of the last": "x.mean(-1)",
    "mean kept": "x.mean(-1, keepdim=True)",
    "sum": "x.sum(-1)",
    "amax": "x.amax(-1)",
    "prod": "x.prod(-1)",
    "any": "(x > 1).any(-1).to(torch.float32)",
    "all": "(x > -1).all(1).to(torch.float32)",
    "remainder": "x.remainder(0.75)",
    "lerp": "torch.lerp(x, x.flip(1), 0.3)",
    "narrow": "x.narrow(1, 1, 2)",
    "std": "x.std(-1)",
    "var of all there is": "x.var((1, 2), correction=0, keepdim=True)",
    "argmax": "x.argmax(-1)",
    "argmax kept": "x.argmax(1, keepdim=True) * 1.5",
    "cumsum": "x.cumsum(1)",
    "log1p": "x.abs().log1p()",
    "repeat": "x.repeat(1, 2, 1)",
    "repeat of rows": "x[:, 0].repeat(1, 1, 3)",
    "swapaxes": "x.swapaxes(1, 2)",
    "amin": "x.amin(1, keepdim=True)",
    "vector norm": "torch.linalg.vector_norm(x, dim=-1)",
    "normalize": "F.normalize(x, dim=-1)",
    "layer_norm": "F.layer_norm(x, x.shape[-1:])",
    "rms_norm": "F.rms_norm(x, x.shape[-1:])",
    "rms_norm with factors": "F.rms_norm(x, x.shape[-1:], torch.arange(5.0), 1e-3)",
    "slice": "x[:, 1:3]",
    "slice with steps": "x[..., ::2]",
    "select": "x[:, 1]",
    "select from behind": "x[..., -1]",
    "unsqueeze": "x.unsqueeze(1)",
    "flatten": "x.flatten(1)",
    "expand": "x.unsqueeze(1).expand(-1, 3, *x.shape[1:])",
    "cat": "torch.cat([x, 2 * x], 1)",
    "cat behind": "torch.cat([x, 2 * x], -1)",
    "stack": "torch.stack([x, -x], 1)",
    "chunk": "x.chunk(2, -1)[0] * 2",
    "split": "sum(p.sum(-1) for p in x.split([1, x.shape[-1] - 1], -1))",
    "split evenly": "x.split(5, -1)[0] + 1",
    "unbind": "x.unbind(-1)[1]",
    "pad": "F.pad(x, (1, 2))",
    "index": "x[:, torch.tensor([1, 0, 1])]",
    "dropout": "F.dropout(x, 0.5, training=False)",
    "to": "(x > 0).to(torch.float32)",
}
SHAPED = {
    "flip": (IMAGE, "x.flip(1)"),
    "flip, two axes": (IMAGE, "x.flip([-1, 2]) * 2"),
    "permute": (GRID, "x.permute(0, 2, 3, 1) * 2"),
    "permute and add": (GRID, "x.permute(0, 3, 1, 2) + x.permute(0, 3, 2, 1).transpose(2, 3)"),
    "transpose": (PAIR, "x.transpose(1, 2)"),
    "transpose and flatten": (PAIR, "x.transpose(1, 2).flatten(1)"),
    "view": (GRID, "x.view(x.shape[0], 12, 5)"),
    "reshape after permute": (GRID, "x.permute(0, 2, 1, 3).reshape(x.shape[0], 4, 15)"),
    "matmul": (PAIR, "x @ x.transpose(1, 2)"),
    "matmul, not turned": (PAIR, "x.transpose(1, 2) @ x"),
    "matmul with a constant": (PAIR, "x @ torch.arange(15.0).view(5, 3)"),
    "bmm": (PAIR, "torch.bmm(x, x.transpose(1, 2))"),
    "attention": (GRID, "F.scaled_dot_product_attention(x, x, 2 * x)"),
    "attention with a scale": (GRID, "F.scaled_dot_product_attention(x, x, x, scale=0.3)"),
    "attention with a mask": (GRID, "F.scaled_dot_product_attention(x, x, x, attn_mask=x[:1, :1, :, :4] > 0)"),
    "attention with a sum": (GRID, "F.scaled_dot_product_attention(x, x, x, attn_mask=torch.arange(16.0).view(4, 4))"),
    "attention to what came before": (GRID, "F.scaled_dot_product_attention(x, x, 2 * x, is_causal=True)"),
    "attention to the first ones": (GRID, "F.scaled_dot_product_attention(x[:, :, :2], x, x, is_causal=True)"),
    "softmax of channels": (IMAGE, "torch.softmax(x, 1)"),
    "group_norm": ((2, 6, 5, 4), "F.group_norm(x, 2, torch.arange(6.0), torch.arange(6.0) - 2)"),
    "group_norm behind a pool": ((2, 6, 6, 4), "F.group_norm(3 + F.max_pool2d(x, 2), 3)"),
    "group_norm of a line": (LINE, "F.group_norm(x, 2)"),
    "group_norm of rows": ((2, 6), "F.group_norm(x, 2)"),
    "instance_norm": (IMAGE, "F.instance_norm(x, weight=torch.arange(3.0), bias=torch.arange(3.0))"),
    "instance_norm of a line": (LINE, "F.instance_norm(5 + x)"),
    "pixel_shuffle": ((2, 12, 3, 5), "F.pixel_shuffle(x, 2)"),
    "pixel_shuffle behind a pool": ((2, 18, 4, 6), "F.pixel_shuffle(F.max_pool2d(x, 2), 3)"),
    "pixel_unshuffle": ((2, 3, 4, 6), "F.pixel_unshuffle(x, 2)"),
    "movedim": (IMAGE, "x.movedim(1, -1) * 2"),
    "movedim of two": (GRID, "F.max_pool2d(x, 1).movedim((3, 1), (0, 2)).movedim(1, 0) + 1"),
    "narrow behind a pool": (IMAGE, "F.max_pool2d(x, 2).narrow(-1, -3, 2)"),
    "prod behind a pool": (IMAGE, "F.max_pool2d(x, 2).prod(1)"),
    "repeat of each": (IMAGE, "F.max_pool2d(x, 2).repeat_interleave(3, 1)"),
    "adaptive to lengths that do not divide": (IMAGE, "F.adaptive_avg_pool2d(x, (4, 3))"),
    "adaptive line": ((2, 4, 8), "F.adaptive_avg_pool1d(x, 4)"),
    "adaptive line of odd windows": (LINE, "F.adaptive_avg_pool1d(x, 4)"),
    "nearest of a line": (LINE, "F.interpolate(x, scale_factor=3)"),
    "nearest of a line to a size": (LINE, "F.interpolate(x, size=14)"),
    "zeros like what flows": (IMAGE, "F.max_pool2d(x, 2) + torch.zeros_like(F.max_pool2d(x, 2))"),
    "ones of a shape that flows": (IMAGE, "torch.cat([x, x.new_ones(x.shape[0], 1, *x.shape[2:]) * 2], 1)"),
    "filled like what flows": (ROWS, "torch.where(x > 0, x, torch.full_like(x, 0.5))"),
    "repeat behind a pool": (IMAGE, "F.max_pool2d(x, 2).repeat(1, 2, 1, 3)"),
    "cumsum behind a pool": (IMAGE, "F.max_pool2d(x, 2).cumsum(1)"),
    "argmax behind a pool": (IMAGE, "F.max_pool2d(x, 2).argmax(1)"),
    "std behind a pool": (IMAGE, "F.max_pool2d(x, 2).std((2, 3))"),
    "channel_shuffle": ((2, 6, 4, 4), "F.channel_shuffle(x, 3)"),
    "mirrored": (IMAGE, "F.pad(x, (2, 1, 3, 0), mode='reflect')"),
    "mirrored line": (LINE, "F.pad(x, (1, 2), mode='reflect')"),
    "repeated at the ends": (IMAGE, "F.max_pool2d(F.pad(F.max_pool2d(x, 2), (1, 1, 2, 0), mode='replicate'), 2)"),
    "from the other end": (IMAGE, "F.pad(x, (1, 1, 1, 1), mode='circular')"),
    "max_pool2d over the end": ((2, 3, 6, 9), "F.max_pool2d(x - 9, 3, 2, ceil_mode=True)"),
    "max_pool2d over the end, padded": ((2, 3, 6, 9), "F.max_pool2d(x - 9, 3, 2, 1, ceil_mode=True)"),
    "max_pool1d over the end": ((2, 3, 8), "F.max_pool1d(x, 3, 2, ceil_mode=True)"),
    "avg_pool2d over the end": ((2, 3, 6, 9), "F.avg_pool2d(x, 3, 2, ceil_mode=True)"),
    "avg_pool2d over the end, padded": ((2, 3, 6, 9), "F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)"),
    "avg_pool2d over the end, uncounted": (
        (2, 3, 6, 9),
        "F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)",
    ),
    "max_pool2d": (IMAGE, "F.max_pool2d(x, 2)"),
    "max_pool2d, padded": (IMAGE, "F.max_pool2d(x, 3, 1, 1)"),
    "avg_pool2d": (IMAGE, "F.avg_pool2d(x, 2)"),
    "avg_pool2d, uncounted": (IMAGE, "F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)"),
    "avg_pool2d, uncounted, as a stem": ((2, 3, 8, 8), "F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)"),
    "avg_pool2d, uncounted, by its sides": (IMAGE, "F.avg_pool2d(x, (3, 4), (2, 3), (1, 2), count_include_pad=False)"),
    "average of a line, uncounted": (LINE, "F.avg_pool1d(x, 4, 3, 2, count_include_pad=False)"),
    "prelu": (IMAGE, "F.prelu(x, torch.tensor([0.1, -0.2, 3.0]))"),
    "prelu behind a pool": (IMAGE, "F.prelu(F.max_pool2d(x, 2) - 1, torch.tensor([0.1, -0.2, 3.0]))"),
    "prelu of a line": (LINE, "F.prelu(x, torch.tensor([0.1, -0.2, 3.0, 0.5]))"),
    "prelu of rows": (ROWS, "F.prelu(x, torch.arange(5.0))"),
    "prelu, one slope": (IMAGE, "F.prelu(x, torch.tensor([0.3]))"),
    "fill": (IMAGE, "torch.fill(x[:, :2], 1.5) + x[:, :2]"),
    "fill by a tensor": (ROWS, "torch.fill(x, torch.tensor(2.5)) + x"),
    "slice_scatter": (IMAGE, "torch.slice_scatter(x, 2 * x[:, :, 1:3], 2, 3, 5)"),
    "slice_scatter at the ends": (LINE, "torch.slice_scatter(x.slice_scatter(-x[:, :1], 1, 0, 1), x[:, :2], 1, -2)"),
    "slice_scatter of all": (LINE, "torch.slice_scatter(x, 2 * x, 1) + 1"),
    "select_scatter": (IMAGE, "torch.select_scatter(x, 2 * x[:, 2], 1, 0)"),
    "select_scatter behind a pool": (
        IMAGE,
        "torch.select_scatter(F.max_pool2d(x, 2), torch.ones(x.shape[0], 3, 4), 1, -1)",
    ),
    "copy": (LINE, "torch.ops.aten.copy(x, x[:, :1])"),
    "adaptive to one": (IMAGE, "F.adaptive_avg_pool2d(x, 1)"),
    "adaptive to some": (IMAGE, "F.adaptive_avg_pool2d(x, (3, 2))"),
    "max_pool1d": (LINE, "F.max_pool1d(x, 3)"),
    "mean of an image": (IMAGE, "x.mean((2, 3))"),
    "mean of channels": (IMAGE, "F.max_pool2d(x, 2).mean(1)"),
    "average of zeros too": (IMAGE, "F.avg_pool2d(x, 3, 1, 1)"),
    "average of zeros too, by two": (IMAGE, "F.avg_pool2d(x, 3, 2, 1)"),
    "pool of a stem": (IMAGE, "F.max_pool2d(x, 3, 2, 1)"),
    "pool of a line's stem": (LINE, "F.max_pool1d(x, 3, 2, 1)"),
    "pool of what is below zero": (IMAGE, "F.max_pool2d(x - 9, 3, 2, 1)"),
    "nearest": (IMAGE, "F.interpolate(x, scale_factor=3)"),
    "nearest to a size": (IMAGE, "F.interpolate(x, size=(9, 5))"),
    "nearest by a fraction": (IMAGE, "F.interpolate(x, scale_factor=1.5)"),
    "smaller": (IMAGE, "F.interpolate(x, scale_factor=0.5)"),
    "bilinear": (IMAGE, "F.interpolate(x, scale_factor=2, mode='bilinear')"),
    "bilinear to a size": (IMAGE, "F.interpolate(x, size=(9, 5), mode='bilinear')"),
    "bilinear by corners": (IMAGE, "F.interpolate(x, size=(9, 5), mode='bilinear', align_corners=True)"),
    "bilinear, then a pool": (IMAGE, "F.max_pool2d(F.interpolate(x, scale_factor=2, mode='bilinear'), 2)"),
    "pool and flatten": (IMAGE, "F.max_pool2d(x, 2).flatten(1)"),
    "pool and reshape": (IMAGE, "F.max_pool2d(x, 2).reshape(x.shape[0], 3, 2, 6)"),
    "pool and cut": (IMAGE, "F.max_pool2d(x, 2)[:, 1:, :, 0]"),
    "pool and join": (IMAGE, "torch.cat([F.max_pool2d(x, 2), F.avg_pool2d(x, 2)], 3)"),
    "pool and stack": (IMAGE, "torch.stack([F.max_pool2d(x, 2), F.avg_pool2d(x, 2)], 2)"),
    "pool by a row": (IMAGE, "F.max_pool2d(x, 2) * torch.arange(4.0)"),
    "pool by channels": (IMAGE, "F.max_pool2d(x, 2) * torch.arange(3.0).view(3, 1, 1)"),
    "pool with a mean": (IMAGE, "F.max_pool2d(x, 2) - x.mean((2, 3))[:, :, None, None]"),
    "squeeze": (IMAGE, "F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)"),
    "pad around": (IMAGE, "F.max_pool2d(F.pad(x, (1, 1, 0, 2)), 2)"),
    "pad channels": (IMAGE, "F.max_pool2d(F.pad(x, (0, 0, 0, 0, 1, 1)), 2)"),
    "pool, then rows": (IMAGE, "F.max_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1, 2)"),
    "the same twice": (ROWS, "(x, x)"),
    "the input itself": (ROWS, "(x, x * 2)"),
    "a constant": (ROWS, "(x * 2, torch.arange(3.0))"),
}


@cache
def model_of(code, shape):
    """Return the Model of an expression of x, its batch free."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Expression(nn.Module):
        def forward(self, x):
            return eval(code, {"torch": torch, "F": functional, "x": x, "sum": sum})  # noqa: S307 - the table above

    program = torch.export.export(Expression(), (torch.zeros(shape),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return canonical.to_model(program, "one")


def errors(both, code, shape):
    """Return what differs from PyTorch, row by row: shapes, or the largest error beyond rounding."""
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    made = both(model_of(code, shape))
    rows = [made.file(x[i : i + 1]) for i in range(len(x))]
    wanted = [made.reference(x[i : i + 1]) for i in range(len(x))]
    found = []
    for row, exact in zip(rows, wanted, strict=True):
        for one, other in zip(row, exact, strict=True):
            if one.shape != other.shape:
                found.append((one.shape, other.shape))
            elif not np.allclose(one, other, rtol=2e-5, atol=2e-6):
                found.append(float(np.abs(one - other).max()))
    return found


@pytest.mark.parametrize("name", UNARY)
def test_on_rows(both, name):
    assert errors(both, UNARY[name], PAIR) == []


@pytest.mark.parametrize("name", SHAPED)
def test_on_its_shape(both, name):
    shape, code = SHAPED[name]
    assert errors(both, code, shape) == []


@pytest.mark.parametrize("name", ["softmax", "gelu", "cat behind", "slice", "flatten", "mean kept", "layer_norm"])
def test_behind_a_pool(both, name):
    """What follows lies with its channels last."""
    assert errors(both, f"(lambda x: {UNARY[name]})(F.max_pool2d(x, 2))", IMAGE) == []


@pytest.mark.parametrize(
    "code, shape, cause",
    [
        ("F.pad(x, (1, 1), value=2.0)", LINE, "a number that is not 0"),
        ("F.max_pool2d(x, 2, dilation=2)", IMAGE, "windows with holes"),
        ("F.softplus(x, threshold=3)", ROWS, "a threshold of 3"),
        ("x.argmax()[None]", ROWS, "among all"),
        ("x.std((1, 2), correction=30)", PAIR, "the spread of 30 with 30"),
        ("torch.lerp(x, -x, x)", ROWS, "a weight that is a tensor"),
        ("x.any(1).to(torch.float32)", ROWS, "not of truths"),
        ("x.roll(3)", ROWS, "as one row"),
        ("F.instance_norm(x, torch.zeros(3), torch.ones(3), use_input_stats=False)", IMAGE, "fixed statistics"),
        ("torch.slice_scatter(x, x[:, :2], 1, 0, 4, 2)", LINE, "a step other than 1"),
        ("torch.ops.aten.copy(x, x > 0)", ROWS, "bool becomes float32"),
        ("F.prelu(x, x[0, :4].mean(1))", LINE, "its slope is computed"),
        ("torch.fill(x, x.sum())", ROWS, "its number is computed"),
        ("F.interpolate(x, scale_factor=1.3)", IMAGE, "which is no whole number"),
        ("x.repeat_interleave(2)", ROWS, "as one row"),
        ("F.interpolate(x, scale_factor=1.3)", LINE, "which is no whole number"),
        ("torch.linalg.vector_norm(x, 1, dim=-1)", ROWS, "Euclidean"),
        ("torch.add(x, x, alpha=2)", ROWS, "alpha"),
        ("torch.div(x, 2, rounding_mode='floor')", ROWS, "rounds"),
        ("x ** x", ROWS, "exponent"),
        ("F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)", GRID, "dropout"),
    ],
)
def test_forms_that_are_refused_say_where_and_why(code, shape, cause):
    (fault,) = LiteRT().refusals(model_of(code, shape))
    assert cause in fault.cause
    assert "#0" in fault.where


def test_all_that_is_refused_is_told_at_once():
    code = "x.roll(1) + torch.sort(F.max_pool2d(x, 2, 1, 1, dilation=2), dim=1)[0].roll(2) + torch.erfinv(x).sum()"
    faults = LiteRT().refusals(model_of(code, IMAGE))
    assert sorted(fault.where for fault in faults) == [
        ":erfinv#0",
        ":max_pool2d#0",
        ":roll#0",
        ":roll#1",
        ":sort#0",
    ]
    assert sum("as one row" in fault.cause for fault in faults) == 2


def test_a_refusal_is_an_error_when_lowering(tmp_path):
    with pytest.raises(ConversionError, match="does not write"):
        LiteRT().lower(model_of("torch.erfinv(x)", ROWS), Encodings.none(), tmp_path)


def test_the_table_tries_every_writer():
    """By op: what the tables export, and what the networks of the other tests have."""
    elsewhere = set(
        "conv1d conv2d linear embedding batch_norm clone contiguous alias detach lift_fresh_copy _to_copy type_as float"
        " unflatten _unsafe_view t constant_pad_nd split_with_sizes adaptive_avg_pool1d avg_pool1d mm bitwise_and"
        " logical_and logical_or expand_as clamp_min conv_transpose1d conv_transpose2d".split()
    )
    seen = set()
    for code, shape in [*((code, PAIR) for code in UNARY.values()), *((c, s) for s, c in SHAPED.values())]:
        seen |= {node.op for node in model_of(code, shape).graph.nodes}
    assert set(WRITERS) - seen - elsewhere == set()
