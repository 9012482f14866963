"""Transformers: free lengths become signatures, shorter inputs are filled up, and tables and layers store integers."""

from __future__ import annotations

import numpy as np
import pytest

from haversack.base.encodings import Affine, Dynamic
from haversack.base.errors import UsageError
from haversack.targets.litert import LiteRT
from haversack.targets.litert.unflat import guarded

LENGTHS = LiteRT(lengths=(4, 8))
NAMES = ("ids", "mask")


@pytest.fixture(scope="module")
def encoder(exported):
    """A transformer of one layer with a mask and mean pooling; the other gives a vector for each token."""
    import torch
    from torch import nn

    torch.manual_seed(1)

    class Encoder(nn.Module):
        def __init__(self, tokens):
            super().__init__()
            self.tokens = tokens
            self.table, self.place = nn.Embedding(30, 12), nn.Embedding(16, 12)
            self.query, self.key, self.value = (nn.Linear(12, 12) for _ in range(3))
            self.out, self.norm = nn.Linear(12, 12), nn.LayerNorm(12)
            self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
            self.register_buffer("places", torch.arange(16)[None])

        def heads(self, x):
            return x.view(x.shape[0], x.shape[1], 3, 4).transpose(1, 2)

        def forward(self, ids, mask):
            x = self.table(ids) + self.place(self.places[:, : ids.shape[1]])
            scores = self.heads(self.query(x)) @ self.heads(self.key(x)).transpose(-1, -2) / 2.0
            scores = scores.masked_fill(mask[:, None, None, :] == 0, -1e9)
            seen = (torch.softmax(scores, -1) @ self.heads(self.value(x))).transpose(1, 2).flatten(2)
            x = self.norm(x + self.out(seen))
            x = x + self.down(nn.functional.gelu(self.up(x)))
            if self.tokens:
                return x
            weight = mask.unsqueeze(-1).to(x.dtype)
            return (x * weight).sum(1) / weight.sum(1).clamp(min=1e-9)

    ids, mask = np.ones((3, 5), np.int64), np.ones((3, 5), np.int64)
    return {
        tokens: exported(Encoder(tokens), ids, mask, free=(0, 1), names=NAMES, outputs=("found",))
        for tokens in (False, True)
    }


def words(rows, length, blank=0):
    rng = np.random.default_rng(length)
    mask = np.ones((rows, length), np.int64)
    if blank:
        mask[-1, -blank:] = 0
    return rng.integers(0, 30, (rows, length)), mask


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("length", [1, 3, 4, 5, 8])
def test_any_length_up_to_the_longest(encoder, both, tokens, length):
    made = both(encoder[tokens], target=LENGTHS)
    sample = words(3, length, blank=length // 2)
    found, wanted = made.file(*sample)[0], made.reference(*sample)[0]
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_what_is_too_long_is_refused(encoder, both):
    made = both(encoder[False], target=LENGTHS)
    with pytest.raises(UsageError, match="do not fit"):
        made.file(*words(1, 9))


def test_inputs_of_different_lengths_are_refused_or_told(encoder, both):
    made = both(encoder[False], target=LENGTHS)
    with pytest.raises(UsageError):
        made.session.run({"ids": words(1, 4)[0], "mask": words(2, 4)[1]})


def test_the_smallest_signature_that_fits_is_taken(encoder, both):
    made = both(encoder[False], target=LENGTHS)
    chosen = {n: made.session.signature(dict(zip(NAMES, words(2, n), strict=True))) for n in (1, 4, 5, 8)}
    assert chosen == {
        1: "serving_default",
        4: "serving_default",
        5: "batch1_length8",
        8: "batch1_length8",
    }


def test_ports_say_that_lengths_are_free(encoder, both):
    made = both(encoder[True], target=LENGTHS)
    assert [port.spec.shape for port in made.artifact.inputs] == [(1, "length"), (1, "length")]
    assert [port.spec.shape for port in made.artifact.outputs] == [(1, "length", 12)]
    assert [port.spec.dtype for port in made.artifact.inputs] == ["int64", "int64"]


def test_one_length_pads_as_well(encoder, both):
    made = both(encoder[False], target=LiteRT(lengths=(6,)))
    sample = words(2, 4, blank=1)
    np.testing.assert_allclose(made.file(*sample)[0], made.reference(*sample)[0], rtol=2e-5, atol=2e-6)


def test_signatures_share_their_weights(encoder, both):
    one, two = (both(encoder[False], target=LiteRT(lengths=n)) for n in ((8,), (4, 8)))
    weights = sum(value.nbytes for value in encoder[False].weights.values())
    assert two.artifact.bytes - one.artifact.bytes < 0.8 * one.artifact.bytes
    buffers = guarded(two.path, lambda file: sum(map(len, file.buffers)))
    assert buffers < 1.2 * weights


@pytest.mark.parametrize("precision", ["int8_weights", "int8_dynamic", "float16"])
def test_stored_weights(encoder, both, encoded, precision):
    model = encoder[False]
    encodings = encoded(model, [], precision)
    made = both(model, encodings, LENGTHS)
    assert made.artifact.injected == made.artifact.read_back
    assert made.target.read(made.path, made.artifact).digest == encodings.digest
    for length in (3, 7):
        sample = words(3, length, blank=1)
        found, wanted = made.file(*sample)[0], made.reference(*sample)[0]
        error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
        assert error < (0.02 if precision == "int8_dynamic" else 1e-5)
    kinds = {type(encoding) for encoding in encodings.tensors.values()}
    assert (Dynamic in kinds) == (precision == "int8_dynamic")
    assert (Affine in kinds) == precision.startswith("int8")


def test_integers_are_a_quarter_of_the_size(encoder, both, encoded):
    model = encoder[False]
    exact, small = (both(model, e, LiteRT(lengths=(8,))) for e in (None, encoded(model, [], "int8_dynamic")))
    sizes = [guarded(made.path, lambda file: sum(map(len, file.buffers))) for made in (exact, small)]
    assert sizes[1] < 0.45 * sizes[0]


def test_the_attention_moves_no_more_than_the_model_asks_for(encoder, both):
    made = both(encoder[False], target=LENGTHS)
    assert made.target.findings(made.path, made.artifact) == ()


def test_tensors_of_a_fitting_signature(encoder, both):
    made = both(encoder[True], target=LENGTHS)
    sample = words(1, 8)
    keys = ["table:embedding#0:out", "norm:layer_norm#0:out", "up:linear#0:out"]
    found = made.target.tensors(made.path, made.artifact, sample, keys)
    assert {key: array.shape for key, array in found.items()} == {
        keys[0]: (1, 8, 12),
        keys[1]: (1, 8, 12),
        keys[2]: (1, 8, 24),
    }
    table = encoder[True].weights["table.weight"]
    np.testing.assert_array_equal(found[keys[0]][0], table[sample[0][0]])
    seconds = made.target.layer_seconds(made.path, made.artifact, sample, 3)
    assert {"up:linear#0", "norm:layer_norm#0", "table:embedding#0"} <= set(seconds)
