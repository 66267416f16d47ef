"""Does Lite cost accuracy? One detector trained several times on one budget, with another encoder each time.

All start from one trained detector whose encoder, and whatever gives the decoder's attention its weights, are random again.
They train on the same photos with the same settings, and differ in schedule or attention alone: the paper's ablation (tables 3
and 6) on one's own data.
"""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from litedetr.config import DetectorConfig
from litedetr.cost import gmacs
from litedetr.detector import Detector
from litedetr.schedule import EncoderSchedule
from litedetr.timing import take_turns
from litedetr.training.bootstrap import class_records, resampled
from litedetr.training.data import PhotoSet
from litedetr.training.evaluation import Evaluation, evaluate
from litedetr.training.loop import train
from litedetr.training.losses import LossSettings
from litedetr.training.recipes import START, OptimiserSettings, Recipe, Stage, attention_alone, nearby
from litedetr.training.results import read_results

log = logging.getLogger(__name__)
FIGURES = ("AP", "AP50", "AP_small", "AP_medium", "AP_large")


@dataclass(frozen=True)
class Variant:
    """One encoder: what it changes in the config, and the seeds it is trained with."""

    name: str
    schedule: str
    key_aware: bool = True
    seeds: tuple[int, ...] = (0,)


VARIANTS = (
    Variant("full", str(EncoderSchedule.full()), seeds=(0, 1)),
    Variant("lite", "H3L1-(2+1)x3", seeds=(0, 1)),
    Variant("h2l2", "H2L2-(2+1)x3"),
    Variant("long", "H3L1-(6+1)x1"),
    Variant("plain", "H3L1-(2+1)x3", key_aware=False, seeds=(0, 1)),
)


def recipe(
    variant: Variant, seed: int, config: DetectorConfig, steps: int, size: int, source: str = "embedded", teacher: str = ""
) -> Recipe:
    """How every variant is trained: same photos in the same order for the same seed, `steps` batches of 8.

    As `recipes.nearby`, with an encoder that is new as a whole; half of the photos at 0.75 of `size`. What gives the decoder's
    attention its weights depends on the kind of attention, so that it is new and learns in every variant.
    """
    layers = [f"decoder.layers.{layer}" for layer in range(config.decoder_layers)]
    weights = tuple(f"{layer}.attention.{part}" for layer in layers for part in ("query_proj", "key_proj", "attention_weights"))
    return replace(
        nearby(start=source, teacher=teacher or START),
        changes={"schedule": variant.schedule, "key_aware": variant.key_aware},
        fresh=("encoder", *weights),
        closed=True,
        freeze=attention_alone(decoder_layers=config.decoder_layers),
        seconds=0.0,
        steps=steps,
        stages=(Stage(0.5, _multiple(0.75 * size), 8), Stage(1.0, size, 8)),
        seed=seed,
        losses=LossSettings(soft=1.0, taught=0.1, matched=0.0),
        optimiser=OptimiserSettings(rate=2e-4, warm_up=min(40, steps // 4), constant_until=0.4, clip=5.0),
    )


def _multiple(size: float) -> int:
    """The nearest size that every stride divides."""
    return max(64, 64 * round(size / 64))


def study(
    data: Path | str,
    out: Path | str,
    *,
    steps: int = 800,
    size: int = 256,
    source: str = "embedded",
    teacher: str = "",
    variants: Sequence[Variant] = VARIANTS,
    threads: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Train and measure every variant; a killed study goes on where it was.

    First seeds come first, so that a study that is cut off has one figure of each.

    Args:
        data: COCO-format folder with train and val.
        out: gets a folder per training, and study.json (what is returned) after each.
        size: longer side of the pictures, at the end of the training and in measuring.
        teacher: NanoDet-g's weights; without them the start is its own teacher.

    Returns:
        ``{"size", "steps", "photos", "source", "variants": [{"name", "schedule", "key_aware", "gmacs", "encoder_gmacs",
        "parameters", "runs": [{"seed", "AP", …, "person_ap50"}]}]}``; AP in per cent, GMACs at ``size`` squared.
    """
    data, out = Path(data), Path(out)
    config = Detector.from_pretrained(source).config
    runs: dict[str, list[dict[str, Any]]] = {variant.name: [] for variant in variants}
    for seed in sorted({seed for variant in variants for seed in variant.seeds}):
        for variant in variants:
            if seed not in variant.seeds:
                continue
            folder = out / f"{variant.name}-{seed}"
            plan = replace(recipe(variant, seed, config, steps, size, source, teacher), threads=threads)
            runs[variant.name].append(_run(plan, data, folder, seed, size, progress))
            found = _account(variants, runs, config, {"size": size, "steps": steps, "photos": 8 * steps, "source": source})
            (out / "study.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _run(plan: Recipe, data: Path, folder: Path, seed: int, size: int, progress: bool) -> dict[str, Any]:
    """One training and its figures, or those of an earlier call."""
    done = folder / "figures.json"
    if not done.is_file():
        result = train(plan, data, folder, progress=progress)
        found = result.evaluation
        if found is None:
            raise ValueError(f"expected a val split beside train in {data}, got none; add val.json and val/")
        done.write_text(json.dumps({"seed": seed, **_percent(found)}) + "\n", encoding="utf-8")
    return json.loads(done.read_text(encoding="utf-8"))


def _percent(found: Evaluation) -> dict[str, float | None]:
    person = None if found.person_ap50 is None else round(100 * found.person_ap50, 2)
    return {name: round(100 * found.figures[name], 2) for name in FIGURES} | {"person_ap50": person}


def _account(
    variants: Sequence[Variant], runs: Mapping[str, list[dict[str, Any]]], config: DetectorConfig, terms: dict[str, Any]
) -> dict[str, Any]:
    rows = []
    for variant in variants:
        changed = replace(config, schedule=variant.schedule, key_aware=variant.key_aware)
        cost = gmacs(changed, (terms["size"],) * 2)
        row = {key: value for key, value in asdict(variant).items() if key != "seeds"}
        costs = {"gmacs": round(cost.total, 3), "encoder_gmacs": round(cost.encoder, 3)}
        rows.append({**row, **costs, "runs": sorted(runs[variant.name], key=lambda run: run["seed"])})
    return {**terms, "variants": rows}


def spread(found: dict[str, Any], data: Path | str, out: Path | str, rounds: int = 1000, progress: bool = True) -> None:
    """Adds to every variant of `study`'s result how sure its distance from the first one is, as far as the photographs go.

    ``difference``: ``{"AP", "low", "high"}``, its AP (the mean of its seeds) less that of the first variant, and the middle 95 %
    of that when val's photographs are drawn again with replacement, the same for all (`litedetr.training.bootstrap`).
    In per cent. Trainings are not drawn again: what a seed changes is on top of it. What is measured are the weights on disk, in
    half precision, and every run gets their figures instead of those of its training's end.
    """
    rows = [row for row in found["variants"] if row["runs"]]
    photos = PhotoSet.open(Path(data), "val")
    content, ids = photos.content, [photo.id for photo in photos.photos]
    once, records = [], []
    for name, run in ((f"{row['name']}-{run['seed']}", run) for row in rows for run in row["runs"]):
        detector, results = Detector.from_pretrained(str(Path(out) / name / "weights")), Path(out) / name / "val"
        options = {"size": found["size"], "photos": photos, "progress": progress, "results": results}
        measured = evaluate(detector, photos.annotations, photos.folder, **options)
        run |= _percent(measured)
        once.append(measured.figures["AP"])
        detections = [entry for entries in read_results(results).values() for entry in entries]
        records.append(class_records(content, detections, ids))
    draws = resampled(records, rounds)  # (R, trainings)
    ends = np.cumsum([len(row["runs"]) for row in rows])[:-1]
    values = np.stack([part.mean(-1) for part in np.split(100 * np.vstack([once, draws]), ends, axis=1)])  # (V, 1 + R)
    for row, less in zip(rows, values - values[0], strict=True):
        bounds = less[0], *np.percentile(less[1:], (2.5, 97.5))
        row["difference"] = {name: round(float(bound), 2) for name, bound in zip(("AP", "low", "high"), bounds, strict=True)}


@torch.inference_mode()
def clock(found: dict[str, Any], out: Path | str, size: tuple[int, int] = (480, 640), rounds: int = 5, threads: int = 1) -> None:
    """Adds to every variant of `study`'s result the milliseconds of its encoder and of the whole detector.

    Measured in turns, on one grey photo of (height, width), with the weights of the first seed, optimized in float32; with one
    thread it is processor time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pixels = torch.zeros(1, 3, *size)
        whole, encoders = {}, {}
        for row in found["variants"]:
            folder = Path(out) / f"{row['name']}-{row['runs'][0]['seed']}" / "weights"
            detector = Detector.from_pretrained(str(folder)).optimize("float32")
            pyramid = detector.neck(detector.backbone(pixels), None)
            whole[row["name"]] = lambda detector=detector: detector(pixels)
            encoders[row["name"]] = lambda detector=detector, pyramid=pyramid: detector.encoder(pyramid)
        times, encoder_times = take_turns(whole, rounds), take_turns(encoders, rounds)
    finally:
        torch.set_num_threads(before)
    found["clock"] = {"size": list(size), "threads": threads}
    for row in found["variants"]:
        row["ms"] = round(statistics.median(times[row["name"]].by(threads)), 1)
        row["encoder_ms"] = round(statistics.median(encoder_times[row["name"]].by(threads)), 1)


def markdown(found: dict[str, Any]) -> str:
    """The study as a table; where there are several seeds: their mean, and the lowest and highest in brackets."""
    titles = ["encoder", "attention", "GMACs (encoder)", "ms (encoder)", "AP", "AP50", "APs", "person AP50", "AP less first's"]
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    for row in found["variants"]:
        if row["runs"]:
            cells = [_title(row["schedule"]), "KDA" if row["key_aware"] else "plain"]
            cells.append(f"{row['gmacs']:.2f} ({row['encoder_gmacs']:.2f})")
            cells.append(f"{row['ms']:.0f} ({row['encoder_ms']:.0f})" if "ms" in row else "-")
            cells += [_spread([run[name] for run in row["runs"]]) for name in ("AP", "AP50", "AP_small", "person_ap50")]
            cells.append(_less(row["difference"]) if "difference" in row and row is not found["variants"][0] else "")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _title(schedule: str) -> str:
    plan = EncoderSchedule.parse(schedule)
    return f"full, {len(plan.steps())} layers" if plan.is_full else schedule


def _less(difference: Mapping[str, float]) -> str:
    return f"{difference['AP']:+.1f} ({difference['low']:+.1f} to {difference['high']:+.1f})"


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f}–{max(values):.1f})"
