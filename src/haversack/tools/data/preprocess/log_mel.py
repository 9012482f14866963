"""Log-mel spectrogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from haversack.tools.data.preprocess.contract import Operation


@dataclass(frozen=True)
class LogMel(Operation):
    """Log-mel spectrogram of mono audio: float32 [n, samples] to float32 [n, bands, 1 + (samples - window) // hop].

    Frames without padding, a periodic Hann window, the power of the real FFT, triangular mel filters, the natural
    logarithm of what is above ``floor``. Computed in float64.

    Attributes:
        rate: samples a second.
        window, hop: of a frame, in samples.
        fft: length of the transform, at least ``window`` (zeros are added).
        bands: number of mel bands.
        low, high: edges of the lowest and highest band in Hz; a high of 0 is half the rate.
        mel: ``htk`` (2595 log10(1 + f / 700), filters of height 1) or ``slaney`` (linear below 1 kHz, filters of area
            1: Slaney, Auditory Toolbox, 1998).
        floor: the smallest power that is told from silence.
    """

    rate: int = 16000
    window: int = 400
    hop: int = 160
    fft: int = 512
    bands: int = 40
    low: float = 0.0
    high: float = 0.0
    mel: Literal["htk", "slaney"] = "htk"
    floor: float = 1e-10

    ranks: ClassVar[tuple[int, ...]] = (2,)
    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def __post_init__(self) -> None:
        if min(self.rate, self.window, self.hop, self.bands) < 1 or self.fft < self.window:
            raise ValueError("rate, window, hop and bands must be at least 1, and fft at least window")
        if not 0 <= self.low < (self.high or self.rate / 2) <= self.rate / 2:
            raise ValueError("0 <= low < high <= rate / 2 must hold")
        if not self.floor > 0:
            raise ValueError("floor must be positive")

    def _faults(self, batch: np.ndarray) -> list[str]:
        short = batch.shape[1] < self.window
        return [f"{batch.shape[1]} samples are fewer than a window of {self.window}: pad first"] if short else []

    def _apply(self, batch: np.ndarray) -> np.ndarray:
        frames = np.lib.stride_tricks.sliding_window_view(batch, self.window, axis=1)[:, :: self.hop]
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
        power = np.square(np.abs(np.fft.rfft(frames.astype(np.float64) * hann, self.fft)))
        bands = np.einsum("nfk,bk->nbf", power, self.filters())
        return np.asarray(np.log(np.maximum(bands, self.floor)).astype(np.float32))

    def filters(self) -> np.ndarray:
        """Return the weight of each frequency in each band, float64 [bands, fft // 2 + 1]."""
        scale, back = (_htk, _htk_back) if self.mel == "htk" else (_slaney, _slaney_back)
        edges = np.array([self.low, self.high or self.rate / 2])
        first, last = scale(edges)
        points = back(np.linspace(first, last, self.bands + 2))
        frequencies = np.arange(self.fft // 2 + 1) * (self.rate / self.fft)
        rising = (frequencies - points[:-2, None]) / (points[1:-1] - points[:-2])[:, None]
        falling = (points[2:, None] - frequencies) / (points[2:] - points[1:-1])[:, None]
        height = 2 / (points[2:] - points[:-2]) if self.mel == "slaney" else np.ones(self.bands)
        return np.asarray(np.maximum(0, np.minimum(rising, falling)) * height[:, None])


def _htk(hertz: np.ndarray) -> np.ndarray:
    return np.asarray(2595 * np.log10(1 + hertz / 700))


def _htk_back(mels: np.ndarray) -> np.ndarray:
    return np.asarray(700 * (10 ** (mels / 2595) - 1))


_KNEE_HERTZ, _KNEE_MELS, _STEP = 1000.0, 15.0, np.log(6.4) / 27


def _slaney(hertz: np.ndarray) -> np.ndarray:
    above = _KNEE_MELS + np.log(np.maximum(hertz, _KNEE_HERTZ) / _KNEE_HERTZ) / _STEP
    return np.where(hertz < _KNEE_HERTZ, hertz * 3 / 200, above)


def _slaney_back(mels: np.ndarray) -> np.ndarray:
    above = _KNEE_HERTZ * np.exp(_STEP * (np.maximum(mels, _KNEE_MELS) - _KNEE_MELS))
    return np.where(mels < _KNEE_MELS, mels * 200 / 3, above)
