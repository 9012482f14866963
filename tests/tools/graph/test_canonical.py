"""The canonical graph: keys, wiring, parameters, free dimensions and multiply-accumulates, on modules read by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from haversack.base.errors import ConversionError
from haversack.base.keys import split_node
from haversack.tools.graph.canonical import fixed


def keys(model):
    return [node.key for node in model.graph.nodes]


class Reuse(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.fc(self.act(self.fc(x)) + x)) + x


def test_reused_modules_count_their_calls(model_of):
    model = model_of(Reuse(), torch.randn(2, 4))
    assert keys(model) == [
        "x:input#0", "fc:linear#0", "act:relu#0", ":add#0", "fc:linear#1", "act:relu#1", ":add#1",
    ]  # fmt: skip
    assert model.graph.by_key[":add#0"].inputs == ("act:relu#0", "x:input#0")
    assert model.graph.outputs == (":add#1",)
    assert all(model.graph.by_key[f"fc:linear#{call}"].weight == "fc.weight" for call in (0, 1))


def test_every_key_reads_back_and_is_unique(model_of):
    model = model_of(nn.Sequential(Reuse(), nn.Sequential(Reuse(), nn.Linear(4, 3))), torch.randn(2, 4))
    assert len(set(keys(model))) == len(keys(model))
    assert {split_node(key)[0] for key in keys(model)} >= {"0.fc", "1.0.fc", "1.1", "0", "1.0"}


def test_tied_weights_are_one_parameter_with_two_readers(model_of, saved_tied):
    model = model_of(saved_tied, torch.randn(2, 4))
    first, second = (model.graph.by_key[f"{name}:linear#0"] for name in ("first", "second"))
    assert first.weight == second.weight
    assert first.bias != second.bias
    assert model.parameter_count == 16 + 4 + 4


@pytest.fixture
def saved_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    return Tied()


def test_roles_of_parameters(model_of):
    module = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 2))
    model = model_of(module, torch.randn(2, 3, 3, 3))
    conv, norm, _, head = model.graph.nodes[1:]
    assert (conv.weight, conv.bias, conv.parameters) == ("0.weight", None, ("0.weight",))
    assert (norm.weight, norm.bias) == ("1.weight", "1.bias")
    assert norm.parameters == ("1.weight", "1.bias", "1.running_mean", "1.running_var")
    assert (head.weight, head.bias) == ("3.weight", "3.bias")
    assert model.weights["0.weight"].shape == (6, 3, 3, 3)
    assert model.parameter_count == 6 * 27 + 4 * 6 + 6 * 2 + 2


def test_attributes_are_data_by_name(model_of):
    model = model_of(
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Hardtanh(-2, 6)), torch.randn(2, 3, 8, 8)
    )
    conv, clamp = model.graph.nodes[1:]
    assert conv.attributes == {"stride": [2, 2], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    assert clamp.attributes == {"min_val": -2, "max_val": 6}
    assert len(model.graph.digest) == 64


def test_values_without_json_are_words(model_of):
    class Fill(nn.Module):
        def forward(self, x):
            return x.masked_fill(x > 0, float("-inf"))

    node = model_of(Fill(), torch.randn(2, 3)).graph.nodes[-1]
    assert node.attributes["value"] == "-inf"


def test_in_place_ops_have_the_plain_name(model_of):
    assert keys(model_of(nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)), torch.randn(2, 3)))[-1] == "1:relu#0"


class Chunks(nn.Module):
    def forward(self, x):
        a, b = x.chunk(2, 1)
        c, d, _ = torch.split(x, [1, 2, 1], 1)
        return torch.cat([b, a], 1), c * 2, d


def test_tuples_are_taken_apart_by_getitem(model_of):
    model = model_of(Chunks(), torch.randn(3, 4))
    assert ":getitem#0" in keys(model)
    items = [node for node in model.graph.nodes if node.op == "getitem"]
    chunk = next(node for node in model.graph.nodes if node.op == "chunk")
    assert items[0].inputs == items[1].inputs == (chunk.key,)
    assert [item.attributes["arg1"] for item in items[:2]] == [0, 1]
    assert [item.output.shape for item in items[:2]] == [("batch", 2), ("batch", 2)]
    cat = next(node for node in model.graph.nodes if node.op == "cat")
    assert cat.inputs == (items[1].key, items[0].key), "in the order of the arguments"
    assert len(model.outputs) == 3
    assert [port.name for port in model.outputs] == ["output", "output1", "output2"]
    assert model.outputs[2].spec.shape == ("batch", 2)


def test_the_same_tensor_twice(model_of):
    class Double(nn.Module):
        def forward(self, x):
            y = x + 1
            return y * y, y

    model = model_of(Double(), torch.randn(2, 3))
    assert model.graph.by_key[":mul#0"].inputs == (":add#0", ":add#0")
    assert model.graph.consumers[":add#0"] == (model.graph.by_key[":mul#0"],)
    assert model.graph.outputs == (":mul#0", ":add#0")


class Attention(nn.Module):
    def forward(self, query, key):
        return nn.functional.scaled_dot_product_attention(query, key, key)


CASES = [
    (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 5), 6 * 25 * 4 * 9),
    (nn.Conv2d(4, 6, 3, groups=2, stride=2), (2, 4, 5, 5), 6 * 4 * 2 * 9),
    (nn.Conv2d(4, 4, 3, groups=4, padding="same"), (3, 4, 5, 5), 4 * 25 * 9),
    (nn.Conv1d(3, 5, 2), (2, 3, 7), 5 * 6 * 3 * 2),
    (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5), 4 * 25 * 6 * 9),
    (nn.ConvTranspose2d(4, 6, 2, groups=2), (2, 4, 5, 5), 4 * 25 * 3 * 4),
    (nn.Linear(7, 3), (2, 7), 21),
    (nn.Linear(7, 3), (2, 5, 7), 5 * 21),
    (nn.ReLU(), (2, 7), 0),
]


@pytest.mark.parametrize("module, shape, macs", CASES)
def test_multiply_accumulates_of_a_sample(model_of, module, shape, macs):
    assert model_of(module, torch.randn(shape)).macs == macs


def test_multiply_accumulates_of_products(model_of):
    class Product(nn.Module):
        def forward(self, a, b):
            return a @ b

    assert model_of(Product(), torch.randn(2, 3, 5), torch.randn(2, 5, 7)).macs == 3 * 5 * 7
    heads = (torch.randn(2, 4, 6, 8), torch.randn(2, 4, 10, 8))
    assert model_of(Attention(), *heads).macs == 2 * 4 * 6 * 10 * 8

    class Einsum(nn.Module):
        def __init__(self, equation):
            super().__init__()
            self.equation = equation

        def forward(self, a, b):
            return torch.einsum(self.equation, a, b)

    assert model_of(Einsum("bij,bjk->bik"), torch.randn(2, 3, 5), torch.randn(2, 5, 7)).macs == 3 * 5 * 7
    assert model_of(Einsum("b i j, b k j -> b i k"), torch.randn(2, 3, 5), torch.randn(2, 7, 5)).macs == 3 * 5 * 7
    assert model_of(Einsum("...i,...i->..."), torch.randn(2, 3), torch.randn(2, 3)).macs == 0

    class Added(nn.Module):
        def forward(self, a, b):
            return torch.baddbmm(torch.ones(1), a, b)

    assert model_of(Added(), torch.randn(2, 3, 5), torch.randn(2, 5, 7)).macs == 3 * 5 * 7

    class Grams(nn.Module):
        def forward(self, a, b):
            return torch.bmm(a, b)

    assert model_of(Grams(), torch.randn(3, 2, 4), torch.randn(3, 4, 5)).macs == 2 * 4 * 5


def test_free_dimensions_have_the_users_names(model_of):
    class Mix(nn.Module):
        def forward(self, ids, mask):
            return torch.cat([ids * mask, ids], 1), ids.reshape(-1)

    free = [{0: "batch", 1: "length"}] * 2
    inputs = (torch.randn(2, 5), torch.randn(2, 5))
    model = model_of(
        Mix(), *inputs, free=free, input_names=["ids", "mask"], dims=dict(zip(("ids", "mask"), free, strict=True))
    )
    assert model.inputs[0].spec.shape == model.inputs[1].spec.shape == ("batch", "length")
    assert model.outputs[0].spec.shape == ("batch", "2*length")
    assert model.outputs[1].spec.shape == ("batch*length",)


def test_free_dimensions_have_names_even_without_the_user(model_of):
    model = model_of(nn.ReLU(), torch.randn(2, 5, 3), free=[{0: "", 1: ""}])
    assert model.inputs[0].spec.shape[0] == "batch"
    assert model.inputs[0].spec.shape[1].endswith("_1")
    assert model.inputs[0].spec.shape[2] == 3


def test_a_dimension_that_turned_out_constant_is_a_number(model_of):
    model = model_of(nn.Linear(4, 2), torch.randn(2, 4), free=[{0: "batch", 1: "width"}])
    assert model.inputs[0].spec.shape == ("batch", 4)
    assert [type(size) for size in model.inputs[0].spec.shape] == [str, int]


def test_fixed_lengths():
    assert fixed(3) == 3

    class Known:
        def __init__(self, value):
            self.node = self
            self.value = value

        def maybe_as_int(self):
            return self.value

        def __str__(self):
            return "s0"

    assert (fixed(Known(7)), fixed(Known(None))) == (7, "s0")


def test_lifted_constants_and_hidden_buffers_are_weights(model_of):
    class Constants(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("hidden", torch.arange(3.0), persistent=False)

        def forward(self, x):
            return x * torch.tensor([1.0, 2.0, 3.0]) + self.hidden

    model = model_of(Constants(), torch.randn(2, 3))
    assert np.array_equal(model.weights["hidden"], [0, 1, 2])
    read = {name for node in model.graph.nodes for name in node.parameters}
    assert read <= set(model.weights)
    assert any(np.array_equal(model.weights[name], [1, 2, 3]) for name in read)


@pytest.mark.parametrize(
    "names, told",
    [
        ({"input_names": ["a", "b"]}, "2 input names for 1 input"),
        ({"output_names": ["a", "b"]}, "2 output names for 1 output"),
    ],
)
def test_names_that_do_not_fit(model_of, names, told):
    with pytest.raises(ConversionError, match=told):
        model_of(nn.ReLU(), torch.randn(2, 3), **names)


def test_names_given_twice(model_of):
    class Sum(nn.Module):
        def forward(self, a, b):
            return a + b, a - b

    inputs = (torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(ConversionError, match="a is given twice"):
        model_of(Sum(), *inputs, input_names=["a", "a"])
    with pytest.raises(ConversionError, match="y is given twice"):
        model_of(Sum(), *inputs, output_names=["y", "y"])


def test_outputs_that_are_no_tensors(model_of):
    class Size(nn.Module):
        def forward(self, x):
            return x + 1, x.shape[1]

    with pytest.raises(ConversionError, match="not a tensor computed by the model"):
        model_of(Size(), torch.randn(2, 3))


def test_content_decides_the_digest(model_of):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    a, b = (model_of(module, torch.randn(2, 3)) for _ in range(2))
    assert a.digest == b.digest
    other = model_of(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3))
    assert other.graph.digest == a.graph.digest
    assert other.digest != a.digest
    assert model_of(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(2, 3)).graph.digest != a.graph.digest


def test_what_no_output_depends_on_is_left_out(model_of):
    class Unread(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = nn.Linear(4, 4)
            self.unread = nn.Linear(4, 3)

        def forward(self, x):
            hidden = self.read(x)
            self.unread(hidden)
            return torch.relu(hidden)

    model = model_of(Unread(), torch.zeros(2, 4))
    assert keys(model) == ["x:input#0", "read:linear#0", ":relu#0"]
    assert model.parameter_count == 4 * 4 + 4
