"""Answers, batches and caches against plain models: ties, odd shapes, misuse, and what each error says to do next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haversack.base.errors import UsageError
from haversack.run.answer import Answer, Scored
from haversack.run.batching import many


def answer(labels=(), **outputs):
    return Answer({name: np.asarray(array) for name, array in outputs.items()}, "1.0.0", tuple(labels))


@settings(max_examples=40)
@given(
    st.integers(1, 5).flatmap(
        lambda classes: st.lists(
            st.lists(st.integers(-3, 3), min_size=classes, max_size=classes), min_size=1, max_size=4
        )
    ),
    st.integers(1, 7),
    st.sampled_from(["int8", "uint8", "float32", "float64"]),
)
def test_the_best_are_sorted_by_score_and_then_by_number(rows, count, dtype):
    scores = np.array(rows).astype(dtype)
    found = answer(y=scores).top(count)
    for row, best in zip(scores.tolist(), found, strict=True):
        order = sorted(range(len(row)), key=lambda index: (-row[index], index))[:count]
        assert best == tuple(Scored(str(index), index, float(row[index])) for index in order)


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_are_none(count):
    with pytest.raises(UsageError, match=f"the best {count} classes are none") as caught:
        answer(y=[[1.0, 2.0]]).top(count)
    assert (caught.value.where, caught.value.exit_code) == ("top", 2)


@pytest.mark.parametrize(
    "outputs, labels, cause, step",
    [
        ({"y": [1.0, 2.0]}, (), "0 outputs", "look at the arrays: y"),
        ({"y": [[[1.0]]]}, (), "0 outputs", "look at the arrays: y"),
        ({"y": [[1.0, 2.0]]}, ("one", "two", "three"), "0 outputs", "look at the arrays: y"),
        ({"y": [[True, False]]}, (), "0 outputs", "look at the arrays: y"),
        ({"y": [["a", "b"]]}, (), "0 outputs", "look at the arrays: y"),
        ({"y": [[1.0]], "z": [[2.0]]}, (), "2 outputs", "name one: y, z"),
    ],
)
def test_what_has_no_scores_of_classes(outputs, labels, cause, step):
    found = answer(labels, **outputs)
    assert not found.classified
    with pytest.raises(UsageError, match=f"{cause} can be scores of classes") as caught:
        found.top()
    assert caught.value.next_step == step


def test_one_of_several_is_chosen_by_its_name_or_by_the_labels():
    found = answer(("no", "yes"), boxes=[[1.0, 2.0, 3.0, 4.0]], y=[[0.25, 0.75]])
    assert found.classified
    assert found.top(1) == found.top(1, "y") == [(Scored("yes", 1, 0.75),)]
    for name in ("boxes", "none"):
        with pytest.raises(UsageError, match=f"'{name}' has no scores") as caught:
            found.top(1, name)
        assert caught.value.next_step == "ask for y"


def test_an_answer_is_a_mapping_and_an_array_where_it_can_be():
    one, two = answer(y=[[1.0, 2.0]]), answer(y=[1.0], z=[2.0])
    assert np.asarray(one, np.float32).dtype == np.float32
    assert ([*two], len(two), "y" in two, "x" in two) == (["y", "z"], 2, True, False)
    for act in (lambda: two.array, lambda: np.asarray(two), lambda: two["x"]):
        with pytest.raises(UsageError) as caught:
            act()
        assert caught.value.next_step in {"ask for one by name: y, z", "ask for y, z"}


@settings(max_examples=50)
@given(
    counts=st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from([(2,), (3,)]), st.sampled_from(["f4", "i8"])), max_size=8
    ),
    rows=st.integers(0, 5),
    most=st.integers(1, 6),
)
def test_many_calls_are_those_of_one_by_one_within_bounds(counts, rows, most):
    """Each row is numbered; the model sees its rows, no call is too large, and nothing is asked twice needlessly."""
    begin, samples, seen = 0, [], []
    for count, shape, dtype in counts:
        numbers = np.arange(begin, begin + count).astype(dtype)
        samples.append({"x": np.repeat(numbers[:, None], shape[0], 1), "n": numbers})
        begin += count

    def call(inputs):
        seen.append(inputs)
        return {"y": inputs["x"].sum(1) + inputs["n"]}

    found = many(call, samples, rows=rows, most=most)
    for sample, got in zip(samples, found, strict=True):
        assert np.array_equal(got["y"], sample["x"].sum(1) + sample["n"])
        assert got["y"].dtype == (sample["x"].sum(1) + sample["n"]).dtype
    sizes = [len(one["x"]) for one in seen]
    assert all(size == rows if rows else size <= most for size in sizes)
    groups = {}
    for sample in samples:
        groups.setdefault((sample["x"].shape[1:], sample["x"].dtype), []).append(len(sample["x"]))
    assert len(seen) == sum(-(-sum(group) // (rows or most)) for group in groups.values())
