"""Many samples in few calls give each sample its own rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haversack.base.errors import UsageError
from haversack.run import batching
from haversack.run.opening import load
from haversack.run.source import found


class Counted:
    """Doubles its input, row by row, and counts its calls; it takes a fixed number of rows, or any."""

    def __init__(self, rows=0):
        self.rows, self.given = rows, []

    def __call__(self, inputs):
        x = inputs["x"]
        assert not self.rows or len(x) == self.rows
        self.given.append(len(x))
        return {"y": 2 * x, "first": x.reshape(len(x), -1)[:, :1]}


samples = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.sampled_from([np.float32, np.int8])), min_size=1, max_size=9
)


@given(forms=samples, rows=st.integers(0, 3), most=st.integers(1, 5))
def test_each_gets_its_own(forms, rows, most):
    call = Counted(rows)
    fed, number = [], 0
    for count, width, dtype in forms:
        fed.append({"x": np.arange(number, number + count * width).reshape(count, width).astype(dtype)})
        number += count * width
    found = batching.many(call, fed, rows=rows, most=most)
    assert len(found) == len(fed)
    for sample, outputs in zip(fed, found, strict=True):
        np.testing.assert_array_equal(outputs["y"], 2 * sample["x"])
        np.testing.assert_array_equal(outputs["first"], sample["x"][:, :1])
        assert outputs["y"].dtype == sample["x"].dtype
    total = sum(count for count, _, _ in forms)
    assert max(call.given) <= (rows or most)
    groups = len({(width, dtype) for _, width, dtype in forms})
    assert len(call.given) <= total // (rows or most) + groups


def test_what_is_alike_goes_together():
    call = Counted()
    batching.many(call, [{"x": np.zeros((1, 2))}] * 5 + [{"x": np.zeros((1, 3))}])
    assert call.given == [5, 1]


def test_nothing_is_asked_of_nothing():
    call = Counted()
    assert batching.many(call, []) == []
    assert call.given == []


@pytest.mark.parametrize(
    "sample", [{}, {"x": np.zeros(())}, {"x": np.zeros((0, 2))}, {"x": np.zeros((1, 2)), "z": np.zeros((2, 2))}]
)
def test_samples_without_a_number_of_rows(sample):
    with pytest.raises(UsageError, match="a sample has one number of rows"):
        batching.many(Counted(), [sample])


@pytest.mark.parametrize("output", [np.zeros(()), np.zeros((3, 2))])
def test_outputs_that_belong_to_nobody(output):
    with pytest.raises(UsageError, match="it cannot be cut"):
        batching.many(lambda inputs: {"y": output}, [{"x": np.zeros((1, 2))}] * 2)


@pytest.mark.parametrize("target", ["onnxruntime", "litert"])
@pytest.mark.parametrize("most", [1, 3, 64])
def test_integers_are_the_same_bits_as_one_by_one(bundle, images, target, most):
    from haversack.run.loaded import Serving

    loaded = load(found(bundle, target), Serving(most_rows=most))
    together = loaded.answers([{"image": images[index : index + 1]} for index in range(16)])
    alone = [loaded.answers([{"image": images[index : index + 1]}])[0] for index in range(16)]
    for one, other in zip(together, alone, strict=True):
        assert one["scores"].shape == (1, 4)
        assert one["scores"].tobytes() == other["scores"].tobytes()
    loaded.retire()


def test_a_free_batch_is_one_call(bundle, images, monkeypatch):
    loaded, rows = load(found(bundle, "onnxruntime")), []
    session = loaded._pool.first
    run = session.run
    monkeypatch.setattr(session, "run", lambda inputs: rows.append(len(inputs["image"])) or run(inputs))
    loaded.answers([{"image": images[:2]}, {"image": images[2:3]}, {"image": images[3:7]}])
    assert rows == [7]
