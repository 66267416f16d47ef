"""How long encoders take, measured in turns on one photo's tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import torch

from app.run.run import Run
from litedetr import DetectorConfig
from litedetr.encoder import InterleavedEncoder
from litedetr.fast.encoder import FastEncoder
from litedetr.muting import layout
from litedetr.timing import take_turns

TURNS = 5
"""Of each encoder, after one that is not counted."""


@torch.inference_mode()
def milliseconds(run: Run, configs: Mapping[str, DetectorConfig], report: Callable[[float, str], None]) -> dict[str, float]:
    """Median wall-clock of the encoder of each config, with random weights, on the run's tokens; float32, as the page runs it.

    They run in turns, so that what else the machine does meets all of them alike.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoders = {
            name: FastEncoder(InterleavedEncoder.from_config(config).eval(), torch.float32) for name, config in configs.items()
        }
    pyramid = layout(run.trace, torch.zeros(run.config.levels, run.config.width))
    runs = {name: partial(encoder, pyramid) for name, encoder in encoders.items()}
    times = take_turns(runs, TURNS, shortest=0, report=lambda share: report(share, ""))
    return {name: median(timing.wall) for name, timing in times.items()}
