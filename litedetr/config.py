"""DetectorConfig: everything that is needed to build a detector, and the presets."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from litedetr import coco
from litedetr.schedule import EncoderSchedule

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class DetectorConfig:
    """A detector's architecture and how it is fed. Lengths in tokens or channels, sizes in pixels.

    Attributes:
        family: "dino" (DINO and Lite-DINO: two-stage mixed query selection, box refinement).
        backbone: "resnet50" or "mobilenetv2"; backbone_width: channels of the ResNet's stem.
        width: d, the transformer's width; heads: M; levels: L; points: P per head and level.
        schedule: the encoder's schedule, e.g. "H3L1-(2+1)x3"; "H4L0-(1+1)x6" is the full encoder.
        key_aware: KDA in encoder and decoder instead of plain deformable attention.
        same_loc: one sampling offset shared by all levels (encoder); proj_key: keys have a projection of their own (encoder).
        encoder_ffn, decoder_ffn: hidden widths of the feed-forward networks; low_ffn: that of the second, narrow one for
            low-level tokens in "all" steps, None where they use the wide one.
        decoder_layers, queries: depth of the decoder, number of object queries.
        shared_heads: one class head and one box head for all decoder layers.
        learned_content: queries' contents are learned (mixed query selection) instead of taken from the chosen tokens.
        temperature: of the sine positions.
        dense_head: a training-only head that predicts from every encoder token.
        num_classes, class_names, category_ids: outputs; ids as they appear in COCO-format results.
        select: detections kept by post-processing before any threshold.
        threshold: score at which a detection is shown by default.
        short_side, long_side: the photo is resized to have this shorter side unless the longer would exceed its limit.
        size_divisor: the padded size is a multiple of it.
        pixel_mean, pixel_std: normalisation of RGB in 0..255.
    """

    family: str = "dino"
    backbone: str = "resnet50"
    backbone_width: int = 64
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
    temperature: float = 20.0
    dense_head: bool = False
    num_classes: int = 91
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    select: int = 300
    threshold: float = 0.5
    short_side: int = 800
    long_side: int = 1333
    size_divisor: int = 1
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN
    pixel_std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        levels = EncoderSchedule.parse(self.schedule).levels
        if levels != self.levels:
            raise ValueError(
                f"expected a schedule for {self.levels} scales, got {self.schedule} for {levels}: change levels or the schedule"
            )
        if self.width % self.heads:
            raise ValueError(f"expected a width divisible by the number of heads, got width={self.width}, heads={self.heads}")
        for name in ("class_names", "category_ids"):
            given = len(getattr(self, name))
            if given and given != self.num_classes:
                raise ValueError(f"expected {self.num_classes} {name} (num_classes), got {given}: give one per class or none")

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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives the same config back."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DetectorConfig:
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"expected a litedetr config, got the unknown fields {', '.join(unknown[:5])}: was it written by a newer version?"
            )
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


_SCHEDULES = {"h2l2-2x3": "H2L2-(2+1)x3", "h3l1-6x1": "H3L1-(6+1)x1", "h3l1-2x3": "H3L1-(2+1)x3"}


def _dino_r50() -> DetectorConfig:
    """DINO with ResNet-50 and four scales, 12 epochs' published configuration."""
    return DetectorConfig(
        schedule=str(EncoderSchedule.full()),
        key_aware=False,
        low_ffn=None,
        class_names=coco.names_by_id(),
    )


def _lite_dino_r50(schedule: str) -> DetectorConfig:
    """Lite-DINO with ResNet-50 (paper, table 3)."""
    return DetectorConfig(schedule=schedule, class_names=coco.names_by_id())


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
        select=100,
        threshold=0.3,
        short_side=640,
        long_side=640,
        size_divisor=64,
        pixel_mean=(127.5, 127.5, 127.5),
        pixel_std=(127.5, 127.5, 127.5),
    )


def presets() -> dict[str, DetectorConfig]:
    """Every preset by name."""
    lite = {f"lite-dino-r50-{name}": _lite_dino_r50(schedule) for name, schedule in _SCHEDULES.items()}
    return {**lite, "dino-r50": _dino_r50(), "lite-dino-mobilenet": _lite_dino_mobilenet()}


def preset(name: str, **changes: Any) -> DetectorConfig:
    """The preset called `name`, with fields replaced; a changed ``num_classes`` drops the names and ids of the old classes."""
    known = presets()
    if name not in known:
        raise ValueError(f"expected one of the presets {', '.join(sorted(known))}, got {name!r}")
    config = known[name]
    if changes.get("num_classes", config.num_classes) != config.num_classes:
        changes = {"class_names": (), "category_ids": (), **changes}
    return replace(config, **changes)
