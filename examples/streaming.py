"""Spoken digits as they are heard: a job file for ``haversack pack``, with a GRU that trains itself first.

A step takes 144 ms of sound and the state that the step before has left, and gives scores and the next state: the
state is an input and an output, so that a device keeps it, and nothing is computed twice. Steps share 16 ms, which a
window of the front end needs. After packing, ``python examples/streaming.py OUT`` lets what ships hear whole recordings
step by step, on its own states, and tells how often it is right beside the network in PyTorch.

The recordings come from the folder that HAVERSACK_DATA names (fsdd), held back from training as in ``keywords.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import keywords
import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from training import fit

WEIGHTS = keywords.ROOT / "build" / "streaming" / "weights.safetensors"
FRAMES = 8
STEPS = 8
HOP, WINDOW, BANDS = 128, 256, 32
STATE = 96
CALIBRATING = 64
EPOCHS = 24
BATCH = 64

metric = "top1"
baseline = 0.9
input_names = ("features", "state")
output_names = ("scores", "next_state")
preprocess = keywords.preprocess

Step = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(features [1, 32, 8], state [1, 96]) -> (scores [1, 10], next state)."""


class Listener(nn.Module):
    """A step of a GRU over log-mel frames: what was heard so far is in the state, nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(BANDS, 64)
        self.memory = nn.GRU(64, STATE, batch_first=True)
        self.classify = nn.Linear(STATE, 10)
        with torch.no_grad():  # a gate that keeps the state at first: recordings end in silence, labels come after it
            self.memory.bias_ih_l0[STATE : 2 * STATE] = 2.0

    def forward(self, features: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (scores [n, 10], next state [n, 96]) for features [n, 32, frames] and a state [n, 96]."""
        frames = torch.relu(self.front(features.transpose(1, 2)))
        heard, state = self.memory(frames, state.unsqueeze(0))
        return self.classify(heard[:, -1]), state.squeeze(0)


class Whole(nn.Module):
    """All steps of a recording at once, from silence: what is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.step = Listener()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the scores [n, 10] after features [n, 32, frames]."""
        scores: torch.Tensor = self.step(features, features.new_zeros(len(features), STATE))[0]
        return scores


def model() -> nn.Module:
    """Return the trained step in eval mode, trained first where it has not been."""
    if not WEIGHTS.exists():
        train()
    network = Whole()
    network.load_state_dict(load_file(WEIGHTS))
    return network.step.eval()


def calibration() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (sound float32 [n, 1152], state float32 [n, 96]) of every step of recordings that were trained on."""
    recordings, _ = keywords.part(held=False)
    spread = recordings[:: max(1, len(recordings) // CALIBRATING)][:CALIBRATING]
    yield from _heard(spread)


def evaluation() -> Iterator[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """Yield ((sound, state), labels) of the last step of recordings that training has not heard."""
    recordings, labels = keywords.part(held=True)
    for start in range(0, len(recordings), BATCH):
        *_, last = _heard(recordings[start : start + BATCH])
        yield last, labels[start : start + BATCH]


def _heard(recordings: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the inputs of each step, with the states that the network in PyTorch leaves."""
    network = model()
    state = np.zeros((len(recordings), STATE), np.float32)
    for sound in _pieces(recordings):
        yield sound, state
        with torch.inference_mode():
            state = network(torch.from_numpy(_features(sound)), torch.from_numpy(state))[1].numpy()


def _pieces(recordings: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the sound of each step, float32 [n, 1152], silence at the end."""
    long = np.pad(recordings, ((0, 0), (0, STEPS * FRAMES * HOP + WINDOW - HOP - recordings.shape[1])))
    for step in range(STEPS):
        start = step * FRAMES * HOP
        yield np.ascontiguousarray(long[:, start : start + (FRAMES - 1) * HOP + WINDOW])


def _features(sound: np.ndarray) -> np.ndarray:
    """Return what the front end makes of sound: float32 [n, 32, frames]."""
    from haversack.tools.data.preprocess.pipeline import Pipeline

    return np.asarray(Pipeline.parse(preprocess)((sound,))[0])


def train() -> None:
    """Train from scratch, in about a minute on two cores, and keep the weights."""
    recordings, labels = keywords.part(held=False)
    features = np.concatenate([_features(sound) for sound in _pieces(recordings)], axis=2)
    torch.manual_seed(0)
    shift = partial(torch.roll, dims=2)
    fit(
        Whole(),
        torch.from_numpy(features),
        torch.from_numpy(labels),
        WEIGHTS,
        epochs=EPOCHS,
        rate=4e-3,
        change=lambda batch: shift(batch, int(torch.randint(-4, 5, ()))),
    )


def stream(out: Path, count: int = 300) -> dict[str, float]:
    """Let every runtime's artefact hear recordings step by step, and print how often it is right.

    Args:
        out: folder of a run.
        count: recordings, none of which training has heard.

    Returns:
        Who -> fraction that is right, of PyTorch and of each runtime.
    """
    recordings, labels = keywords.part(held=True)
    recordings, labels = recordings[:count], labels[:count]
    network = model()

    def of_pytorch(features: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            scores, after = network(torch.from_numpy(features), torch.from_numpy(state))
        return scores.numpy(), after.numpy()

    steps: dict[str, Step] = {"PyTorch": of_pytorch}
    steps |= {folder.name: _opened(folder) for folder in sorted((out / "best").iterdir())}
    found, right = {}, {}
    for name, step in steps.items():
        found[name] = np.array([_answer(step, one[None]) for one in recordings])
        right[name] = float((found[name] == labels).mean())
        same = float((found[name] == found["PyTorch"]).mean())
        sys.stdout.write(f"{name}: {right[name]:.1%} right, {same:.1%} as PyTorch ({len(labels)} recordings)\n")
    return right


def _answer(step: Step, recording: np.ndarray) -> int:
    """Return the digit that a recording [1, samples] is heard as."""
    state, scores = np.zeros((1, STATE), np.float32), np.zeros((1, 10), np.float32)
    for sound in _pieces(recording):
        scores, state = step(_features(sound), state)
    return int(scores.argmax())


def _opened(folder: Path) -> Step:
    """Return a step of a shipped artefact."""
    from haversack.targets.contract import SHELF

    about = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    session = SHELF.build(folder.name).open_session(folder / about["files"][0]["path"], about["session_options"])

    def step(features: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = session.run({"features": features, "state": state})
        return outputs["scores"], outputs["next_state"]

    return step


if __name__ == "__main__":
    if len(sys.argv) > 1:
        stream(Path(sys.argv[1]))
    else:
        model()
