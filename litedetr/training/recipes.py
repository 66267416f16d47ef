"""Recipes: everything that decides how a detector is trained, as data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from litedetr.training.augment import AugmentSettings
from litedetr.training.denoising import DenoisingSettings
from litedetr.training.distillation import DistillationSettings
from litedetr.training.losses import LossSettings


@dataclass(frozen=True)
class Stage:
    """Pictures of long side ``size``, ``batch`` at a time, until the share ``until`` of the training is done."""

    until: float
    size: int
    batch: int = 8


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW with a few groups, and how its rates change over the training.

    rate: of everything but the next three; offsets: factor for sampling offsets; classes: factor for what has a row per class;
    backbone: rate of the backbone;
    trained: parts that know their work from the start and learn at ``trained_factor`` of the rate;
    warm_up: steps until the rates are full; constant_until: share of the training after which they fall, along a
    cosine, to ``floor`` of themselves; decay: weight decay, none for biases, norms and embeddings; clip: largest norm
    of the gradient.
    """

    rate: float = 4e-4
    offsets: float = 0.3
    classes: float = 1.0
    backbone: float = 8e-5
    trained: tuple[str, ...] = ()
    trained_factor: float = 0.2
    warm_up: int = 100
    constant_until: float = 0.5
    floor: float = 0.01
    decay: float = 1e-4
    clip: float = 1.0


@dataclass(frozen=True)
class EmaSettings:
    """The averaged weights' memory: ``share`` of the steps done so far, between these two rates a step."""

    slowest: float = 0.9998
    fastest: float = 0.998
    share: float = 0.1


START = "start"
"""As ``Recipe.teacher``: the detector as it is before the training."""


@dataclass(frozen=True)
class Recipe:
    """How to train: the detector, for how long, on what, with which losses.

    preset, changes: of the detector's config; backbone: a file of trained backbone weights, "" for random ones;
    start: a trained detector to start from instead ("embedded", a weights folder or a Hub id), "" for none; its config
    gets the ``changes`` too, and its parts named in ``fresh`` ("encoder") random weights, or the backbone that of ``backbone``;
    closed: the encoder's layers add nothing at first (`start.close_branches`); near: its attention begins anew, and all
    sampling points stay near (`start.look_near`);
    teacher: a file with NanoDet-g's weights, or "start" for the detector as it is before the training, whose answers are taught
    with the weights ``losses.soft`` and ``losses.taught``; "" for none; coarser: the scale beyond NanoDet-g's coarsest one is
    taught what that sees in the picture at half its size;
    freeze_stem: leave the backbone's first stages as they are; freeze: leave these parts ("backbone") as they are; hold: of the
    class heads leave the rows of those classes as they are that the start knows, by name or by what it calls their objects;
    late_class_loss, late_from: another ``losses.class_loss`` after that share of the training, "" for none;
    mild_from: from that share of the training on, pictures without mosaic, mixup and pasted objects;
    steps, seconds: the training's length, the one reached first counts (0 = no limit; seconds count training only and
    go on where a resumed run had been); rare: share of pictures below which a class' pictures are repeated;
    precision: "auto", "f32" or "bf16"; checkpoint_seconds: between two checkpoints; log_steps: between two lines of the
    log; evaluate_seconds: between two measurements on val, 0 = only at the end; threads: of PyTorch, 0 = as it is;
    workers: threads that make batches ahead of time;
    measure_start: measure before the first step, too; keep_best: the weights of the best measurement stay, in best/;
    patience: end after so many measurements without a better one, 0 = never; heads_first: steps at first in which only what has
    a row per class is trained.
    """

    preset: str = "lite-dino-mobilenet"
    changes: dict[str, Any] = field(default_factory=dict)
    backbone: str = ""
    teacher: str = ""
    coarser: bool = False
    start: str = ""
    fresh: tuple[str, ...] = ()
    closed: bool = False
    near: bool = False
    freeze_stem: bool = False
    freeze: tuple[str, ...] = ()
    hold: bool = False
    steps: int = 0
    seconds: float = 0.0
    stages: tuple[Stage, ...] = (Stage(1.0, 320, 8),)
    seed: int = 0
    rare: float = 0.0
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    ema: EmaSettings = field(default_factory=EmaSettings)
    losses: LossSettings = field(default_factory=LossSettings)
    late_class_loss: str = ""
    late_from: float = 0.6
    denoising: DenoisingSettings = field(default_factory=DenoisingSettings)
    augmentation: AugmentSettings = field(default_factory=AugmentSettings)
    mild_from: float = 1.0
    precision: str = "auto"
    device: str = "auto"
    checkpoint_seconds: float = 120.0
    log_steps: int = 20
    evaluate_seconds: float = 0.0
    evaluate_pictures: int = 0
    threads: int = 0
    workers: int = 1
    measure_start: bool = False
    keep_best: bool = False
    patience: int = 0
    heads_first: int = 0

    def __post_init__(self) -> None:
        if self.steps <= 0 and self.seconds <= 0:
            raise ValueError(f"expected a length, got steps={self.steps} and seconds={self.seconds}; set one of them above 0")
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(ends) or ends[-1] < 1:
            raise ValueError(f"expected stages that end in rising order and reach 1.0, got ends {ends}; correct them")

    def stage(self, progress: float) -> Stage:
        """The stage at ``progress`` (0..1)."""
        return next((stage for stage in self.stages if progress < stage.until), self.stages[-1])

    def losses_at(self, progress: float) -> LossSettings:
        """The losses' settings at ``progress`` (0..1)."""
        if self.late_class_loss and progress >= self.late_from:
            return replace(self.losses, class_loss=self.late_class_loss)
        return self.losses

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """What `to_json` wrote; fields left out keep their defaults, unknown ones are an error."""
        return _build(cls, json.loads(text), "recipe")

    @classmethod
    def load(cls, path: Path | str) -> Recipe:
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


def _build(kind: type, values: dict[str, Any], where: str) -> Any:
    """A dataclass, and those inside it, from plain JSON values."""
    known = {item.name for item in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"expected the fields {sorted(known)} in {where}, got {unknown} besides; remove or rename them")
    hints, built = get_type_hints(kind), {}
    for name, value in values.items():
        if is_dataclass(hints[name]):
            value = _build(hints[name], value, f"{where}.{name}")
        elif name == "stages":
            value = tuple(_build(Stage, item, f"{where}.stages") for item in value)
        elif isinstance(value, list):
            value = tuple(value)
        built[name] = value
    return kind(**built)


def mobilenet(seconds: float = 7200, backbone: str = "", threads: int = 0) -> Recipe:
    """`lite-dino-mobilenet` from ImageNet weights: small pictures first, the size it is used at last."""
    return Recipe(
        preset="lite-dino-mobilenet",
        changes={"dense_head": True, "nms_iou": 0.65},
        backbone=backbone,
        freeze_stem=True,
        seconds=seconds,
        stages=(Stage(0.25, 192, 8), Stage(0.5, 256, 8), Stage(0.75, 384, 8), Stage(1.0, 448, 8)),
        optimiser=OptimiserSettings(rate=4e-4, offsets=0.3, backbone=3e-5, warm_up=150, constant_until=0.5, decay=0.05),
        losses=LossSettings(label=2.5, dense=1.0),
        denoising=DenoisingSettings(number=100, label_noise=0.25, box_noise=0.8),
        augmentation=AugmentSettings(mosaic=0.2, mixup=0.1, pasted=2, crop_min=0.35, focus=0.7, colour=0.8),
        mild_from=0.65,
        rare=0.04,
        precision="f32",
        evaluate_seconds=1000,
        threads=threads,
    )


TAUGHT = ("neck", "selection", "heads.classes", "label_embed")
"""What `handover` has taught already."""


def embedded(seconds: float = 5400, start: str = "", teacher: str = "", threads: int = 0) -> Recipe:
    """The embedded model, from a detector that `handover` made: encoder and decoder open, and what gives the classes stays near
    the teacher's answers. Matching objects to one query each would unlearn in minutes what the teacher knows of more pictures."""
    return Recipe(
        preset="lite-dino-nanodet-g",
        start=start,
        teacher=teacher,
        freeze=("backbone",),
        seconds=seconds,
        stages=(Stage(0.4, 320, 8), Stage(1.0, 448, 6)),
        optimiser=OptimiserSettings(rate=3e-4, trained=TAUGHT, trained_factor=0.1, warm_up=100, constant_until=0.3, clip=5.0),
        losses=LossSettings(soft=1.0, taught=1.0, matched=0.0),
        ema=EmaSettings(fastest=0.98),
        denoising=DenoisingSettings(number=0),
        augmentation=AugmentSettings(mosaic=0.0, pasted=2, focus=0.6),
        mild_from=0.8,
        rare=0.1,
        precision="auto",
        evaluate_seconds=900,
        threads=threads,
    )


def nearby(seconds: float = 1020, start: str = "", teacher: str = "", threads: int = 0) -> Recipe:
    """After `embedded`: the encoder alone, whose attention learns again, with points that cannot leave."""
    recipe = embedded(seconds, start, teacher, threads)
    return replace(
        recipe,
        near=True,
        freeze=("backbone", "neck", "selection", "heads", "label_embed", "decoder"),
        stages=(Stage(0.5, 384, 8), Stage(1.0, 512, 6)),
        optimiser=OptimiserSettings(rate=2e-4, warm_up=40, constant_until=0.4, clip=5.0),
        losses=replace(recipe.losses, taught=0.0),
        augmentation=AugmentSettings(mosaic=0.0, pasted=1, focus=0.4),
        mild_from=0.5,
        evaluate_seconds=0,
    )


def attention_alone(encoder_layers: int = 0, decoder_layers: int = 3, classes: bool = False) -> tuple[str, ...]:
    """For ``Recipe.freeze``: everything but the encoder and the decoder's attention (and, with ``classes``, the class heads);
    and the sampling offsets of all of the decoder's layers and so many of the encoder's."""
    layers = [f"decoder.layers.{layer}" for layer in range(decoder_layers)]
    kept = [f"{layer}.{part}" for layer in layers for part in ("self_attention", "self_norm", "norm", "ffn")]
    layers += [f"encoder.layers.{layer}" for layer in range(encoder_layers)]
    offsets = [f"{layer}.attention.sampling_offsets" for layer in layers]
    others = ("selection.project", "selection.norm", "selection.box_head", "heads.boxes") if classes else ("selection", "heads")
    return ("backbone", "neck", *others, "label_embed", "decoder.norm", "decoder.reference_head", *kept, *offsets)


def coarser(seconds: float = 150, start: str = "", teacher: str = "", threads: int = 0) -> Recipe:
    """The end of the embedded model's training, after `litedetr.training.coarser`: what fills a photo is taught to the coarsest
    scale; encoder and decoder's attention alone learn, at the size used."""
    return replace(
        nearby(seconds, start, teacher, threads),
        near=False,
        coarser=True,
        freeze=attention_alone(6),
        stages=(Stage(1.0, 512, 8),),
        optimiser=OptimiserSettings(rate=1e-4, warm_up=30, constant_until=0.4, clip=5.0),
        losses=LossSettings(soft=1.0, taught=0.1, matched=0.0, distillation=DistillationSettings(labels=0.0)),
        augmentation=AugmentSettings(mosaic=0.0, pasted=1, focus=0.7),
        mild_from=0.3,
    )


NAMED = {"embedded": embedded, "nearby": nearby, "coarser": coarser, "mobilenet": mobilenet}
"""Recipes by the name that the command line knows them by."""


def finetune(
    seconds: float = 1800, start: str = "embedded", new_classes: bool = True, suppressed: bool = True, threads: int = 0,
    size: int = 512, layers: tuple[int, int] = (6, 3),
) -> Recipe:
    """From trained weights to one's own classes: the final ``size`` throughout, low rates, mild pictures. ``layers``: how many
    the start's encoder and decoder have.

    Matching every object to one query alone would unlearn in minutes what a start with non-maximum suppression knows
    (``suppressed``: a DINO with `DetectorConfig.nms_iou`): it is its own teacher, every token and query that sees an object
    learns it, by attention alone, and what names the classes that it knows stays as it is. Other starts are trained as DETRs
    are, the backbone nearly as it is. Where there are classes that the start does not know by name, what has a row per class
    learns faster, and alone at first.
    """
    gentle = Recipe(
        start=start,
        freeze_stem=True,
        seconds=seconds,
        stages=(Stage(1.0, size, 8),),
        optimiser=OptimiserSettings(
            rate=5e-5 if new_classes else 2e-5, backbone=2e-6, classes=20.0 if new_classes else 1.0, warm_up=20,
            constant_until=0.4, decay=0.05,
        ),
        losses=LossSettings(label=2.5),
        denoising=DenoisingSettings(number=100, label_noise=0.25, box_noise=0.6),
        augmentation=AugmentSettings(mosaic=0.0, crop=0.5, crop_min=0.5, colour=0.4),
        rare=0.02,
        measure_start=True,
        keep_best=True,
        heads_first=30 if new_classes else 0,
        evaluate_seconds=max(120.0, seconds / 8),
        threads=threads,
    )  # fmt: skip
    if not suppressed:
        return gentle
    # Labels of a few hundred photographs name objects worse than the start does where it knows the class: that stays as it is.
    return replace(
        gentle,
        teacher=START,
        freeze=attention_alone(*layers, classes=True),
        hold=True,
        optimiser=OptimiserSettings(rate=5e-5, classes=100.0, warm_up=20, constant_until=0.4, decay=0.0, clip=5.0),
        losses=LossSettings(soft=1.0, taught=0.1, matched=0.0),
        denoising=DenoisingSettings(number=0),
        ema=EmaSettings(fastest=0.98),
    )
