"""Every op that has a writer, against PyTorch: many at once in a network of many outputs, told apart by name."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.base.errors import ConversionError
from haversack.targets.coreml import CoreML
from haversack.targets.coreml.ops import WRITERS
from haversack.tools.graph import canonical
from haversack.tools.graph.execute import Executor

IMAGE, LINE, ROWS, GRID = (2, 3, 6, 8), (2, 4, 9), (2, 6, 5), (2, 3, 4, 5)
TABLE = {
    ROWS: {
        **{f"{n}": f"torch.{n}(x)" for n in "sigmoid tanh relu square sin cos floor ceil round erf exp abs".split()},
        **{f"F {n}": f"F.{n}(x)" for n in "hardswish hardsigmoid silu gelu elu relu6 hardtanh".split()},
        "neg": "-x",
        "neg whole": "(-(x > 0).long()).float()",
        "log": "x.abs().add(0.1).log()",
        "sqrt": "x.abs().sqrt()",
        "rsqrt": "x.abs().add(0.1).rsqrt()",
        "reciprocal": "torch.reciprocal(x.abs() + 1)",
        "gelu by tanh": "F.gelu(x, approximate='tanh')",
        "leaky_relu": "F.leaky_relu(x, 0.2)",
        "pow 2": "x ** 2",
        "pow 3": "x.abs() ** 3",
        "clamp": "x.clamp(-0.3, 0.4)",
        "clamp_min": "x.clamp_min(-0.3)",
        "clamp_max": "x.clamp_max(0.4)",
        "a number more": "x + 1.5",
        "a number less": "1.5 - x",
        "rsub": "torch.rsub(x, 2.0)",
        "times": "x * -0.25",
        "through": "x / 3.0",
        "minimum": "torch.minimum(x, -x)",
        "maximum": "torch.maximum(x, x * 0.5)",
        "gt": "torch.where(x > 0.2, x, -x)",
        "eq": "torch.where(x.round() == 0, x, x + 1)",
        "ne": "torch.where(x.round() != 0, x, x + 1)",
        "and": "torch.where((x > 0) & (x < 1), x, 0.0 * x)",
        "logical_and": "torch.where(torch.logical_and(x > 0, x < 1), x, 0.0 * x)",
        "or": "torch.where((x < 0) | (x >= 1), x, 0.0 * x)",
        "logical_or": "torch.where(torch.logical_or(x < 0, x >= 1), x, 0.0 * x)",
        "not": "torch.where(torch.logical_not(x <= 0), x, 2 * x)",
        "one row of truths": "torch.where(x[:, :1] > 0, x, 2 * x)",
        "masked_fill": "x.masked_fill(x > 0, -1.0)",
        "softmax": "torch.softmax(x, -1)",
        "softmax of the first": "torch.softmax(x, 1)",
        "log_softmax": "torch.log_softmax(x, -1)",
        "mean": "x.mean(-1)",
        "mean kept": "x.mean(1, keepdim=True)",
        "mean of all": "x.mean((1, 2))",
        "sum": "x.sum(-1)",
        "sum of truths": "(x > 0).sum(-1).float()",
        "amax": "x.amax(-1)",
        "amin": "x.amin(1, keepdim=True)",
        "vector norm": "torch.linalg.vector_norm(x, dim=-1)",
        "normalize": "F.normalize(x, dim=-1)",
        "layer_norm": "F.layer_norm(x, x.shape[-1:])",
        "layer_norm of two": "F.layer_norm(x, x.shape[-2:])",
        "slice": "x[:, 1:3]",
        "slice with steps": "x[..., ::2]",
        "select": "x[:, 1]",
        "select from behind": "x[..., -1]",
        "unsqueeze": "x.unsqueeze(1)",
        "flatten": "x.flatten(1)",
        "unflatten": "x.unflatten(1, (2, 3))",
        "expand": "x.unsqueeze(1).expand(-1, 3, *x.shape[1:])",
        "expand_as": "x[:, :1].expand_as(x)",
        "expand truths": "torch.where((x[:, :1] > 0).expand(-1, 6, -1), x, -x)",
        "cat": "torch.cat([x, 2 * x], 1)",
        "stack": "torch.stack([x, -x], 1)",
        "chunk": "x.chunk(2, 1)[0] * 2",
        "split": "sum(p.sum(-1) for p in x.split([1, x.shape[-1] - 1], -1))",
        "split evenly": "x.split(2, 1)[2] - x.split(2, 1)[0]",
        "unbind": "x.unbind(-1)[1]",
        "pad": "F.pad(x, (1, 2))",
        "pad with a number": "F.pad(x, (1, 2, 0, 3), value=2.0)",
        "index": "x[:, torch.tensor([1, 0, 1])]",
        "dropout": "F.dropout(x, 0.5, training=False)",
        "to": "(x > 0).to(torch.float32)",
        "to whole": "(x * 3).long()",
        "truths": "x > 0",
        "transpose": "x.transpose(1, 2)",
        "matmul": "x @ x.transpose(1, 2)",
        "matmul with a constant": "x @ torch.arange(15.0).view(5, 3)",
        "bmm": "torch.bmm(x, x.transpose(1, 2))",
        "mm": "torch.mm(x[:, 0], torch.arange(15.0).view(5, 3))",
        "the input itself": "x",
        "a constant": "torch.arange(3.0)",
        "contiguous": "x.transpose(1, 2).contiguous().clone()",
    },
    GRID: {
        "permute": "x.permute(0, 2, 3, 1) * 2",
        "view": "x.view(x.shape[0], 12, 5)",
        "attention": "F.scaled_dot_product_attention(x, x, 2 * x)",
        "attention with a scale": "F.scaled_dot_product_attention(x, x, x, scale=0.3)",
        "attention with a mask": "F.scaled_dot_product_attention(x, x, x, attn_mask=x[:1, :1, :, :4] > -0.5)",
        "attention with a sum": "F.scaled_dot_product_attention(x, x, x, attn_mask=torch.arange(16.0).view(4, 4))",
    },
    IMAGE: {
        "max_pool2d": "F.max_pool2d(x, 2)",
        "max_pool2d, padded": "F.max_pool2d(x, 3, 1, 1)",
        "avg_pool2d": "F.avg_pool2d(x, 2)",
        "avg_pool2d, uncounted": "F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)",
        "avg_pool2d, counted": "F.avg_pool2d(x, 3, 2, 1)",
        "adaptive to one": "F.adaptive_avg_pool2d(x, 1)",
        "adaptive to some": "F.adaptive_avg_pool2d(x, (3, 2))",
        "batch_norm": "F.batch_norm(x, torch.arange(3.0), torch.arange(3.0) + 1)",
        "pad around": "F.pad(x, (1, 1, 0, 2))",
        "pad channels": "F.pad(x, (0, 0, 0, 0, 1, 1))",
        "conv, same": "F.conv2d(x, torch.arange(54.0).view(2, 3, 3, 3) / 54, padding='same')",
        "conv, grouped": "F.conv2d(x, torch.arange(27.0).view(3, 1, 3, 3), None, (2, 1), (1, 2), (2, 1), 3)",
        "squeeze": "F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)",
    },
    LINE: {
        "max_pool1d": "F.max_pool1d(x, 3)",
        "avg_pool1d": "F.avg_pool1d(x, 3)",
        "adaptive_avg_pool1d": "F.adaptive_avg_pool1d(x, 3)",
        "conv1d": "F.conv1d(x, torch.arange(24.0).view(2, 4, 3) / 24, torch.ones(2), 2, 1)",
    },
}


def model_of(codes, shape):
    """Return the Model of several expressions of x, one row."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Expressions(nn.Module):
        def forward(self, x):
            names = {"torch": torch, "F": functional, "x": x, "sum": sum}
            return tuple(eval(code, names) for code in codes)  # noqa: S307 - the table above

    program = torch.export.export(Expressions(), (torch.zeros(1, *shape[1:]),))
    return canonical.to_model(program, "many", output_names=[f"y{index}" for index in range(len(codes))])


@pytest.mark.parametrize("shape", TABLE, ids=str)
def test_against_pytorch(lowered, shape):
    names, codes = zip(*TABLE[shape].items(), strict=True)
    model = model_of(codes, shape)
    x = np.random.default_rng(0).normal(size=(1, *shape[1:])).astype(np.float32)
    wanted = Executor(model).run((x,))
    found = lowered(model, Encodings.none()).run(x)
    assert [one.shape for one in found] == [one.shape for one in wanted]
    pairs = zip(names, found, wanted, strict=True)
    assert [name for name, one, other in pairs if not np.allclose(one, other, rtol=2e-5, atol=2e-5)] == []


@pytest.mark.parametrize(
    "code, shape, cause",
    [
        ("F.pad(x, (1, 1), mode='reflect')", LINE, "only a constant"),
        ("F.max_pool2d(x, 2, ceil_mode=True)", IMAGE, "reach over the end"),
        ("F.adaptive_avg_pool2d(x, (4, 3))", IMAGE, "differ in length"),
        ("torch.linalg.vector_norm(x, 1, dim=-1)", ROWS, "Euclidean"),
        ("torch.add(x, x, alpha=2)", ROWS, "alpha"),
        ("torch.div(x, 2, rounding_mode='floor')", ROWS, "rounds"),
        ("x ** x", ROWS, "exponent"),
        ("F.scaled_dot_product_attention(x, x, x, is_causal=True)", GRID, "causal"),
        ("x[:, :, None, :, None, None] * 2", ROWS, "at most 5"),
        ("torch.erfinv(x)", ROWS, "has no erfinv"),
    ],
)
def test_forms_that_are_refused_say_where_and_why(code, shape, cause):
    faults = CoreML().refusals(model_of([code], shape))
    assert any(cause in fault.cause for fault in faults)
    assert all("#" in fault.where for fault in faults)


def test_all_missing_ops_are_told_together(tmp_path):
    with pytest.raises(ConversionError, match="does not write") as caught:
        CoreML().lower(model_of(["torch.erfinv(x)", "torch.lgamma(x)"], ROWS), Encodings.none(), tmp_path)
    assert [fault.cause for fault in caught.value.faults] == [
        "Core ML has no erfinv here",
        "Core ML has no lgamma here",
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_table_tries_every_writer():
    elsewhere = set(
        "linear embedding alias detach lift_fresh_copy _to_copy type_as float view _unsafe_view t constant_pad_nd"
        " split_with_sizes bitwise_and bitwise_or getitem clamp_min permute reshape matmul".split()
    )
    tried = {node.op for shape, codes in TABLE.items() for node in model_of(list(codes.values()), shape).graph.nodes}
    assert set(WRITERS) - tried - elsewhere == set()
