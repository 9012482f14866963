from __future__ import annotations

import weakref

import numpy as np
import pytest

from haversack.base.encodings import Affine, Dynamic, Encodings, Float
from haversack.tools.numerics.affine import dequantize, from_range, quantize, symmetric


@pytest.fixture(scope="module")
def net():
    import torch
    from torch import nn

    from haversack.tools.graph.canonical import to_model

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 6)
            self.second = nn.Linear(6, 3)

        def forward(self, x):
            h = torch.relu(self.first(x))
            return self.second(h), h.sum(dim=1)

    torch.manual_seed(0)
    module = Net().eval()
    program = torch.export.export(module, (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    return to_model(program, "net")


FIRST, SECOND, RELU = "first:linear#0", "second:linear#0", ":relu#0"


def weights(model, node):
    path = node.partition(":")[0]
    return model.weights[f"{path}.weight"], model.weights[f"{path}.bias"]


def oracle(model, x, *, first=None, second=None, hidden=None, dynamic=False):
    """The same in NumPy."""
    (w1, b1), (w2, b2) = weights(model, FIRST), weights(model, SECOND)
    h = np.maximum(x @ (w1 if first is None else first).T + b1, 0)
    h = h if hidden is None else dequantize(quantize(h, hidden), hidden)
    total = h.sum(axis=1)
    if dynamic:
        encoding = from_range(float(h.min()), float(h.max()))
        h = dequantize(quantize(h, encoding), encoding)
    return h @ (w2 if second is None else second).T + b2, total


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def stored(weight):
    encoding = symmetric(np.abs(weight).max(axis=1) / np.float32(127), 8, 0)
    return encoding, quantize(weight, encoding)


def test_without_encodings_it_is_the_float_model(net, x):
    from haversack.tools.graph.execute import Executor
    from haversack.tools.graph.simulate import Simulator

    made = Simulator(net).run(Encodings.none(), [(x,), (x[:2],)])
    assert [len(outputs) for outputs in made] == [2, 2]
    for outputs, batch in zip(made, (x, x[:2]), strict=True):
        for mine, theirs in zip(outputs, Executor(net).run((batch,)), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_rounded_activation_is_rounded_for_all_readers(net, x):
    from haversack.tools.graph.simulate import Simulator

    hidden = from_range(0.0, 0.7)  # saturates
    made = Simulator(net).run(Encodings({f"{RELU}:out": hidden}), [(x,)])[0]
    for mine, theirs in zip(made, oracle(net, x, hidden=hidden), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert not np.allclose(made[1], oracle(net, x)[1])


def test_a_stored_weight_replaces_the_models(net, x):
    from haversack.tools.graph.simulate import Simulator

    encoding, codes = stored(weights(net, FIRST)[0])
    tensors = {f"{FIRST}:weight": encoding}
    made = Simulator(net).run(Encodings(tensors, {f"{FIRST}:weight": codes}), [(x,)])[0]
    for mine, theirs in zip(made, oracle(net, x, first=dequantize(codes, encoding)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_float16_rounds_the_weight(net, x):
    from haversack.tools.graph.simulate import Simulator

    half = weights(net, SECOND)[0].astype(np.float16).astype(np.float32)
    made = Simulator(net).run(Encodings({f"{SECOND}:weight": Float("float16")}), [(x,)])[0]
    np.testing.assert_allclose(made[0], oracle(net, x, second=half)[0], rtol=1e-6, atol=1e-7)


def test_dynamic_rounds_for_its_own_reader_only(net, x):
    from haversack.tools.graph.simulate import Simulator

    encoding, codes = stored(weights(net, SECOND)[0])
    encodings = Encodings({f"{SECOND}:weight": encoding, f"{SECOND}:in": Dynamic()}, {f"{SECOND}:weight": codes})
    made = Simulator(net).run(encodings, [(x,)])[0]
    want = oracle(net, x, second=dequantize(codes, encoding), dynamic=True)
    np.testing.assert_allclose(made[0], want[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made[1], oracle(net, x)[1], rtol=1e-6)


def test_a_signed_encoding_of_another_width(net, x):
    from haversack.tools.graph.simulate import Simulator

    hidden = Affine(4, True, None, np.array(0.25, np.float32), np.array(0, np.int32))
    made = Simulator(net).run(Encodings({f"{RELU}:out": hidden}), [(x,)])[0]
    np.testing.assert_allclose(made[1], oracle(net, x, hidden=hidden)[1], rtol=1e-5)


def test_arrive_sees_every_batch_before_the_layer_and_may_change_its_bias(net, x):
    from haversack.tools.graph.simulate import Mended, Simulator

    seen = {}

    def arrive(node, arrival):
        seen[node.key] = [tuple(value.shape) for value in arrival.inputs]
        assert arrival.exact is None
        return Mended(bias=np.full(3, 2.0)) if node.key == SECOND else None

    made = Simulator(net).run(Encodings.none(), [(x,), (x[:1],)], arrive=arrive)
    assert seen == {FIRST: [(5, 4), (1, 4)], SECOND: [(5, 6), (1, 6)]}
    bias = weights(net, SECOND)[1]
    np.testing.assert_allclose(made[0][0], oracle(net, x)[0] - bias + 2.0, rtol=1e-5, atol=1e-6)


def test_a_run_beside_shows_what_would_arrive_under_its_own_encodings(net, x):
    """The second layer is mended away: what arrives there beside is the float model's hidden value all the same."""
    from haversack.tools.graph.simulate import Mended, Simulator

    seen = {}

    def arrive(node, arrival):
        seen[node.key] = [np.concatenate([value.numpy() for value in each]) for each in arrival.both()]
        return Mended(bias=np.full(6, -100.0)) if node.key == FIRST else None

    Simulator(net).run(Encodings.none(), [(x,), (x[:1],)], arrive=arrive, beside=Encodings.none())
    np.testing.assert_array_equal(seen[FIRST][0], seen[FIRST][1])
    assert (seen[SECOND][0] <= 0).all()
    weight, bias = weights(net, FIRST)
    hidden = np.maximum(x @ weight.T + bias, 0)
    np.testing.assert_allclose(seen[SECOND][1], np.concatenate([hidden, hidden[:1]]), rtol=1e-5, atol=1e-6)


def test_batches_that_join_see_what_was_mended_before_and_arrive_from_there_on(net, x):
    from haversack.tools.graph.simulate import Mended, Simulator

    more, read, seen = x * 0.5, [], {}

    def join():
        read.append(SECOND)
        yield (more,)

    def arrive(node, arrival):
        seen[node.key] = [tuple(np.concatenate([value.numpy() for value in each]).shape) for each in arrival.both()]
        if node.key == SECOND:
            seen["made"], seen["beside"] = ([value.numpy() for value in each][1] for each in arrival.both())
        return Mended(bias=np.full(6, 0.25)) if node.key == FIRST else None

    found = Simulator(net).run(Encodings.none(), [(x,)], arrive=arrive, beside=Encodings.none(), joins={SECOND: join})
    weight, bias = weights(net, FIRST)
    assert (read, seen[FIRST], seen[SECOND]) == ([SECOND], [(5, 4)] * 2, [(10, 6)] * 2)
    np.testing.assert_allclose(seen["made"], np.maximum(more @ weight.T + 0.25, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen["beside"], np.maximum(more @ weight.T + bias, 0), rtol=1e-5, atol=1e-6)
    second, shift = weights(net, SECOND)
    np.testing.assert_allclose(found[1][0], seen["made"] @ second.T + shift, rtol=1e-5, atol=1e-6)
    assert len(found) == 2


def test_batches_are_let_go_of_once_they_are_read(net, x):
    """What is held of a batch is what is alive of it: inputs of hundreds of samples would be all of memory."""
    from haversack.tools.graph.simulate import Simulator

    born, alive = [], []

    def join():
        for _ in range(3):
            array = x.copy()
            born.append(weakref.ref(array))
            yield (array,)
            del array

    def arrive(node, _):
        alive.append((node.key, sum(one() is not None for one in born)))

    Simulator(net).run(Encodings.none(), [(x,)], arrive=arrive, beside=Encodings.none(), joins={SECOND: join})
    assert alive[0] == (FIRST, 0)
    assert alive[1][1] <= 1  # the one that was read last


def test_read_only_inputs_and_an_argument_named_as_a_builtin():
    import torch
    from torch import nn

    from haversack.tools.graph.canonical import to_model
    from haversack.tools.graph.simulate import Simulator

    class Named(nn.Module):
        def forward(self, input):  # noqa: A002 - the name is the test
            return torch.relu(input) + 1

    model = to_model(torch.export.export(Named(), (torch.zeros(2, 3),)), "named")
    value = np.array([[-1.0, 0.3, 9.0]] * 2, np.float32)
    value.setflags(write=False)
    made = Simulator(model).run(Encodings({"input:input#0:out": from_range(0.0, 1.0)}), [(value,)])[0][0]
    np.testing.assert_allclose(made[0], [1.0, 1.3, 2.0], atol=1 / 255)


def test_two_models_of_one_program_do_not_write_into_each_other(net, x):
    from haversack.tools.graph.execute import Executor

    other = net.with_weights({"second.bias": net.weights["second.bias"] + 5})
    mine = Executor(net)
    theirs = Executor(other)
    np.testing.assert_allclose(theirs.run((x,))[0], mine.run((x,))[0] + 5, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mine.run((x,))[0], oracle(net, x)[0], rtol=1e-5, atol=1e-6)
