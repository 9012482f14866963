"""Parity on a real network: its own reference is exact, and each number is checked against a plain formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from haversack.base.encodings import Dynamic, Encodings
from haversack.base.errors import JobError, VerificationError
from haversack.targets.reference import Reference
from haversack.tools.graph.execute import Executor
from haversack.verify import compare
from haversack.verify.bits import differing_bits


@pytest.fixture(scope="module")
def reference(network, coded):
    return Reference().opened(network, coded)


def test_the_reference_equals_itself(network, coded, batch, reference):
    parity = compare(network, coded, reference.run, [batch, batch])
    assert (parity.reference_differing, parity.reference_compared) == (0, 2 * 6 * 5)
    got, exact = reference.run(batch)[0], Executor(network).run(batch)[0]
    assert parity.relative_error == pytest.approx(np.linalg.norm(got - exact) / np.linalg.norm(exact))
    assert parity.agreement == np.mean(got.argmax(1) == exact.argmax(1))
    assert 0 < parity.relative_error < 0.2


def test_every_differing_value_is_counted(network, coded, batch, reference):
    def wrong(sample):
        found = reference.run(sample)[0].copy()
        found[0, :3] = np.nextafter(found[0, :3], np.float32(np.inf))  # one bit
        return (found,)

    parity = compare(network, coded, wrong, [batch, batch])
    assert (parity.reference_differing, parity.reference_compared) == (6, 60)


@pytest.mark.parametrize("limit, compared", [(0, 0), (4, 4), (6, 6), (8, 8), (100, 12)])
def test_at_most_so_many_rows_are_compared(network, coded, batch, reference, limit, compared):
    parity = compare(network, coded, reference.run, [batch, batch], reference_samples=limit, layer_samples=0)
    assert parity.reference_compared == compared * 5
    assert parity.reference_differing == (0 if compared else -1)
    assert parity.layers == {}


def test_a_batch_that_cannot_be_cut_is_left_out(network, coded, batch):
    layer = network.graph.nodes[-1].key
    tensors = {key: value for key, value in coded.tensors.items() if not key.startswith(layer)}
    dynamic = Encodings(
        {**tensors, f"{layer}:weight": coded.tensors[f"{layer}:weight"], f"{layer}:in": Dynamic()}, coded.integers
    )
    run = Reference().opened(network, dynamic).run
    small = tuple(array[:2] for array in batch)
    parity = compare(network, dynamic, run, [batch, small], reference_samples=4)
    assert (parity.reference_differing, parity.reference_compared) == (0, 2 * 5)
    assert parity.layers


def test_layers_are_the_relative_errors_of_their_tensors(network, coded, batch, reference):
    parity = compare(network, coded, reference.run, [batch, batch], layer_samples=9)
    rows = tuple(np.concatenate([array, array[:3]]) for array in batch)
    exact, got = {}, {}
    Executor(network).run(rows, observe=lambda node, value: exact.update({node.out: value.numpy().copy()}))
    Reference(at_once=0).run(network, coded, rows, observe=lambda key, value: got.update({key: value.copy()}))
    assert "7:flatten#0:out" in got  # only moved: its error is its source's
    assert set(parity.layers) == set(got) - {"7:flatten#0:out"}
    for key, error in parity.layers.items():
        expected = np.linalg.norm((got[key] - exact[key]).ravel()) / np.linalg.norm(exact[key].ravel())
        assert error == pytest.approx(expected, rel=1e-5)
    assert list(parity.layers.values()) == sorted(parity.layers.values(), reverse=True)
    assert parity.worst_layer == next(iter(parity.layers))
    assert "0:conv2d#0:out" not in parity.layers  # hidden by the relu fused behind it


def test_layers_may_be_compared_with_the_model_before_it_was_prepared(network, coded, batch):
    """A corrected bias is no error of the layer: against the uncorrected float model it shows, as it should."""
    bias = network.graph.by_key["8:linear#0"].bias
    moved = network.with_weights({bias: network.weights[bias] + np.float32(0.5)})
    run = Reference().opened(moved, coded).run
    with_itself = compare(moved, coded, run, [batch])
    with_first = compare(moved, coded, run, [batch], float_model=network)
    assert with_first.layers["8:linear#0:out"] > 2 * with_itself.layers["8:linear#0:out"]
    assert with_first.layers["3:relu#0:out"] == with_itself.layers["3:relu#0:out"]
    assert with_first.relative_error > 2 * with_itself.relative_error
    assert with_first.reference_differing == with_itself.reference_differing == 0


def test_samples_are_a_stream(network, coded, batch, reference):
    parity = compare(network, coded, reference.run, (batch for _ in range(3)))
    assert parity.reference_compared == 3 * 6 * 5


@pytest.mark.parametrize("cut", [(6,), (1, 5), (3, 3), (2, 1, 3)])
def test_the_error_on_the_rows_that_choose_knows_nothing_of_the_others(network, batch, cut):
    """However the rows fall into batches; an error on the others shows in the whole alone."""
    exact = Executor(network)

    def run(spoiled):
        def predict(sample):
            (found,) = exact.run(sample)
            places = [int(np.flatnonzero((batch[0] == row).all((1, 2, 3)))[0]) for row in sample[0]]
            return (found * np.array([2.0 if place in spoiled else 1.0 for place in places], np.float32)[:, None],)

        return predict

    samples = [(part,) for part in np.split(batch[0], np.cumsum(cut)[:-1])]
    odd, even = (compare(network, Encodings(), run(one), samples, choosing=slice(0, None, 2)) for one in ((1, 5), (4,)))
    assert odd.choosing_error == odd.ranking_error == 0.0 < odd.relative_error
    (outputs,) = exact.run(batch)
    wanted = np.linalg.norm(outputs[4]) / np.linalg.norm(outputs[::2])
    assert even.ranking_error == pytest.approx(wanted, rel=1e-5)
    assert compare(network, Encodings(), run((1,)), samples).choosing_error == -1.0


def test_float_outputs_may_be_given(network, coded, batch, reference):
    parity = compare(network, coded, reference.run, [batch], float_predict=reference.run)
    assert parity.relative_error == 0.0
    assert parity.agreement == 1.0


@pytest.mark.parametrize(
    "shape, agreement", [((6, 4), 0.5), ((6, 1), math.nan), ((6,), math.nan), ((6, 2, 2), math.nan)]
)
def test_agreement_needs_classes(network, batch, shape, agreement):
    exact = np.zeros(shape, np.float32)
    exact.reshape(6, -1)[:, 0] = 1
    got = exact.copy()
    got.reshape(6, -1)[:3, -1] = 2
    parity = compare(
        network, Encodings.none(), lambda _: (got,), [batch], float_predict=lambda _: (exact,), reference_samples=0
    )
    assert parity.agreement == pytest.approx(agreement, nan_ok=True)


def test_the_float_model_needs_no_encodings(network, batch):
    exact = Executor(network)
    parity = compare(network, Encodings.none(), exact.run, [batch], reference=Reference(at_once=0))
    assert (parity.relative_error, parity.agreement, parity.reference_differing) == (0.0, 1.0, 0)
    assert parity.layers == {}


def test_nan_is_not_hidden(network, coded, batch, reference):
    def broken(sample):
        found = reference.run(sample)[0].copy()
        found[1, 1] = np.nan
        return (found,)

    parity = compare(network, coded, broken, [batch])
    assert math.isnan(parity.relative_error)
    assert parity.reference_differing == 1


def test_outputs_of_another_shape(network, coded, batch, reference):
    with pytest.raises(VerificationError, match=r"\(6, 4\)"):
        compare(network, coded, lambda sample: (reference.run(sample)[0][:, :4],), [batch])
    with pytest.raises(VerificationError, match="shapes"):
        compare(network, coded, lambda sample: reference.run(sample) * 2, [batch])


def test_no_samples(network, coded, reference):
    with pytest.raises(JobError, match="no samples"):
        compare(network, coded, reference.run, [])


@pytest.mark.parametrize(
    "one, other, count",
    [
        (np.float32([0.0, 1.0]), np.float32([-0.0, 1.0]), 1),
        (np.float32([np.nan]), np.float32([np.nan]), 0),
        (np.float32([1.0]), np.float64([1.0]), 1),
        (np.array([1, 2]), np.array([1, 3]), 1),
        (np.float32([[1, 2], [3, 4]]).T, np.float32([[1, 3], [2, 4]]), 0),
    ],
)
def test_bits(one, other, count):
    assert differing_bits(one, other) == count


def test_the_reference_s_own_error_and_the_distance_from_it(network, coded, batch, reference):
    meant, exact = reference.run(batch)[0], Executor(network).run(batch)[0]
    own = compare(network, coded, reference.run, [batch])
    assert own.reference_error == pytest.approx(np.linalg.norm(meant - exact) / np.linalg.norm(exact))
    assert own.reference_distance == 0.0
    parity = compare(network, coded, lambda sample: (meant * np.float32(3.0),), [batch])
    assert parity.reference_error == own.reference_error  # whatever the artefact does
    assert parity.reference_distance == pytest.approx(2.0)
    none = compare(network, coded, reference.run, [batch], reference_samples=0)
    assert (none.reference_error, none.reference_distance) == (-1.0, -1.0)


def test_the_rows_that_leave_the_reference_furthest_are_told(network, coded, batch, reference):
    def wrong(sample):
        found = reference.run(sample)[0].copy()
        for row in range(len(found)):
            found[row] += np.float32(sample[0][row, 0, 0, 0] == batch[0][1, 0, 0, 0])
            found[row] += np.float32(3 * (sample[0][row, 0, 0, 0] == batch[0][4, 0, 0, 0]))
            found[row] += np.float32(2 * (sample[0][row, 0, 0, 0] == batch[0][5, 0, 0, 0]))
        return (found,)

    told = []
    compare(network, coded, wrong, [tuple(each[:3] for each in batch), tuple(each[3:] for each in batch)],
            furthest=told.append)  # fmt: skip
    assert len(told) == 2
    for sample, row in zip(told, (4, 5), strict=True):
        np.testing.assert_array_equal(sample[0], batch[0][row : row + 1])
    told.clear()
    compare(network, coded, reference.run, [batch], furthest=told.append)
    assert told == []


class TwoOutputs:
    """A model in name: what is compared is what the predictors give."""

    name, graph = "two", None


def test_indices_are_no_part_of_the_relative_error():
    scores = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)
    ids = np.array([[1, 9000], [0, 4]], np.int64)
    sample = (np.zeros((2, 1), np.float32),)
    settings = {"reference_samples": 0, "layer_samples": 0}
    parity = compare(
        TwoOutputs, Encodings({}), lambda _: (scores, ids * 0), [sample],
        float_predict=lambda _: (scores * 2, ids), **settings,
    )  # fmt: skip
    assert parity.relative_error == pytest.approx(0.5)
    assert parity.agreement == 1.0
    only = compare(
        TwoOutputs, Encodings({}), lambda _: (ids * 2,), [sample], float_predict=lambda _: (ids,), **settings
    )
    assert only.relative_error == pytest.approx(1.0)


def test_each_float_output_counts_by_its_own_size():
    scores = np.array([[1.0, 2.0], [3.0, 1.0]], np.float32)
    boxes = np.array([[400.0, 100.0], [0.0, 300.0]], np.float32)
    parity = compare(
        TwoOutputs, Encodings({}), lambda _: (scores * 0, boxes), [(np.zeros((2, 1), np.float32),)],
        float_predict=lambda _: (scores, boxes), reference_samples=0, layer_samples=0,
    )  # fmt: skip
    assert parity.relative_error == pytest.approx(0.5**0.5)
