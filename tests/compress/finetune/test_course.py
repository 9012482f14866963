"""Training: it learns, ends alike after an interruption, stops early, and says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from haversack.base.errors import JobError
from haversack.base.progress import silent
from haversack.compress.finetune import course as module
from haversack.compress.finetune.course import Course, mean_loss, train


class Killed(Exception):
    """Stands for kill -9: nothing of ours runs after it."""


def trained(tuned, lesson, loss, place, course, sink=silent, key="one"):
    return train(tuned, lesson[0], lesson[1], loss, course, place=place, key=key, sink=sink)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "training.safetensors"


@pytest.mark.parametrize("way", ["channels", "weights"])
def test_new_data_are_learnt(layers, lesson, loss, place, tuned, way):
    one = tuned(dict.fromkeys(layers, way))
    found = trained(one, lesson, loss, place, Course(epochs=4, rate=0.5))
    assert found.after < 0.7 * found.before
    assert mean_loss(one, lesson[1], loss) == pytest.approx(found.after, rel=1e-5)
    assert not place.exists()


def test_it_is_the_same_twice(layers, lesson, loss, place, tuned):
    first, second = (
        trained(tuned(dict.fromkeys(layers, "weights")), lesson, loss, place, Course(epochs=2)) for _ in range(2)
    )
    assert all((first.values[name] == second.values[name]).all() for name in first.values)


@pytest.mark.parametrize("step", [1, 7, 12, 13, 23])
def test_a_killed_training_ends_with_the_same_numbers(layers, lesson, loss, place, tuned, monkeypatch, step):
    monkeypatch.setattr(module, "KEPT_SECONDS", -1.0)
    ways, course = {layers[0]: "channels", layers[1]: "weights"}, Course(epochs=2)
    wanted = trained(tuned(ways), lesson, loss, place.with_name("other"), course)
    seen = []

    def killing(event):
        seen.append(event.done)
        if event.done == step:
            raise Killed

    with pytest.raises(Killed):
        trained(tuned(ways), lesson, loss, place, course, killing)
    again = []
    found = trained(tuned(ways), lesson, loss, place, course, lambda event: again.append(event.done))
    assert again[0] == step  # the step at which it was killed was not written down
    assert all((found.values[name] == wanted.values[name]).all() for name in wanted.values)
    assert (found.before, found.after) == (wanted.before, wanted.after)


def test_where_another_training_stood_is_not_gone_on_with(layers, lesson, loss, place, tuned, monkeypatch):
    monkeypatch.setattr(module, "KEPT_SECONDS", -1.0)

    def killing(event):
        if event.done == 5:
            raise Killed

    with pytest.raises(Killed):
        trained(tuned({layers[0]: "weights"}), lesson, loss, place, Course(epochs=1), killing)
    assert place.exists()
    begun = []
    trained(tuned({layers[0]: "weights"}), lesson, loss, place, Course(epochs=1),
            lambda event: begun.append(event.done), key="other")  # fmt: skip
    assert begun[0] == 1


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_spoiled_file_is_not_gone_on_with(layers, lesson, loss, place, tuned, content):
    place.write_bytes(content)
    begun = []
    trained(tuned({layers[0]: "weights"}), lesson, loss, place, Course(epochs=1), lambda e: begun.append(e.done))
    assert begun[0] == 1


def test_without_a_gain_it_ends_early_and_leaves_the_release(released, layers, lesson, loss, place, tuned):
    one = tuned(dict.fromkeys(layers, "weights"))
    steps = []
    course = Course(epochs=9, patience=2)
    found = trained(one, lesson, lambda *given: 1 + 0 * loss(*given), place, course, lambda e: steps.append(e.done))
    assert found.epochs == 2
    assert steps[-1] == 2 * len(lesson[0])
    _, encodings = one.hardened()
    assert all((encodings.integers[key] == value).all() for key, value in released.encodings.integers.items())


def test_a_loss_that_is_not_finite_is_told(layers, lesson, loss, place, tuned):
    with pytest.raises(JobError, match="not finite"):
        trained(tuned({layers[0]: "weights"}), lesson, lambda *given: loss(*given) * float("nan"), place, Course())

    def later(outputs, expected):
        return loss(outputs, expected) * (float("inf") if torch.is_grad_enabled() and len(expected) == 16 else 1)

    with pytest.raises(JobError, match="not finite"):
        trained(tuned({layers[0]: "weights"}), lesson, later, place, Course())


def test_the_mean_loss_counts_rows(layers, lesson, loss, tuned):
    one = tuned({layers[0]: "weights"})
    (inputs,), expected = lesson[1][0]
    uneven = [((inputs[:10],), expected[:10]), ((inputs[10:],), expected[10:])]
    assert mean_loss(one, uneven, loss) == pytest.approx(mean_loss(one, lesson[1], loss), rel=1e-5)
    assert np.isfinite(mean_loss(one, uneven, loss))
