"""What people say of a training, made a recipe: the arguments of ``python -m litedetr train`` and of `litedetr.train`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from litedetr.config import presets
from litedetr.training import recipes
from litedetr.training.classes import same_names
from litedetr.training.data import PhotoSet
from litedetr.training.layouts import find
from litedetr.training.loop import TrainingResult
from litedetr.training.loop import train as train_loop
from litedetr.training.recipes import Recipe, Stage
from litedetr.weights import read_config

log = logging.getLogger(__name__)
SCRATCH = "scratch"
LARGEST = 640
"""Long side up to which pictures are as large as the start takes them; a larger one is trained at this, unless a size is said."""


def recipe_of(
    data: Path | str,
    recipe: str = "",
    *,
    start: str | None = None,
    preset: str | None = None,
    backbone: str | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    batch: int | None = None,
    size: int | None = None,
    rate: float | None = None,
    evaluate_every: float | None = None,
    patience: int | None = None,
    bf16: bool = False,
    threads: int | None = None,
    workers: int | None = None,
    teacher: str | None = None,
) -> Recipe:
    """The recipe that is meant; ``data`` tells how many pictures an epoch has.

    Args:
        recipe: "finetune", "mobilenet" (from random weights), "embedded" or a file; "" for what fits the start.
        start: "embedded" (the default), "scratch", a weights folder or a Hub id.
        rate: of all but backbone, offsets and class heads, whose rates follow.
        evaluate_every: seconds; patience: measurements without a better one after which it ends.

    Raises:
        ValueError: arguments that exclude each other, or a preset as a recipe.
    """
    if recipe in presets():
        known = ", ".join(["finetune", *recipes.NAMED])
        raise ValueError(f"expected a recipe ({known} or a file), got the preset {recipe}: say --preset {recipe}")
    scratch = start == SCRATCH or (start is None and (preset is not None or backbone is not None or recipe in recipes.NAMED))
    if not recipe:
        recipe = "mobilenet" if scratch else "finetune"
    if recipe == "finetune":
        if scratch:
            raise ValueError('expected weights to start from, got --from scratch: leave out --recipe finetune, or name a start')
        names = [category["name"] for category in find(data)["train"].read().categories]
        config = read_config(start or "embedded")
        new = len(same_names(names, config.names)) < len(names)
        suppressed = config.family == "dino" and config.nms_iou is not None
        final, layers = min(config.long_side, LARGEST), (len(config.encoder_schedule.steps()), config.decoder_layers)
        made = recipes.finetune(seconds or 1800, start or "embedded", new, suppressed, size=final, layers=layers)
    elif recipe in recipes.NAMED:
        made = recipes.NAMED[recipe]()
    else:
        made = Recipe.load(recipe)
    if start is not None:
        made = replace(made, start="" if scratch else start)
    if preset is not None:
        if made.start:
            raise ValueError(f"expected a start or a preset, got both ({made.start}, {preset}): a start has its own architecture")
        made = replace(made, preset=preset)
    if epochs is not None and steps is not None:
        raise ValueError("expected --epochs or --steps, got both: leave one out")
    if batch is not None or size is not None:
        made = replace(made, stages=tuple(Stage(s.until, size or s.size, batch or s.batch) for s in made.stages))
    if epochs is not None:
        pictures = len(PhotoSet.open(data, cache_bytes=0))
        steps = math.ceil(epochs * pictures / made.stages[-1].batch)
    if steps is not None:
        made = replace(made, steps=steps, seconds=seconds or 0.0)
    elif seconds is not None:
        made = replace(made, seconds=seconds)
    if rate is not None:
        before = made.optimiser
        made = replace(made, optimiser=replace(before, rate=rate, backbone=before.backbone * rate / before.rate))
    given = {
        "backbone": backbone, "teacher": teacher, "evaluate_seconds": evaluate_every, "patience": patience, "threads": threads,
        "workers": workers,
        "precision": "bf16" if bf16 else None,
    }  # fmt: skip
    made = replace(made, **{name: value for name, value in given.items() if value is not None})
    if not made.start:
        log.warning("training %s from RANDOM weights%s: --from embedded starts from trained ones", made.preset,
                    f" and the backbone in {made.backbone}" if made.backbone else "")  # fmt: skip
    return made


def train(
    data: Path | str,
    out: Path | str = "runs/mine",
    start: str = "embedded",
    *,
    callbacks: tuple[Callable[[int], None], ...] = (),
    progress: bool = True,
    resume: bool = True,
    **arguments: float | int | str | bool | None,
) -> TrainingResult:
    """Train on one's own photographs: ``litedetr.train("DIR", epochs=10)``.

    Args:
        data: a folder in any layout of `litedetr.training.layouts`; out: where weights/, best/, log.jsonl and curve.svg go.
        start: "embedded", "scratch", a weights folder or a Hub id.
        callbacks: each is called after every step with the number of steps done.
        arguments: those of `recipe_of`: epochs, steps, seconds, batch, size, rate, evaluate_every, patience, …
    """

    def told(step: int) -> None:
        for callback in callbacks:
            callback(step)

    recipe = recipe_of(data, start=start, **arguments)
    return train_loop(recipe, data, out, resume=resume, progress=progress, on_step=told)
