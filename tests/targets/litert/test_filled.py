"""Filled places: whatever they would change is refused by key, and no output is cut at a length that is not its own."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine, Encodings
from haversack.base.errors import ConversionError, UsageError
from haversack.targets.litert import LiteRT, lengths
from haversack.targets.litert.unflat import guarded

TARGET = LiteRT(lengths=(8, 16))


def noise(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def line(*layers):
    """Return convolutions over the second of three axes."""
    from torch import nn

    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*layers)

        def forward(self, x):
            return self.layers(x.transpose(1, 2)).transpose(1, 2)

    return Line()


def expression(code, parts=(), fixed=None):
    """Return a module that computes a piece of code of ``x``, with layers and a buffer of its own."""
    import torch
    from torch import nn

    class Expression(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(parts)
            self.register_buffer("fixed", None if fixed is None else torch.from_numpy(fixed))

        def forward(self, x):
            names = {"torch": torch, "x": x, "part": self.parts, "fixed": self.fixed}
            return eval(code, names)  # noqa: S307 - the tables below

    return Expression()


def free(exported, module):
    return exported(module, noise(2, 10, 3), free=(0, 1), names=("x",))


@pytest.fixture(scope="module")
def stacked(exported):
    """Two padded convolutions: the second reads, behind the end, what the first one's bias makes of filled places."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return free(exported, line(nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)))


def test_the_second_of_two_padded_convolutions_is_told(stacked):
    (fault,) = TARGET.refusals(stacked)
    assert fault.where == "layers.1:conv1d#0"
    assert "change its result" in fault.cause


def test_lowering_refuses_what_the_refusals_tell(stacked, tmp_path):
    with pytest.raises(ConversionError, match="fixed lengths") as caught:
        TARGET.lower(stacked, Encodings.none(), tmp_path)
    assert caught.value.faults == TARGET.refusals(stacked)
    assert "leave this target out" in caught.value.next_step
    assert list(tmp_path.iterdir()) == []


def test_one_place_cannot_be_filled(stacked):
    """A file of length 1 takes no shorter input: there is nothing to refuse."""
    assert lengths.faults(stacked, {"batch": 1, "length": 1}) == ()
    assert lengths.faults(stacked, {"batch": 1, "length": 2}) != ()


def test_the_same_model_of_fixed_length_is_taken(exported, both):
    import torch
    from torch import nn

    torch.manual_seed(0)
    x = noise(2, 10, 3)
    made = both(exported(line(nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)), x))
    assert made.target.refusals(made.model) == ()
    np.testing.assert_allclose(made.file(x)[0], made.reference(x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "code, where",
    [
        ("x.mean(1)", ":mean#0"),
        ("torch.relu(x * 2).amax(1) - 3 * x.mean(1)", ":mean#0"),
        ("torch.softmax(x, 1)", ":softmax#0"),
        ("torch.softmax(x @ x.transpose(1, 2), -1) @ x", ":softmax#0"),
    ],
)
def test_what_looks_over_the_length_is_told(exported, code, where):
    model = free(exported, expression(code))
    found = TARGET.refusals(model)
    assert [fault.where for fault in found] == [where]


@pytest.mark.parametrize(
    "code", ["x * 2 + 1", "x.sum(1)", "torch.softmax(x, -1)", "x.mean(2)", "torch.relu(x).amax(1)"]
)
def test_what_filled_places_do_not_change_is_taken(exported, both, code):
    made = both(free(exported, expression(code)), target=TARGET)
    for length in (1, 7, 8, 13):
        x = noise(2, length, 3)
        found, wanted = made.file(x)[0], made.reference(x)[0]
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_one_padded_convolution_is_exact(exported, both):
    """Zeros that fill up the input are what the convolution pads with."""
    from torch import nn

    made = both(free(exported, line(nn.Conv1d(3, 4, 5, padding=2))), target=TARGET)
    for length in (3, 8, 11):
        x = noise(1, length, 3)
        np.testing.assert_allclose(made.file(x)[0], made.reference(x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{"stride": 2, "padding": 1}, {"stride": 1}])
def test_an_output_of_a_length_of_its_own_is_told(exported, settings):
    from torch import nn

    model = free(exported, line(nn.Conv1d(3, 4, 3, **settings)))
    (fault,) = TARGET.refusals(model)
    assert fault.where == model.graph.outputs[0]
    assert "that of no input" in fault.cause


@pytest.fixture(scope="module")
def pair(exported, tmp_path_factory):
    """An open file of two inputs, each with a free length, and two outputs."""
    from torch import nn

    class Two(nn.Module):
        def forward(self, one, other):
            return one * 2, other + 1

    model = exported(Two(), noise(2, 10), noise(2, 12), free=(0, 1), names=("one", "other"), outputs=("a", "b"))
    folder = tmp_path_factory.mktemp("pair")
    TARGET.lower(model, Encodings.none(), folder)
    return TARGET.open_session(folder / "model.tflite")


@pytest.mark.parametrize("one, other", [(3, 5), (5, 3), (8, 7), (3, 16), (16, 1)])
def test_inputs_of_two_lengths_are_not_cut_at_one_of_them(pair, one, other):
    with pytest.raises(UsageError, match=f"{min(one, other)} or {max(one, other)}") as caught:
        pair.run({"one": noise(1, one), "other": noise(1, other)})
    assert "equal lengths" in caught.value.next_step


@pytest.mark.parametrize("length", [1, 3, 8, 9, 16])
def test_inputs_of_one_length_are_cut_at_it(pair, length):
    one, other = noise(3, length), noise(3, length) - 1
    found = pair.run({"one": one, "other": other})
    np.testing.assert_array_equal(found["a"], one * 2)
    np.testing.assert_array_equal(found["b"], other + 1)


def test_lengths_may_differ_where_no_output_has_them(exported, both):
    from torch import nn

    class Sums(nn.Module):
        def forward(self, one, other):
            return one.sum(1, keepdim=True) - other.sum(1, keepdim=True)

    model = exported(Sums(), noise(2, 10), noise(2, 12), free=(0, 1), names=("one", "other"))
    made = both(model, target=TARGET)
    found = made.file(noise(2, 3), noise(2, 11))[0]
    wanted = noise(2, 3).sum(1, keepdims=True) - noise(2, 11).sum(1, keepdims=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


CONSTANTS = {
    "in front": (5, (1, 2, 4, 5), "torch.cat([fixed, part[0](x)], 1)"),
    "behind": (5, (1, 2, 4, 5), "torch.cat([part[0](x), fixed], 1)"),
    "along the rows": (3, (1, 3, 1, 5), "torch.cat([part[0](x), fixed], 2)"),
    "behind a clamp": (5, (1, 2, 4, 5), "torch.cat([part[0](x).clamp(0, 6), fixed], 1)"),
    "between": (7, (1, 1, 4, 5), "torch.cat([part[0](x), fixed, part[0](x)], 1)"),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_that_is_joined_is_codes(exported, encoded, both, name):
    import torch
    from torch import nn

    torch.manual_seed(3)
    x = noise(1, 3, 4, 5)
    channels, shape, code = CONSTANTS[name]
    parts = [nn.Conv2d(3, 3, 1), nn.Conv2d(channels, 2, 1)]
    model = exported(expression(f"part[1]({code})", parts, np.abs(noise(*shape))), x, free=())
    encodings = encoded(model, [(x,)])
    assert isinstance(encodings.tensors[":cat#0:out"], Affine)
    made = both(model, encodings)
    assert made.file(x)[0].tobytes() == made.reference(x)[0].tobytes()
    exact = both(model)
    np.testing.assert_allclose(exact.file(x)[0], exact.reference(x)[0], rtol=1e-5, atol=1e-6)
    kinds = guarded(made.path, lambda file: [file.name(one) for one in file.subgraphs[0].operators])
    assert (kinds.count("QUANTIZE"), kinds.count("DEQUANTIZE")) == (1, 1), "the constant costs nothing at run time"


def test_a_constant_computed_from_a_buffer_keeps_its_encoding(exported, encoded, both):
    import torch
    from torch import nn

    class Token(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(5)
            self.first, self.last = nn.Linear(6, 4), nn.Linear(8, 3)
            self.register_buffer("token", torch.arange(4.0)[None] / 3)

        def forward(self, x):
            x = self.first(x)
            return self.last(torch.cat([x, self.token.expand(x.shape[0], 4)], 1))

    x = noise(4, 6)
    model = exported(Token(), x)
    encodings = encoded(model, [(x,)])
    made = both(model, encodings)
    assert made.file(x)[0].tobytes() == made.reference(x)[0].tobytes()
    assert made.target.read(made.path, made.artifact).digest == encodings.digest
