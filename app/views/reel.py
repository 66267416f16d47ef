"""The encoder's tokens before its first step and after each: as colours that stay comparable, and how much they changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from app.run import Run
from app.state import ViewState
from litedetr import AttentionStep, Trace

SPREAD = 2.5
"""Standard deviations of a component, to either side, over which its colour channel runs."""
RARE = 200
SAMPLE = 1024
"""The components are found from at most so many tokens of each scale and frame, evenly spread."""


@dataclass(frozen=True)
class Reel:
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
        memory: index of the tokens in `Reel`.
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


def reel(run: Run) -> Reel:
    """The run's film, made once."""
    return run.extras.memo("film", lambda: make_reel(run.trace))


def make_reel(trace: Trace) -> Reel:
    """One basis for all frames and scales, in which every scale and frame counts the same, however many tokens it has.

    A component points to where its largest loading is positive: the same film always has the same colours.
    """
    frames = [trace.tokens.float()]
    for step in trace.encoder_steps:
        frames.append(torch.cat((frames[-1][: step.first_query], step.tokens.float())))
    sizes = [height * width for height, width in trace.spatial_shapes]
    mean, basis, spread, explained = _basis(frames, sizes)
    colours, change = [], []
    for index, frame in enumerate(frames):
        before = frames[max(index - 1, 0)]
        first = trace.encoder_steps[index - 1].first_query if index else 0
        ratio = (frame - before).norm(dim=1) / before.norm(dim=1).clamp(min=1e-12)
        change.append(ratio)
        shades = 0.5 + (frame[first:] - mean) @ basis / (2 * SPREAD * spread)
        shades = (255 * shades).round().clamp(0, 255).to(torch.uint8)
        colours.append(torch.cat((colours[-1][:first], shades)) if index else shades)
    pictures = torch.stack(colours).numpy()
    return Reel(pictures, torch.stack(change).numpy(), explained, float(np.isin(pictures, (0, 255)).mean()))


def _basis(frames: list[Tensor], sizes: list[int]) -> tuple[Tensor, Tensor, Tensor, float]:
    """Mean (d,), components (d, 3), their standard deviations (3,), and their share of the variance."""
    parts = [part[:: -(-len(part) // SAMPLE)] for frame in frames for part in frame.split(sizes)]
    mean = torch.stack([part.mean(0) for part in parts]).mean(0)
    covariance = torch.stack([(part - mean).T @ (part - mean) / len(part) for part in parts]).mean(0)
    variances, vectors = torch.linalg.eigh(covariance.double())
    variances, basis = variances.flip(0)[:3].clamp(min=0), vectors.flip(1)[:, :3]
    basis = basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    total = float(covariance.diagonal().double().sum())
    return mean, basis.float(), variances.sqrt().clamp(min=1e-12).float(), float(variances.sum()) / max(total, 1e-12)
