"""A set of photos looked at, trained on and measured on."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

from litedetr.batch.processes import choose_device, join, leave
from litedetr.detector import Detector
from litedetr.training import recipes
from litedetr.training.arguments import recipe_of
from litedetr.training.calibration import write_calibration
from litedetr.training.classes import category_ids
from litedetr.training.data import PhotoSet
from litedetr.training.evaluation import coco_paths, evaluate, write_charts
from litedetr.training.layouts import find
from litedetr.training.loop import train
from litedetr.training.study import clock, markdown, spread, study
from litedetr.training.survey import sheet, survey
from litedetr.weights import read_config


def run_data(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = find(options.data)
    splits = {name: PhotoSet.open(options.data, name, cache_bytes=0) for name in found}
    print(survey(splits, {name: split.layout for name, split in found.items()}, read_config(options.start).names))
    sheet(next(iter(splits.values())), options.sheet, recipes.finetune().augmentation)
    print(f"{options.sheet}: 16 pictures as the training sees them, with their boxes")
    return 0


def run_train(options: argparse.Namespace) -> int:
    names = (
        "recipe", "start", "preset", "backbone", "seconds", "steps", "epochs", "batch", "size", "rate", "evaluate_every",
        "patience", "bf16", "threads", "workers", "teacher",
    )  # fmt: skip
    first = int(os.environ.get("RANK", "0")) == 0
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s")
    recipe = recipe_of(options.data, **{name: vars(options)[name] for name in names})
    processes = join(recipe.device)
    try:
        result = train(recipe, options.data, options.out, resume=not options.restart, processes=processes)
    finally:
        leave()
    if not processes.first:
        return 0
    print(f"{result.steps} steps in {result.seconds:.0f} s; weights in {result.weights}")
    if result.evaluation is not None:
        print(result.evaluation.summary())
    if result.at_start is not None:
        print(f"AP at the start {100 * result.at_start:.1f}")
    if result.best is not None:
        print(f"best: AP {100 * result.best[1]:.1f}; weights in {result.best[0]}")
    return 0


def run_study(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    teacher = "" if options.teacher is None else str(options.teacher)
    settings = {"steps": options.steps, "size": options.size, "source": options.start, "threads": options.threads}
    found = study(options.data, options.out, teacher=teacher, **settings)
    spread(found, options.data, options.out)
    clock(found, options.out)
    (options.out / "study.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found), end="")
    return 0


def run_evaluate(options: argparse.Namespace) -> int:
    if options.coco is not None:
        photos = PhotoSet(*coco_paths(options.coco, options.split), cache_bytes=0)
    else:
        photos = PhotoSet.open(options.data, options.split, cache_bytes=0)
    if options.calibrate and not (Path(options.model) / "config.json").is_file():
        raise ValueError(f"expected a weights folder to write the threshold to, got {options.model}; leave --calibrate out")
    processes = join(options.device)
    try:
        detector = Detector.from_pretrained(options.model).to(choose_device(options.device))
        for note in category_ids(detector.config, photos)[1] if processes.first else ():
            print(note, file=sys.stderr)
        result = evaluate(
            detector, photos.annotations, photos.folder, photos=photos, size=options.size, limit=options.limit,
            batch_size=options.batch, precision=options.precision, results=options.out, processes=processes,
        )  # fmt: skip
    finally:
        leave()
    if processes.first:
        print(json.dumps(result.to_dict(), indent=2) if options.json else result.table())
        if options.charts is not None:
            write_charts(result, options.charts)
        if options.calibrate:
            write_calibration(Path(options.model), result.calibration)
    return 0
