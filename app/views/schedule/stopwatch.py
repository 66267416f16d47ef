"""How long encoders take, measured in turns on one photo's tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

from app.run.run import Run
from litedetr import DetectorConfig
from litedetr.encoder import InterleavedEncoder
from litedetr.fast.encoder import FastEncoder
from litedetr.muting import layout

TURNS = 5
"""Of each encoder, after one that is not counted."""


@torch.inference_mode()
def milliseconds(run: Run, configs: Mapping[str, DetectorConfig], tell: Callable[[float, str], None]) -> dict[str, float]:
    """Median wall-clock of the encoder of each config, with random weights, on the run's tokens; float32, as the page runs it.

    They run in turns, so that what else the machine does meets all of them alike.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoders = {
            name: FastEncoder(InterleavedEncoder.from_config(config).eval(), torch.float32) for name, config in configs.items()
        }
    pyramid = layout(run.trace, torch.zeros(run.config.levels, run.config.width))
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for turn in range(TURNS + 1):
        tell(turn / (TURNS + 1), "")
        for name, encoder in encoders.items():
            start = time.perf_counter()
            encoder(pyramid)
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: median(values[1:]) for name, values in times.items()}
