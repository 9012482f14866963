"""Tables over the forms of layers and pools: float agrees with PyTorch, integers equal the reference, at every row."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Encodings
from haversack.targets.litert import LiteRT
from haversack.targets.reference import Reference
from haversack.tools.data.layouts import to_file, to_model

IMAGE = {
    "plain": {"kernel_size": 1},
    "three": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1},
    "same": {"kernel_size": 3, "padding": "same"},
    "same, even kernel": {"kernel_size": (2, 4), "padding": "same"},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "stride over one axis": {"kernel_size": 3, "stride": (1, 2), "padding": (1, 0)},
    "stride beyond the kernel": {"kernel_size": 1, "stride": 3},
    "tall": {"kernel_size": (5, 1), "padding": (2, 0)},
    "wide": {"kernel_size": (1, 5), "padding": (0, 2)},
    "more padding than kernel": {"kernel_size": 3, "padding": 3},
    "dilated": {"kernel_size": 3, "dilation": 2},
    "dilated and padded": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "dilated alike by no name": {"kernel_size": (3, 2), "dilation": (1, 3), "padding": (1, 2)},
    "two groups": {"kernel_size": 3, "groups": 2, "padding": 1},
    "deep": {"kernel_size": 3, "groups": 4, "padding": 1},
    "deep with a stride": {"kernel_size": 3, "groups": 4, "stride": 2},
    "deep, dilated": {"kernel_size": 3, "groups": 4, "dilation": 2, "padding": 2},
    "deep, five wide": {"kernel_size": 5, "groups": 4, "padding": 2},
    "without bias": {"kernel_size": 3, "bias": False},
    "deep without bias": {"kernel_size": 3, "groups": 4, "bias": False},
    "the whole image": {"kernel_size": (7, 9)},
}
LINE = {
    "plain": {"kernel_size": 1},
    "three": {"kernel_size": 3},
    "padded": {"kernel_size": 3, "padding": 1},
    "same": {"kernel_size": 4, "padding": "same"},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilated": {"kernel_size": 3, "dilation": 3, "padding": 3},
    "long": {"kernel_size": 9, "stride": 4, "padding": 4},
    "groups": {"kernel_size": 3, "groups": 2},
    "deep": {"kernel_size": 3, "groups": 4, "padding": 2},
    "without bias": {"kernel_size": 2, "bias": False},
}
PADS = {
    "behind": (0, 1, 0, 1),
    "before": (1, 0, 1, 0),
    "left": (2, 0, 0, 0),
    "top": (0, 0, 1, 0),
    "all sides differ": (0, 1, 2, 3),
    "around": (1, 1, 1, 1),
}
POOLS = {
    "max": "F.max_pool2d(x, 2)",
    "max, overlapping": "F.max_pool2d(x, 3, 2)",
    "max, wide": "F.max_pool2d(x, (1, 3), (1, 2))",
    "max, padded": "F.max_pool2d(x, 3, 1, 1)",
    "max, odd": "F.max_pool2d(x, 3, 2, 1)",
    "average": "F.avg_pool2d(x, 2)",
    "average, overlapping": "F.avg_pool2d(x, 3, 1)",
    "average, uncounted": "F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)",
    "average, odd, uncounted": "F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)",
    "adaptive, rows": "F.adaptive_avg_pool2d(x, (7, 1))",
    "adaptive, columns": "F.adaptive_avg_pool2d(x, (1, 3))",
    "mean of rows": "x.mean(2)",
    "mean of columns, kept": "x.mean(3, keepdim=True)",
    "mean of channels": "x.mean(1)",
    "mean of channels and rows": "x.mean((1, 2))",
    "mean of all": "x.mean((1, 2, 3))",
    "mean from behind": "x.mean((-1, -2))",
    "sum of rows": "x.sum((2,), keepdim=True)",
    "largest channel": "x.amax(1)",
    "least of an image": "x.amin((2, 3))",
}


class Rows:
    """One model of many outputs, lowered once: name of the row -> what the file and the reference give."""

    def __init__(self, model, encodings, folder, x):
        target = LiteRT()
        self.artifact = target.lower(model, encodings, folder)
        path = folder / self.artifact.files[0].path
        self.unfused, self.detours = (ask(path, self.artifact) for ask in (target.unfused, target.findings))
        layouts = self.artifact.layouts
        found = target.open_session(path).run({model.inputs[0].name: to_file(x, layouts.get(model.inputs[0].name, ""))})
        wanted = Reference().run(model, encodings, (x,))
        self.pairs = {
            port.name: (to_model(found[port.name], layouts.get(port.name, "")), exact)
            for port, exact in zip(model.outputs, wanted, strict=True)
        }


def ports(names):
    """Return names that a port may have."""
    return [f"row{index}" for index in range(len(list(names)))]


def module_of(table, make):
    import torch
    from torch import nn

    torch.manual_seed(3)

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = nn.ModuleList(make(row) for row in table.values())

        def forward(self, x):
            return tuple(row(x) for row in self.rows)

    return Table()


def padded(sides):
    from torch import nn

    return nn.Sequential(nn.ZeroPad2d(sides), nn.Conv2d(4, 3, 3, 2))


def layers(kind):
    from torch import nn

    if kind == "pads":
        return PADS, padded, (3, 4, 7, 9)
    if kind == "image":
        return IMAGE, lambda row: nn.Conv2d(4, 8, **row), (3, 4, 7, 9)
    return LINE, lambda row: nn.Conv1d(4, 8, **row), (3, 4, 11)


@pytest.fixture(scope="module", params=["image", "line", "pads"])
def kinds(request, exported, encoded, tmp_path_factory):
    """(kind, table, float rows, int8 rows)."""
    table, make, shape = layers(request.param)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = exported(module_of(table, make), x, outputs=ports(table))
    folder = tmp_path_factory.mktemp(request.param)
    exact = Rows(model, Encodings.none(), folder / "float", x)
    codes = Rows(model, encoded(model, [(x,)]), folder / "int8", x)
    return request.param, table, exact, codes


def worst(rows, table):
    """Return row -> largest error beyond what is allowed, or both shapes."""
    found = {}
    for name, port in zip(table, ports(table), strict=True):
        one, other = rows.pairs[port]
        if one.shape != other.shape:
            found[name] = (one.shape, other.shape)
        elif (error := float(np.abs(one - other).max() / max(1.0, np.abs(other).max()))) > 1e-5:
            found[name] = error
    return found


def test_layers_in_float_agree_with_pytorch(kinds):
    _, table, exact, _ = kinds
    assert worst(exact, table) == {}


def test_layers_in_integers_equal_the_reference(kinds):
    _, table, _, codes = kinds
    different = {
        name: int((one != other).sum())
        for name, port in zip(table, ports(table), strict=True)
        for one, other in [codes.pairs[port]]
        if one.tobytes() != other.tobytes()
    }
    assert different == {}


def test_xnnpack_takes_every_row(kinds):
    assert kinds[3].unfused == ()


def test_only_pads_are_detours(kinds):
    kind, table, exact, codes = kinds
    for rows in (exact, codes):
        causes = [one.text.split()[0] for one in rows.detours]
        known = {"PAD", "QUANTIZE"} if kind == "pads" else {"PAD"}  # an input that only pads read has no codes
        assert set(causes) <= known
        assert causes.count("PAD") <= len(table)
    assert any("PAD" in one.text for one in exact.detours), f"{kind}: some rows have sides that are not SAME"


def test_layouts_are_one_a_kind(kinds):
    kind, table, exact, _ = kinds
    layout = "NWC" if kind == "line" else "NHWC"
    assert set(exact.artifact.layouts.values()) == {layout}
    assert set(ports(table)) <= set(exact.artifact.layouts)


@pytest.fixture(scope="module", params=[(7, 9), (6, 8)], ids=["odd", "even"])
def pools(request, exported, encoded, tmp_path_factory):
    """(table, float rows, int8 rows) of pools behind a convolution."""
    import torch
    from torch import nn
    from torch.nn import functional

    table = {name: code for name, code in POOLS.items() if request.param == (7, 9) or "odd" not in name}
    if request.param == (6, 8):
        table = {name: code for name, code in table.items() if not name.startswith("adaptive")}

    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.conv = nn.Conv2d(2, 3, 1)

        def forward(self, x):
            x = self.conv(x)
            return tuple(eval(code, {"F": functional, "x": x}) for code in table.values())  # noqa: S307 - the table

    x = np.random.default_rng(0).normal(size=(2, 2, *request.param)).astype(np.float32)
    model = exported(Pools(), x, outputs=ports(table))
    folder = tmp_path_factory.mktemp("pools")
    return table, *(
        Rows(model, encodings, folder / name, x)
        for name, encodings in (("float", Encodings.none()), ("int8", encoded(model, [(x,)])))
    )


def test_pools_and_means_agree_with_pytorch(pools):
    table, exact, _ = pools
    assert worst(exact, table) == {}


def test_pools_that_move_codes_equal_the_reference(pools):
    """Means in integers, too; averages run in float on what the codes mean."""
    table, _, codes = pools
    assert worst(codes, table) == {}
    for name, port in zip(table, ports(table), strict=True):
        if name.startswith("max") or name == "mean from behind":
            one, other = codes.pairs[port]
            assert one.tobytes() == other.tobytes(), name
