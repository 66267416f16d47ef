"""The training loop: batches in, weights out; it can be killed at any time and goes on where it was."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from litedetr.batch.processes import ALONE, Processes, choose_device
from litedetr.families import family_of
from litedetr.output import LayerOutput
from litedetr.positions import box_proposals
from litedetr.training.board import board
from litedetr.training.card import Training, card
from litedetr.training.charts import curve_svg
from litedetr.training.checkpoint import load_checkpoint, save_checkpoint
from litedetr.training.classes import CLASS_PARTS, category_ids
from litedetr.training.data import Batch, BatchStream, PhotoSet
from litedetr.training.denoising import Denoising, make_denoising
from litedetr.training.distillation import taught_losses
from litedetr.training.evaluation import Evaluation, evaluate
from litedetr.training.layouts import find
from litedetr.training.log import Meter, cut_log, read_log
from litedetr.training.losses import LossSettings, detection_losses, total_loss
from litedetr.training.optimiser import Ema, parameter_groups, rate_factor
from litedetr.training.precision import autocast, normalise
from litedetr.training.recipes import Recipe
from litedetr.training.resume import check_classes, check_recipe
from litedetr.training.start import build_detector
from litedetr.training.survey import sheet, survey
from litedetr.training.targets import Targets
from litedetr.training.teacher import teacher_of

log = logging.getLogger(__name__)
AHEAD = 3
"""Batches made ahead of time by one worker; each further one has one more."""
BAD_STEPS = 20
"""Steps in a row without a finite loss after which training gives up."""


@dataclass(frozen=True)
class TrainingResult:
    """Where the weights are, how far the run got, and its last measurement on val (None without a val split).

    best: where the weights of the best measurement are, and its AP; None where they are not kept; at_start: AP before training.
    """

    weights: Path
    steps: int
    seconds: float
    evaluation: Evaluation | None
    best: tuple[Path, float] | None = None
    at_start: float | None = None


def train(
    recipe: Recipe,
    data: Path | str,
    out: Path | str,
    *,
    resume: bool = True,
    allow_changes: bool = False,
    detector: nn.Module | None = None,
    progress: bool = True,
    on_step: Callable[[int], None] | None = None,
    processes: Processes = ALONE,
) -> TrainingResult:
    """Train a detector on ``data`` (a folder in any layout of `litedetr.training.layouts`, with a train and perhaps a val split).

    ``out`` receives checkpoint.pt, log.jsonl, recipe.json, sheet.png (16 pictures as they are trained on), and with every
    measurement and at the end weights/ (the averaged weights in half precision) and, where there is a val split, curve.svg (loss
    and AP against hours) and, if the recipe says so, best/ (the weights of the best measurement). With ``resume`` a
    checkpoint found there is gone on with; ``allow_changes`` lets the recipe differ from that run's in more than its
    length. ``detector``: train this one instead of the recipe's. ``on_step`` is called after every step with the number of
    steps done.
    With several ``processes`` a recipe's batch is split among them, and their gradients add up to that of the whole batch;
    the first one writes and measures. All must see the same folders.
    """
    data, out = Path(data), Path(out)
    if recipe.threads > 0:
        torch.set_num_threads(recipe.threads)
    photos = PhotoSet.open(data, "train")
    validation = PhotoSet.open(data, "val") if "val" in find(data) else None
    torch.manual_seed(recipe.seed)
    detector = detector if detector is not None else build_detector(recipe, photos)
    if validation is not None:
        for note in category_ids(detector.config, validation)[1]:
            log.warning(note)
    run = _Run(recipe, detector, photos, validation, data, out, processes)
    checkpoint = load_checkpoint(out) if resume else None
    if checkpoint is not None:
        check_classes(checkpoint.get("classes"), photos.names, out)
        check_recipe(Recipe.from_json(checkpoint["recipe"]), recipe, allow_changes)
        run.load(checkpoint)
    if processes.first:
        out.mkdir(parents=True, exist_ok=True)
        cut_log(out / "log.jsonl", run.step)
        (out / "recipe.json").write_text(recipe.to_json() + "\n", encoding="utf-8")
        if checkpoint is None:
            layouts = {name: split.layout for name, split in find(data).items()}
            log.info(survey({"train": photos, **({} if validation is None else {"val": validation})}, layouts))
            sheet(photos, out / "sheet.png", recipe.augmentation)
    return run.go(progress and processes.first, on_step)


class _Run:
    """One training run's state, and its steps."""

    def __init__(
        self,
        recipe: Recipe,
        detector: nn.Module,
        photos: PhotoSet,
        validation: PhotoSet | None,
        data: Path,
        out: Path,
        processes: Processes = ALONE,
    ) -> None:
        self.recipe, self.data, self.out, self.photos, self.validation = recipe, data, out, photos, validation
        self.processes = processes
        self.device = choose_device(recipe.device)
        self.detector = detector.to(self.device)
        self.teacher = teacher_of(recipe, detector).to(self.device) if recipe.teacher else None
        processes.same(list(self.detector.state_dict().values()))
        groups = parameter_groups(self.detector, recipe.optimiser)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        self.optimiser = torch.optim.AdamW(groups, fused=True)
        self.ema = Ema(self.detector, recipe.ema)
        self.step, self.elapsed, self.bad = 0, 0.0, 0
        self.position: dict[str, Any] | None = None
        self.measured_at = 0.0
        self.meter = Meter()
        self.at_start: float | None = None  # AP before the first step
        self.last: float | None = None  # AP of the last measurement, in this process
        self.best, self.since_best = -1.0, 0  # AP of the best measurement, and how many came after it
        self.board: Callable[[dict[str, Any]], None] | None = None  # made with the first line: then the step is known
        self.others = [p for name, p in self.detector.named_parameters() if p.requires_grad and not name.startswith(CLASS_PARTS)]
        self.heads_first = recipe.heads_first if len(self.others) < len(self.parameters) else 0  # where any of them is trained

    # --- state -----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.to_json(),
            "classes": self.photos.names,
            "model": self.detector.state_dict(),
            "ema": self.ema.state,
            "optimiser": self.optimiser.state_dict(),
            "rng": torch.get_rng_state(),
            "position": self.position,
            "step": self.step,
            "elapsed": self.elapsed,
            "measured_at": self.measured_at,
            "meter": self.meter.state(),
            "best": [self.at_start, self.best, self.since_best],
        }

    def load(self, state: dict[str, Any]) -> None:
        self.detector.load_state_dict(state["model"])
        for name, value in state["ema"].items():
            self.ema.state[name].copy_(value)
        rates = [(group["full_rate"], group["weight_decay"]) for group in self.optimiser.param_groups]
        self.optimiser.load_state_dict(state["optimiser"])
        for group, (rate, decay) in zip(self.optimiser.param_groups, rates, strict=True):
            group["full_rate"], group["weight_decay"] = rate, decay
        torch.set_rng_state(state["rng"])
        self.position, self.step, self.elapsed = state["position"], state["step"], state["elapsed"]
        self.measured_at = state["measured_at"]
        self.meter = Meter(**state["meter"])
        self.at_start, self.best, self.since_best = state.get("best", [None, -1.0, 0])
        log.info("going on at step %d, %.0f s", self.step, self.elapsed)

    def done(self, step: int | None = None) -> float:
        """The share of the training that is done (0..1)."""
        step, recipe = self.step if step is None else step, self.recipe
        by_steps = step / recipe.steps if recipe.steps > 0 else 0.0
        by_time = self.elapsed / recipe.seconds if recipe.seconds > 0 else 0.0
        return min(max(by_steps, by_time), 1.0)

    # --- the loop --------------------------------------------------------------------------------------------------

    def go(self, progress: bool, on_step: Callable[[int], None] | None) -> TrainingResult:
        recipe = self.recipe
        stream = BatchStream(
            self.photos, recipe.augmentation, recipe.seed, recipe.rare, self.position, self.processes, recipe.workers
        )
        bar = tqdm(total=100.0, initial=round(100 * self.done(), 2), unit="%", desc="training", disable=not progress,
                   bar_format="{l_bar}{bar}| {n:.1f} % [{elapsed}<{remaining}{postfix}]")  # fmt: skip
        saved = time.monotonic()
        if recipe.measure_start and self.step == 0:
            self._measure(recipe.evaluate_pictures, progress)
        self.detector.train()
        try:
            while self.done() < 1 and not 0 < recipe.patience <= self.since_best:
                started = time.monotonic()
                while len(stream) < AHEAD + recipe.workers - 1:
                    done = self.done(self.step + len(stream))
                    stage = recipe.stage(done)
                    stream.request(stage.size, stage.batch, mild=done >= recipe.mild_from)
                self._step(stream.take(), started)
                bar.n = round(100 * self.done(), 2)
                if self.step % recipe.log_steps == 0:
                    self._log(self.meter.line())
                    epoch = sum((self.position or {}).get("drawn", [0])) / stream.epoch_size
                    bar.set_postfix_str(f"{self.meter.text}, epoch {epoch:.1f}, step {self.step}{self._ap()}", refresh=False)
                    self.meter.reset()
                bar.refresh()
                if time.monotonic() - saved > recipe.checkpoint_seconds:
                    self._save()
                    saved = time.monotonic()
                if recipe.evaluate_seconds > 0 and self.elapsed - self.measured_at > recipe.evaluate_seconds:
                    self.measured_at = self.elapsed
                    self._measure(recipe.evaluate_pictures, progress)
                if on_step is not None:
                    on_step(self.step)
            self._save()
        except KeyboardInterrupt:
            self._save()
            raise
        finally:
            stream.close()
            bar.close()
        evaluation = self._measure(0, progress)
        best = (self.out / "best", self.best) if self.recipe.keep_best and self.best >= 0 else None
        return TrainingResult(self.out / "weights", self.step, self.elapsed, evaluation, best, self.at_start)

    def _step(self, batch: Batch, started: float) -> None:
        """One batch, one update; `started` is when waiting for the batch began."""
        settings, done = self.recipe.optimiser, self.done()
        factor = rate_factor(self.step, done, settings)
        for group in self.optimiser.param_groups:
            group["lr"] = group["full_rate"] * factor
        losses, norm, good = None, math.nan, False
        self.optimiser.zero_grad(set_to_none=True)
        try:
            losses = self._losses(batch, self.recipe.losses_at(done))
            total = total_loss(losses, self.recipe.losses)
            if torch.isfinite(total):
                total.backward()
                good = True
        except FloatingPointError as error:
            log.warning("step %d: %s", self.step, error)
        if self.step < self.heads_first:
            for parameter in self.others:
                parameter.grad = None
        if self.processes.sum_gradients(self.parameters, good):
            norm = float(nn.utils.clip_grad_norm_(self.parameters, settings.clip))
        if math.isfinite(norm):
            self.optimiser.step()
            self.ema.update(self.detector, self.step)
            self.bad = 0
        else:
            self.bad += 1
            log.warning("step %d left out: its loss or gradient is not finite", self.step)
            if self.bad >= BAD_STEPS:
                raise FloatingPointError(
                    f"expected finite losses, got {BAD_STEPS} steps in a row without one; lower the rates or use f32, "
                    "and resume from the last checkpoint"
                )
        seconds = self.processes.largest(time.monotonic() - started)
        self.position = batch.position
        self.step += 1
        self.elapsed += seconds
        values = {}
        if math.isfinite(norm):
            parts = {name: value.detach().double().cpu() for name, value in {**losses, "loss": total}.items()}
            values = dict(zip(parts, self.processes.sum(torch.stack(list(parts.values()))).tolist(), strict=True))
            values["norm"] = norm
        photos = self.processes.total(len(batch.images))
        self.meter.add(values, photos, seconds, batch.images.shape[1:3], factor * settings.rate)

    def _losses(self, batch: Batch, settings: LossSettings) -> dict[str, Tensor]:
        recipe, detector = self.recipe, self.detector
        mask, targets = batch.mask.to(self.device), batch.targets.to(self.device)
        pixels = normalise(batch.images.to(self.device), mask, detector.config)
        with autocast(self.device, recipe.precision):
            noisy = recipe.denoising.number > 0 and family_of(detector.config).denoising
            denoising = self._denoising(batch.targets) if noisy else None
            features = detector.backbone(pixels)
            output = detector.from_features(
                features,
                mask if bool(batch.mask.any()) else None,
                denoising=denoising.queries if denoising is not None else None,
                dense=settings.dense > 0 and detector.dense_head is not None,
                every_token=self.teacher is not None,
            )
        losses = detection_losses(output, targets, denoising, settings, processes=self.processes)
        if self.teacher is None:
            return losses
        _, usable = box_proposals(output.dense_shapes, output.dense_mask, cells=detector.config.anchor_cells)
        answers = self.teacher([level.float() for level in features])
        if recipe.coarser:
            with autocast(self.device, recipe.precision):
                more = self.teacher.coarser(pixels, detector.backbone)
            answers = LayerOutput(torch.cat((answers.logits, more.logits), 1), torch.cat((answers.boxes, more.boxes), 1))
        return losses | taught_losses(output, usable, answers, targets, settings.distillation)

    def _denoising(self, targets: Targets) -> Denoising | None:
        """This process' part of the noisy copies, which depend on the whole batch: on its fullest picture, and by chance."""
        parts, rank = self.processes.gather(targets), self.processes.rank
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
        whole = make_denoising(
            Targets.join(parts).to(self.device) if len(parts) > 1 else targets.to(self.device),
            self.detector.label_embed, self.detector.config.num_classes, self.detector.num_queries,
            self.recipe.denoising, generator,
        )  # fmt: skip
        if whole is None or len(parts) == 1:
            return whole
        start, objects = sum(len(part.counts) for part in parts[:rank]), sum(map(len, parts[:rank]))
        return whole.part(start, start + len(targets.counts), objects)

    # --- what it leaves behind -------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.processes.first:
            save_checkpoint(self.out, self.state())

    def _log(self, line: dict[str, Any]) -> None:
        if not self.processes.first:
            return
        line = {"step": self.step, "seconds": round(self.elapsed, 2), "progress": round(self.done(), 5), **line}
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.board = self.board or board(self.out, self.step)
        self.board(line)

    def _measure(self, pictures: int, progress: bool) -> Evaluation | None:
        """Write the averaged weights, and measure them on val at the size trained at; the other processes wait."""
        result = self.processes.from_first(lambda: self._measure_alone(pictures, progress))
        if result is None:
            return None
        precision = result.figures["AP"]
        self.at_start = precision if self.step == 0 else self.at_start
        self.last, better = precision, precision > self.best
        self.best, self.since_best = (precision, 0) if better else (self.best, self.since_best + 1)
        if not self.processes.first:
            return result
        if better and self.recipe.keep_best:
            shutil.copytree(self.out / "weights", self.out / "best", dirs_exist_ok=True)
        if self.at_start is not None and precision < self.at_start:
            text = "AP %.1f is below the %.1f of the start: train longer, at a lower --rate, or on more pictures"
            log.warning(text, 100 * precision, 100 * self.at_start)
        return result

    def _ap(self) -> str:
        """The last AP, the best so far and the start's, for the bar."""
        start = "" if self.at_start is None else f", at the start {100 * self.at_start:.1f}"
        return "" if self.last is None else f", AP {100 * self.last:.1f}, best {100 * self.best:.1f}{start}"

    def _measure_alone(self, pictures: int, progress: bool) -> Evaluation | None:
        kept = {name: value.clone() for name, value in self.detector.state_dict().items()}
        self.detector.load_state_dict(self.ema.state)
        try:
            self.detector.save_pretrained(self.out / "weights", dtype=torch.float16)
            if self.validation is None:
                self._write_card(None)
                return None
            result = evaluate(
                self.detector,
                self.validation.annotations,
                self.validation.folder,
                size=self.recipe.stage(self.done()).size,
                limit=pictures or None,
                precision=self.recipe.precision,
                photos=self.validation,
                progress=progress,
            )
        finally:
            self.detector.load_state_dict(kept)
            self.detector.train()
        log.info("step %d: %s", self.step, result.summary())
        figures = {name: round(value, 5) for name, value in result.figures.items()}
        self._log({"val": figures, "person_ap50": result.person_ap50, "pictures": result.images})
        (self.out / "curve.svg").write_text(curve_svg(read_log(self.out / "log.jsonl")), encoding="utf-8")
        shutil.copy(self.out / "curve.svg", self.out / "weights")
        self._write_card(result)
        return result

    def _write_card(self, result: Evaluation | None) -> None:
        """README.md of weights/."""
        boxes = sum(len(photo.boxes) for photo in self.photos.photos)
        start = result.figures["AP"] if result is not None and self.step == 0 else self.at_start
        told = Training(
            self.out.resolve().name, self.data.resolve().name, len(self.photos), boxes, self.photos.licences, self.recipe.start,
            self.step, self.elapsed, self.recipe.stage(self.done()).size, start,
        )  # fmt: skip
        (self.out / "weights" / "README.md").write_text(card(self.detector.config, told, result), encoding="utf-8")
