"""Pads as nodes of XNNPACK: which convolution takes one over, and which pads stay."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.targets.executorch.capture import Part
from haversack.targets.executorch.pads import fold
from haversack.targets.executorch.quiet import quiet
from haversack.targets.executorch.sheet import Sheet

with quiet():  # ExecuTorch warns while it is imported
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema

IMAGE, PADDED, OTHER, TURNED = (1, 5, 6, 3), (1, 8, 9, 3), (1, 4, 4, 3), (1, 9, 3, 8)
PRE, POST = [0, 1, 2, 0], [0, 2, 1, 0]


def sheet(external=()):
    """Return a sheet of values 0 (image), 1 (padded), 2 and 3 (outputs), 4 (a filter)."""
    values = []
    for index, dims in enumerate((IMAGE, PADDED, OTHER, OTHER, (3, 2, 2, 3))):
        tensor = schema.XNNTensorValue(schema.XNNDatatype(1), 4, list(dims), 0, index, 3 * (index in external), index)
        values.append(schema.XValue(tensor))
    graph = schema.XNNGraph("0", [], values, 2, [0], [2], [schema.ConstantDataOffset(0, 0)])
    return Sheet(Part(0, graph, (), {}, {}, {}, {}, {}), {})


def pad(source=0, output=1, pre=PRE, post=POST, value=0.0):
    return schema.XNNStaticConstantPad(list(pre), list(post), value, source, output, 0)


def conv(source=1, output=2, kind="Conv2d", borders=(0, 0, 0, 0)):
    top, right, bottom, left = borders
    numbers = dict(  # noqa: C408 - as the schema names them
        padding_top=top, padding_right=right, padding_bottom=bottom, padding_left=left,
        kernel_height=2, kernel_width=2, subsampling_height=1, subsampling_width=1, dilation_height=1,
        dilation_width=1, group_input_channels=3, group_output_channels=3, groups=1, adjustment_height=0,
        adjustment_width=0, input1_id=source, filter_id=4, bias_id=0xFFFFFFFF, output_id=output, flags=0,
    )  # fmt: skip
    return getattr(schema, f"XNN{kind}")(**numbers)


def turn(source=1, output=2, order=(0, 2, 3, 1)):
    return schema.XNNStaticTranspose(4, list(order), source, output, 0)


def folded(*unions, keep=(), external=()):
    """Return what is left, by kind, and the sheet."""
    one = sheet(external)
    nodes = [(schema.XNode(union, 0), f"n{index}") for index, union in enumerate(unions)]
    left = fold(one, nodes, frozenset(keep))
    return [type(node.xnode_union).__name__.removeprefix("XNN") for node, _ in left], one


def borders(union):
    return union.padding_top, union.padding_right, union.padding_bottom, union.padding_left


@pytest.mark.parametrize("kind", ["Conv2d", "DepthwiseConv2d"])
def test_a_convolution_takes_a_pad_over(kind):
    layer = conv(kind=kind, borders=(1, 1, 1, 1))
    assert folded(pad(), layer)[0] == [kind]
    assert layer.input1_id == 0
    assert borders(layer) == (2, 2, 3, 3)


def test_two_convolutions_take_the_same_pad():
    one, two = conv(), conv(output=3, kind="DepthwiseConv2d")
    assert folded(pad(), one, two)[0] == ["Conv2d", "DepthwiseConv2d"]
    assert borders(one) == borders(two) == (1, 1, 2, 2)


def test_a_pad_behind_a_pad_goes_too():
    layer = conv(source=3)
    kinds, _ = folded(pad(), pad(source=1, output=3, pre=[0, 1, 0, 0], post=[0, 0, 0, 0]), layer)
    assert kinds == ["StaticConstantPad", "Conv2d"]  # the first one's reader was a pad when it was looked at
    assert borders(layer) == (1, 0, 0, 0)


def test_a_pad_before_a_change_of_layout():
    """Channels come first before it, so rows and columns are axes 2 and 3 of the pad."""
    layer = conv(source=2, output=3)
    kinds, one = folded(pad(pre=[0, 0, 1, 2], post=[0, 0, 0, 1]), turn(), layer)
    assert kinds == ["StaticTranspose", "Conv2d"]
    assert borders(layer) == (1, 1, 0, 2)
    assert list(one.tensor(2).dims) == [IMAGE[axis] for axis in (0, 2, 3, 1)]


STAYING = {
    "its value is not zero": ((pad(value=0.5), conv()), {}),
    "it pads channels": ((pad(pre=[0, 0, 0, 1]), conv()), {}),
    "it pads the batch": ((pad(post=[1, 0, 0, 0]), conv()), {}),
    "it pads channels before a change of layout": ((pad(pre=[0, 1, 0, 0]), turn(), conv(source=2, output=3)), {}),
    "it is kept": ((pad(), conv()), {"keep": ("n0",)}),
    "it is an output too": ((pad(), conv()), {"external": (1,)}),
    "an add reads it": ((pad(), conv(), schema.XNNAdd(1, 0, 3, 0)), {}),
    "a pool reads it": (
        (pad(), schema.XNNGlobalAvgPooling2d(input_id=1, output_id=2, flags=0)),
        {},
    ),
    "it is turned another way": ((pad(), turn(order=(0, 3, 1, 2)), conv(source=2, output=3)), {}),
    "nobody reads what is turned": ((pad(), turn()), {}),
    "it is read plain and turned": ((pad(), conv(), turn(output=3), conv(source=3, output=2)), {}),
    "something else reads what is turned": (
        (pad(pre=[0, 0, 1, 1], post=[0] * 4), turn(), schema.XNNAdd(2, 0, 3, 0)),
        {},
    ),
    "it has three axes": ((pad(pre=[0, 1, 0], post=[0, 1, 0]), conv()), {}),
}


@pytest.mark.parametrize("name", STAYING)
def test_a_pad_stays_where(name):
    unions, settings = STAYING[name]
    before = [borders(union) for union in unions if hasattr(union, "padding_top")]
    kinds, _ = folded(*unions, **settings)
    assert "StaticConstantPad" in kinds
    assert [borders(union) for union in unions if hasattr(union, "padding_top")] == before


def test_a_crop_is_refused_by_its_layer(exported):
    import torch
    from torch.nn import functional

    from haversack.base.errors import ConversionError
    from haversack.targets.executorch import ExecuTorch
    from haversack.targets.executorch.skeleton import skeleton

    class Crop(torch.nn.Module):
        def forward(self, x):
            return functional.pad(functional.pad(x, (1, 1)), (-1, 0, 0, -2)) * 2

    model = exported(Crop(), np.zeros((2, 3, 6, 6), np.float32))
    (fault,) = ExecuTorch().refusals(model)
    assert fault.where in {node.key for node in model.graph.nodes if node.op == "pad"}
    assert "no kernel for a pad that cuts" in fault.cause
    with pytest.raises(ConversionError, match="cannot run every operator"):
        skeleton(model)
