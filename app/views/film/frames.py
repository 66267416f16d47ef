"""The encoder's tokens before its first step and after each: as colours that stay comparable, and how much they changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from app.run.run import Run
from app.run.state import ViewState
from litedetr import AttentionStep, Trace
from litedetr.positions import level_slices

SPREAD = 2.5
"""Standard deviations of a component, to either side, over which its colour channel runs."""
RARE = 200
SAMPLE = 1024
"""The components are found from at most so many tokens of each scale and frame, evenly spread."""


@dataclass(frozen=True)
class Film:
    """F frames: before the encoder, then after each of its steps. S tokens, finest scale first.

    Attributes:
        colours: (F, S, 3) uint8: three principal components as red, green and blue.
        change: (F, S) length of a token's change in the step, relative to its length before; 0 where it was kept, and in frame 0.
        explained: share of the tokens' variance that the three components hold.
        clipped: share of colour channels that end at 0 or 255.
    """

    colours: np.ndarray
    change: np.ndarray
    explained: float
    clipped: float

    @property
    def largest(self) -> float:
        """The largest change in the film."""
        return float(self.change.max(initial=0.0))

    @property
    def limit(self) -> float:
        """The end of the colour scale: the change that one in `RARE` of the updated tokens exceed."""
        changed = self.change[self.change > 0]
        return float(np.quantile(changed, 1 - 1 / RARE)) if len(changed) else 0.0


@dataclass(frozen=True)
class Frame:
    """One picture of the film.

    Attributes:
        name: of the step; "backbone" before the first.
        index: place in the film, from 0.
        step: the encoder step or decoder layer that it shows the result of; None for "backbone".
        memory: index of the tokens in `Film`.
        updated: names of the scales that the step updated.
    """

    name: str
    index: int
    step: AttentionStep | None
    memory: int
    updated: tuple[str, ...]


def frame_of(run: Run, state: ViewState) -> Frame:
    """The frame of the state's step; the first one where no step of this model is chosen."""
    encoder = [step.name for step in run.trace.encoder_steps]
    if state.step == "backbone":
        return Frame("backbone", 0, None, 0, ())
    names = list(run.step_names)
    place = names.index(state.step) if state.step in names else len(names) - 1 if state.step == "boxes" else 0
    step = run.trace.steps[place]
    return Frame(step.name, place + 1, step, min(place + 1, len(encoder)), step.query_scales)


def film_of(run: Run) -> Film:
    """The run's film, made once."""
    return run.extras.memo("film", lambda: make_film(run.trace))


def make_film(trace: Trace) -> Film:
    """One basis for all frames and scales, in which every scale and frame counts the same, however many tokens it has.

    A component points to where its largest loading is positive: the same film always has the same colours.
    """
    # Element by element in NumPy: PyTorch's threads wait for each other, and somebody else's model may be at work beside them.
    # Products and `eigh` in PyTorch: where NumPy's threads wait, they spin, which beside others takes ten times as long.
    frames = [trace.tokens.float().numpy()]
    for step in trace.encoder_steps:
        frames.append(np.concatenate((frames[-1][: step.first_query], step.tokens.float().numpy())))
    mean, basis, spread, explained = _basis(frames, level_slices(trace.spatial_shapes))
    colours = np.empty((len(frames), len(frames[0]), 3), dtype=np.uint8)
    change = np.zeros(colours.shape[:2], dtype=np.float32)
    lengths = _lengths(frames[0])
    for index, frame in enumerate(frames):
        first = trace.encoder_steps[index - 1].first_query if index else 0
        updated = frame[first:]
        if index:
            change[index, first:] = _lengths(updated - frames[index - 1][first:]) / np.maximum(lengths[first:], 1e-12)
            lengths[first:] = _lengths(updated)
            colours[index, :first] = colours[index - 1, :first]
        shades = 0.5 + (updated @ basis - mean @ basis) / (2 * SPREAD * spread)
        colours[index, first:] = np.clip(np.round(255 * shades), 0, 255)
    return Film(colours, change, explained, float(((colours == 0) | (colours == 255)).mean()))


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """(N, d) -> (N,)."""
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors))


def _basis(frames: list[np.ndarray], levels: list[slice]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Mean (d,), components (d, 3), their standard deviations (3,), and their share of the variance."""
    parts = [part[:: -(-len(part) // SAMPLE)] for frame in frames for part in (frame[tokens] for tokens in levels)]
    mean = np.mean([part.mean(0) for part in parts], axis=0)
    centred = torch.from_numpy(np.concatenate([(part - mean) / np.float32((len(part) * len(parts)) ** 0.5) for part in parts]))
    covariance = (centred.T @ centred).double()
    variances, vectors = (found.numpy() for found in torch.linalg.eigh(covariance))
    variances, basis = np.clip(variances[::-1][:3], 0, None), vectors[:, ::-1][:, :3]
    basis = basis * np.sign(np.take_along_axis(basis, np.abs(basis).argmax(0, keepdims=True), 0))
    total = float(covariance.trace())
    spread = np.maximum(np.sqrt(variances), 1e-12)
    return mean, basis.astype(np.float32), spread.astype(np.float32), float(variances.sum()) / max(total, 1e-12)
