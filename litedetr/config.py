"""DetectorConfig: everything that is needed to build a detector, and the presets."""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

from litedetr import coco
from litedetr.schedule import EncoderSchedule

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
FAMILIES = {"dino": ("anchor_cells",), "deformable_detr": ("two_stage", "box_refine"), "h_detr": ()}
"""Each family, a file of that name in `litedetr/families/`, and its choices: settings that others have in one way alone."""
BACKBONES = {"resnet50": "resnet", "swin_tiny": "swin", "mobilenetv2": "mobilenet", "nanodet_g": "nanodet"}
"""Each backbone and its file in `litedetr/backbones/`."""
LARGEST_TENSOR = 2**28
"""Numbers in the largest tensor that a photo needs; the published models stay below a fifth of it."""

# Far above all that was ever published, and low enough that nothing absurd is even begun.
_WHOLE = {
    "backbone_width": (1, 1024), "width": (1, 4096), "heads": (1, 64), "levels": (1, 8), "points": (1, 64),
    "encoder_ffn": (1, 32768), "low_ffn": (1, 32768), "decoder_ffn": (1, 32768), "decoder_layers": (1, 64),
    "queries": (1, 10_000), "one_to_many_queries": (0, 10_000), "num_classes": (1, 50_000), "top_k": (1, 10_000),
    "short_side": (1, 8192), "long_side": (1, 8192), "size_divisor": (1, 512),
}  # fmt: skip
_REAL = {"temperature": (1e-3, 1e6), "position_shift": (-1.0, 1.0), "threshold": (0.0, 1.0)}
_YES_NO = (
    "key_aware", "same_loc", "proj_key", "shared_heads", "learned_content", "two_stage", "box_refine", "dense_head", "dilation",
)  # fmt: skip
_RENAMED = {"select": "top_k", "duplicates": "nms_iou"}
_ENCODER_STEPS = 256
_NAME_LENGTH = 200
_MOST_ROWS = 64


@dataclass(frozen=True)
class DetectorConfig:
    """A detector's architecture and how it is fed. Lengths in tokens or channels, sizes in pixels.

    Attributes:
        family: "dino", "deformable_detr" or "h_detr"; any of them is "lite" with an interleaved schedule.
        backbone: "resnet50", "swin_tiny", "mobilenetv2" or "nanodet_g"; backbone_width: channels of ResNet's stem or of
            Swin's first stage.
        dilation: ResNet's last stage keeps the stride of the stage before it (DC5).
        width: d, the transformer's width; heads: M; levels: L, of fewer than three the coarsest; points: P per head and level.
        schedule: the encoder's schedule, e.g. "H3L1-(2+1)x3"; "H4L0-(1+1)x6" is the full encoder.
        key_aware: KDA in encoder and decoder instead of plain deformable attention.
        same_loc: one sampling offset shared by all levels (encoder); proj_key: keys have a projection of their own (encoder).
        encoder_ffn, decoder_ffn: hidden widths of the feed-forward networks; low_ffn: that of the second, narrow one for
            low-level tokens in "all" steps, None where they use the wide one.
        decoder_layers, queries: depth of the decoder, number of object queries.
        shared_heads: one class head and one box head for all decoder layers.
        learned_content: queries' contents are learned (mixed query selection) instead of taken from the chosen tokens.
        two_stage: queries are chosen among the encoder's tokens; box_refine: boxes move from layer to layer (both are choices in
            the Deformable DETR family only).
        one_to_many_queries: of the second set, in training (H-DETR).
        temperature, position_shift: of the sine positions.
        anchor_cells: side of the boxes that tokens start from, in cells of their scale (DINO family), and from which they move by
            parts of it; None: as published, 0.05 of the photo's sides on the finest scale, twice as much on each coarser one, and
            moved by a sum before the sigmoid, for which a token has to guess the photo's shape and its own place.
        dense_head: a training-only head that predicts from every encoder token.
        num_classes, class_names, category_ids: outputs; ids as they appear in COCO-format results.
        class_rows: rows that each class has in the class heads, of which the best one counts; () for one each.
        top_k: detections kept by post-processing before any threshold.
        nms_iou: IoU from which on a detection is dropped beside a better one of its class; None keeps all, as the papers do.
        threshold: score at which a detection is shown by default.
        short_side, long_side: the photo is resized to have this shorter side unless the longer would exceed its limit.
        size_divisor: both sides are rounded to multiples of it (the photo is stretched a little, never padded).
        pixel_mean, pixel_std: normalisation of RGB in 0..255.
    """

    family: str = "dino"
    backbone: str = "resnet50"
    backbone_width: int = 64
    dilation: bool = False
    width: int = 256
    heads: int = 8
    levels: int = 4
    points: int = 4
    schedule: str = "H3L1-(2+1)x3"
    key_aware: bool = True
    same_loc: bool = False
    proj_key: bool = False
    encoder_ffn: int = 2048
    low_ffn: int | None = 256
    decoder_ffn: int = 2048
    decoder_layers: int = 6
    queries: int = 900
    shared_heads: bool = True
    learned_content: bool = True
    two_stage: bool = True
    box_refine: bool = True
    one_to_many_queries: int = 0
    temperature: float = 20.0
    position_shift: float = 0.0
    anchor_cells: float | None = None
    dense_head: bool = False
    num_classes: int = 91
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    class_rows: tuple[int, ...] = ()
    top_k: int = 300
    nms_iou: float | None = None
    threshold: float = 0.5
    short_side: int = 800
    long_side: int = 1333
    size_divisor: int = 1
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN
    pixel_std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        self._check_each()
        choices = FAMILIES[self.family]
        if not (self.two_stage and self.box_refine) and ("two_stage" not in choices or self.two_stage):
            raise ValueError(
                f"expected two_stage and box_refine in a {self.family} model, got two_stage={self.two_stage}, "
                f"box_refine={self.box_refine}: only deformable_detr does without them, and two stages need box_refine"
            )
        if self.dilation and self.backbone != "resnet50":
            raise ValueError(f"expected dilation in a resnet50, got it in a {self.backbone}: leave it out")
        schedule = EncoderSchedule.parse(self.schedule)
        levels = schedule.levels
        if levels != self.levels:
            raise ValueError(
                f"expected a schedule for {self.levels} scales, got {self.schedule} for {levels}: change levels or the schedule"
            )
        if self.width % self.heads:
            raise ValueError(f"expected a width divisible by the number of heads, got width={self.width}, heads={self.heads}")
        if self.nms_iou is not None and not (_is_real(self.nms_iou) and 0 < self.nms_iou <= 1):
            raise ValueError(f"expected nms_iou as an IoU in (0, 1], or None to keep all, got {_short(self.nms_iou)}")
        cells = self.anchor_cells
        if cells is not None and not ("anchor_cells" in choices and _is_real(cells) and 0.1 <= cells <= 100):
            raise ValueError(
                f"expected anchor_cells from 0.1 to 100 in a dino model, or None, got {_short(cells)} in a {self.family} one"
            )
        for name in ("class_names", "category_ids", "class_rows"):
            given = len(getattr(self, name))
            if given and given != self.num_classes:
                raise ValueError(f"expected {self.num_classes} {name} (num_classes), got {given}: give one per class or none")
        if schedule.updates * schedule.blocks > _ENCODER_STEPS:
            raise ValueError(
                f"expected at most {_ENCODER_STEPS} encoder steps, got {self.schedule}: choose fewer updates or blocks"
            )
        if self.largest_tensor > LARGEST_TENSOR:
            raise ValueError(
                f"expected a model whose largest tensor has at most {LARGEST_TENSOR:,} numbers, got {self.largest_tensor:,}: "
                "make the pictures smaller (short_side, long_side, size_divisor), or the widths, queries or classes fewer"
            )

    def _check_each(self) -> None:
        """Types, and ranges of what is a number: configs come from strangers, too."""
        for name, (low, high) in _WHOLE.items():
            value = getattr(self, name)
            if not ((value is None and name == "low_ffn") or (_is_whole(value) and low <= value <= high)):
                raise ValueError(f"expected {name} as a whole number from {low} to {high:,}, got {_short(value)}")
        for name, (low, high) in _REAL.items():
            value = getattr(self, name)
            if not (_is_real(value) and low <= value <= high):
                raise ValueError(f"expected {name} as a number from {low:g} to {high:g}, got {_short(value)}")
        for name in _YES_NO:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"expected {name} as true or false, got {_short(getattr(self, name))}")
        for name in ("family", "backbone", "schedule"):
            if not isinstance(getattr(self, name), str) or len(getattr(self, name)) > 60:
                raise ValueError(f"expected {name} as a short text, got {_short(getattr(self, name))}")
        for name, known in (("family", list(FAMILIES)), ("backbone", list(BACKBONES))):
            if getattr(self, name) not in known:
                raise ValueError(f"expected the {name} {', '.join(known[:-1])} or {known[-1]}, got {getattr(self, name)!r}")
        for name in ("pixel_mean", "pixel_std"):
            values = getattr(self, name)
            good = (
                isinstance(values, tuple) and len(values) == 3 and all(_is_real(value) and abs(value) <= 1e6 for value in values)
            )
            if not good or (name == "pixel_std" and min(values) < 1e-6):
                raise ValueError(f"expected {name} as three numbers, one per channel, got {_short(values)}")
        for name, fits in (("class_names", _is_name), ("category_ids", _is_id), ("class_rows", _is_rows)):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(map(fits, values)):
                wrong = next((value for value in values if not fits(value)), values) if isinstance(values, tuple) else values
                numbers = f"whole numbers from 1 to {_MOST_ROWS}" if name == "class_rows" else "whole numbers"
                what = f"printable texts of at most {_NAME_LENGTH} letters" if name == "class_names" else numbers
                raise ValueError(f"expected {name} as {what}, got {_short(wrong)}")

    @property
    def largest_tensor(self) -> int:
        """About how many numbers the largest tensor of a photo has: a map of the backbone, or what tokens or queries become."""
        pixels = (self.short_side + self.size_divisor) * (self.long_side + self.size_divisor)
        tokens = pixels // 48 + self.levels  # strides 8, 16, 32, …
        sampled = 2 * self.heads * self.levels * self.points
        per_token = max(self.width, self.encoder_ffn, self.class_outputs, sampled)
        queries = self.queries + self.one_to_many_queries
        per_query = max(self.width, self.decoder_ffn, self.class_outputs, sampled, queries)
        return max(pixels // 4 * self.backbone_width, tokens * per_token, queries * per_query)

    @property
    def encoder_schedule(self) -> EncoderSchedule:
        return EncoderSchedule.parse(self.schedule)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per class; "class 7" where none was given."""
        return self.class_names or tuple(f"class {index}" for index in range(self.num_classes))

    @property
    def ids(self) -> tuple[int, ...]:
        """One category id per class; the index where none was given."""
        return self.category_ids or tuple(range(self.num_classes))

    @property
    def classes(self) -> int | tuple[int, ...]:
        """What class heads are built for: the number of classes, with a row each, or the rows of each class."""
        return self.class_rows or self.num_classes

    @property
    def class_outputs(self) -> int:
        """Rows of a class head."""
        return sum(self.class_rows) or self.num_classes

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives the same config back."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DetectorConfig:
        """The config of a config.json, also of one with the names that fields had once."""
        values = renamed(values)
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"expected a litedetr config, got the unknown fields {', '.join(name[:40] for name in unknown[:5])}: "
                "was it written by a newer version?"
            )
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def renamed(values: dict[str, Any]) -> dict[str, Any]:
    """Settings with the names that they have now."""
    return {_RENAMED.get(name, name): value for name, value in values.items()}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _NAME_LENGTH and value.isprintable()


def _is_id(value: object) -> bool:
    return _is_whole(value) and abs(value) <= 2**53


def _is_rows(value: object) -> bool:
    return _is_whole(value) and 1 <= value <= _MOST_ROWS


def _short(value: object) -> str:
    return reprlib.repr(value)


_SCHEDULES = {"h2l2-2x3": "H2L2-(2+1)x3", "h3l1-6x1": "H3L1-(6+1)x1", "h3l1-2x3": "H3L1-(2+1)x3"}
_BACKBONES = {"r50": ("resnet50", 64), "swin-t": ("swin_tiny", 96)}


def _dino(backbone: str, width: int) -> DetectorConfig:
    """DINO with four scales (Zhang et al. 2023)."""
    return DetectorConfig(
        backbone=backbone,
        backbone_width=width,
        schedule=str(EncoderSchedule.full()),
        key_aware=False,
        low_ffn=None,
        class_names=coco.names_by_id(),
    )


def _deformable_detr(two_stage: bool, box_refine: bool) -> DetectorConfig:
    """Deformable DETR with ResNet-50 (Zhu et al. 2021)."""
    return DetectorConfig(
        family="deformable_detr",
        schedule=str(EncoderSchedule.full()),
        key_aware=False,
        encoder_ffn=1024,
        low_ffn=None,
        decoder_ffn=1024,
        queries=300,
        shared_heads=not box_refine,
        learned_content=False,
        two_stage=two_stage,
        box_refine=box_refine,
        temperature=10000.0,
        position_shift=-0.5,
        class_names=coco.names_by_id(),
        top_k=100,
    )


def _single_scale(dilation: bool) -> DetectorConfig:
    """Deformable DETR on the backbone's last map alone, of stride 32, or 16 with dilation (DC5)."""
    full = _deformable_detr(two_stage=False, box_refine=False)
    return replace(full, levels=1, schedule=str(EncoderSchedule.full(1)), dilation=dilation)


def _h_detr(backbone: str, width: int) -> DetectorConfig:
    """H-DETR: two-stage, mixed selection, 300 one-to-one and 1500 one-to-many queries (Jia et al. 2023)."""
    return replace(
        _deformable_detr(two_stage=True, box_refine=True),
        family="h_detr",
        backbone=backbone,
        backbone_width=width,
        encoder_ffn=2048,
        decoder_ffn=2048,
        learned_content=True,
        one_to_many_queries=1500,
    )


def _lite(full: DetectorConfig, schedule: str) -> DetectorConfig:
    """A detector with the paper's encoder: interleaved updates, a narrow network for low-level tokens, and key-aware attention.

    Lite-Deformable DETR keeps plain attention: only so do its operations add up to the paper's table 4.
    """
    return replace(full, schedule=schedule, key_aware=full.family != "deformable_detr", low_ffn=full.width)


def _lite_dino_mobilenet() -> DetectorConfig:
    """The embedded model: small enough for a Space without a GPU, under 10 MB in half precision."""
    return DetectorConfig(
        backbone="mobilenetv2",
        width=128,
        encoder_ffn=512,
        low_ffn=128,
        decoder_ffn=512,
        decoder_layers=3,
        queries=150,
        num_classes=80,
        class_names=coco.NAMES,
        category_ids=coco.IDS,
        threshold=0.26,
        short_side=320,
        long_side=320,
        size_divisor=32,
        pixel_mean=(127.5, 127.5, 127.5),
        pixel_std=(127.5, 127.5, 127.5),
    )


def _lite_dino_nanodet() -> DetectorConfig:
    """The embedded model: its backbone has seen COCO, and queries begin with the contents of the tokens that were chosen."""
    return replace(
        _lite_dino_mobilenet(),
        backbone="nanodet_g",
        encoder_ffn=256,
        learned_content=False,
        anchor_cells=2.8,
        queries=300,
        short_side=512,
        long_side=512,
        nms_iou=0.6,
        top_k=900,
        pixel_mean=IMAGENET_MEAN,
        pixel_std=IMAGENET_STD,
    )


@lru_cache(maxsize=1)
def _presets() -> dict[str, DetectorConfig]:
    known = {
        "deformable-detr-r50": _deformable_detr(two_stage=False, box_refine=False),
        "deformable-detr-r50-refine": _deformable_detr(two_stage=False, box_refine=True),
        "deformable-detr-r50-two-stage": _deformable_detr(two_stage=True, box_refine=True),
        "deformable-detr-r50-single-scale": _single_scale(dilation=False),
        "deformable-detr-r50-single-scale-dc5": _single_scale(dilation=True),
        "lite-dino-mobilenet": _lite_dino_mobilenet(),
        "lite-dino-nanodet-g": _lite_dino_nanodet(),
    }
    for short, (backbone, width) in _BACKBONES.items():
        for family, full in (("dino", _dino(backbone, width)), ("h-detr", _h_detr(backbone, width))):
            known[f"{family}-{short}"] = full
            known |= {f"lite-{family}-{short}-{name}": _lite(full, schedule) for name, schedule in _SCHEDULES.items()}
    two_stage = known["deformable-detr-r50-two-stage"]
    for name, schedule in (_SCHEDULES | {"h3l1-3x2": "H3L1-(3+1)x2"}).items():
        known[f"lite-deformable-detr-r50-{name}"] = _lite(two_stage, schedule)
    return known


def presets() -> dict[str, DetectorConfig]:
    """Every preset by name."""
    return dict(_presets())


def preset(name: str, **changes: Any) -> DetectorConfig:
    """The preset called `name`, with fields replaced; a changed ``num_classes`` drops the names and ids of the old classes."""
    known, changes = presets(), renamed(changes)
    if name not in known:
        raise ValueError(f"expected one of the presets {', '.join(sorted(known))}, got {name!r}")
    config = known[name]
    if changes.get("num_classes", config.num_classes) != config.num_classes:
        changes = {"class_names": (), "category_ids": (), "class_rows": (), **changes}
    return replace(config, **changes) if changes else config
