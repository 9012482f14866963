"""The loss: the metric's, or the job's with its faults told at the user's line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from haversack.base.errors import JobError
from haversack.compress.finetune.losses import of_job, of_metric

SCORES = (torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True),)


def test_top1_is_trained_by_cross_entropy():
    wanted = torch.nn.functional.cross_entropy(SCORES[0], torch.tensor([0, 1]))
    assert of_metric("top1")(SCORES, np.array([0, 1], np.int32)).item() == wanted.item()


def test_squares_are_trained_by_themselves():
    found = of_metric("mean_squared_error")(SCORES, np.array([[1.0, 0.0], [0.0, 3.0]]))
    assert found.item() == pytest.approx((1 + 4) / 4)


@pytest.mark.parametrize("name", ["spearman", "perplexity", "f1", "agreement"])
def test_other_metrics_say_no_loss(name):
    assert of_metric(name) is None


def test_a_jobs_own_gets_a_tuple_and_a_tensor():
    def loss(outputs, expected):
        assert isinstance(outputs, tuple)
        return (outputs[0][:, 0] - expected).square().sum()

    assert of_job(loss)(SCORES, np.array([1.0, 2.0], np.float32)).item() == 5.0


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda outputs, expected: 1.0, "it returned float"),
        (lambda outputs, expected: outputs[0], r"the shape \(2, 2\)"),
        (lambda outputs, expected: outputs[0].detach().sum(), "depends on the outputs"),
        (lambda outputs, expected: outputs[1], "IndexError"),
    ],
    ids=["float", "many", "detached", "raises"],
)
def test_what_is_no_loss_is_told(loss, words):
    with pytest.raises(JobError, match=words):
        of_job(loss)(SCORES, np.array([0, 1]))
