"""What a training starts from: a recipe's detector with random weights, or a trained one, whatever its classes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from litedetr.backbones import backbone_of
from litedetr.config import DetectorConfig
from litedetr.detector import Detector
from litedetr.encoder import InterleavedEncoder
from litedetr.training.annotations import few
from litedetr.training.classes import CLASS_PARTS, same_names
from litedetr.training.data import PhotoSet
from litedetr.training.imagenet import load_imagenet_backbone
from litedetr.training.likeness import likenesses
from litedetr.training.linear_probe import linear_probe
from litedetr.training.recipes import Recipe

log = logging.getLogger(__name__)


def build_detector(recipe: Recipe, photos: PhotoSet) -> Detector:
    """The recipe's detector for the classes of ``photos``: a trained one (``recipe.start``), or random weights.

    Raises:
        ValueError: the recipe has a start and a backbone, and does not say that the latter takes the place of the former's.
    """
    if recipe.start and recipe.backbone and "backbone" not in recipe.fresh:
        raise ValueError(
            f"expected a trained detector or a backbone to start from, got both ({recipe.start} and {recipe.backbone}); "
            'leave the backbone out: the detector has its own; or name "backbone" in `fresh` to put it in its place'
        )
    if recipe.start:
        # with a teacher, the first stage's own heads answer for every token, and need no other beside them
        changes = {**recipe.changes, "dense_head": recipe.losses.dense > 0 and not recipe.teacher}
        detector = from_trained(recipe.start, photos, changes, recipe.fresh, recipe.hold)
    else:
        classes = {"class_names": tuple(photos.names), "category_ids": tuple(photos.category_ids)}
        detector = Detector.from_preset(recipe.preset, num_classes=len(photos.names), **{**classes, **recipe.changes})
    if recipe.backbone:
        load_backbone(detector, recipe.backbone)
    if recipe.closed:
        close_branches(detector.encoder)
    if recipe.near:
        look_near(detector)
    if recipe.freeze_stem:
        detector.backbone.freeze_stem()
    for name in recipe.freeze:
        detector.get_submodule(name).requires_grad_(False)
    return detector


def load_backbone(detector: Detector, path: str) -> None:
    """Trained weights of the kind that the detector's backbone has.

    Raises:
        ValueError: this file does not fit.
    """
    load = backbone_of(detector.config).load or load_imagenet_backbone
    load(detector.backbone, path)


@torch.no_grad()
def close_branches(encoder: InterleavedEncoder) -> None:
    """Every layer adds nothing at first, so that all encoders begin as the same one: norms around the backbone's features.

    A trained decoder reads those better than what random layers make of them.
    """
    for layer in encoder.layers:
        networks = [network.linear2 for network in (layer.ffn, layer.low_ffn) if network is not None]
        for last in (layer.attention.output_proj, *networks):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)


@torch.no_grad()
def look_near(detector: Detector) -> None:
    """The encoder's attention begins anew and adds nothing; its points lie at half the usual distance, the decoder's at the usual
    one, and all stay there.

    Where a teacher's answers are good from the start, attention learns to add nothing: its points leave the picture.
    """
    for layer in detector.encoder.layers:
        layer.attention.reset_parameters()
        layer.attention.sampling_offsets.bias.mul_(0.5)
        nn.init.zeros_(layer.attention.output_proj.weight)
    for layer in detector.decoder.layers:
        ring = copy.deepcopy(layer.attention)
        ring.reset_parameters()
        layer.attention.sampling_offsets = ring.sampling_offsets
    for layer in (*detector.encoder.layers, *detector.decoder.layers):
        layer.attention.sampling_offsets.requires_grad_(False)


@torch.no_grad()
def from_trained(
    source: str, photos: PhotoSet, changes: Mapping[str, Any] | None = None, fresh: Sequence[str] = (), hold: bool = False
) -> Detector:
    """A trained detector made one for the classes of ``photos``.

    Where the classes differ, the class heads are made anew: a class that both know by the same name keeps its weights, another
    one begins with what the detector calls its objects (`litedetr.training.likeness`), or by a linear probe on them.

    Args:
        source: "embedded", a weights folder or a Hub id.
        changes: of its config; ``dense_head`` gives it a new auxiliary head for the training.
        fresh: names of modules that get random weights.
        hold: the rows of the class heads that come from the trained detector are not trained.

    Raises:
        ValueError: with these changes a weight that is not ``fresh`` has no match in the trained detector.
    """
    trained = Detector.from_pretrained(source)
    before, now = trained.config.names, tuple(photos.names)
    common = same_names(now, before)
    strange = [place for place in range(len(now)) if place not in common]
    alike = dict(zip(strange, likenesses(trained, photos, strange), strict=True)) if strange else {}
    like = [[common[place]] if place in common else alike[place] for place in range(len(now))]
    rows = [_rows(known, trained.config) for known in like]
    counts = tuple(max(len(row), 1) for row in rows)
    classes = {
        "num_classes": len(now), "class_names": now, "category_ids": tuple(photos.category_ids),
        "class_rows": counts if max(counts) > 1 else (),
    }  # fmt: skip
    config = DetectorConfig.from_dict({**trained.config.to_dict(), "dense_head": False, **(changes or {}), **classes})
    detector = Detector(config)
    state, weights = detector.state_dict(), trained.state_dict()
    anew = ("dense_head.", *(f"{name}." for name in fresh))
    if unused := [key for key in weights if key not in state and not key.startswith(anew)]:
        raise ValueError(
            f"expected a detector that takes every weight of {source}, got one without {unused[0]} ({len(unused)} in all); "
            "take back the change that drops them, or name their part in `fresh`"
        )
    for key, value in state.items():
        if key.startswith(anew):
            continue
        if before != now and key.startswith(CLASS_PARTS):
            embedded = key.startswith("label_embed.")  # a row a class, and one more
            parts = value.split([1] * len(now) + [1] if embedded else counts)
            for part, given in zip(parts, [known[:1] for known in like] if embedded else rows, strict=False):
                if given:
                    part.copy_(weights[key][given])
        elif key in weights and weights[key].shape == value.shape:
            value.copy_(weights[key])
        else:
            got = f"one of shape {tuple(weights[key].shape)}" if key in weights else "none"
            raise ValueError(
                f"expected a weight {key} of shape {tuple(value.shape)} in {source}, got {got}; "
                "take back the change that needs it, or name its part in `fresh`"
            )
    unknown = [place for place, row in enumerate(rows) if not row]
    for name, probed in linear_probe(trained, photos, unknown).items() if unknown else ():
        if not name.startswith(anew):
            head = detector.get_submodule(name)
            for place, row in zip(unknown, probed, strict=True):
                if row is not None:
                    head.weight[sum(counts[:place])], head.bias[sum(counts[:place])] = row[:-1], row[-1]
    if hold:
        _hold(detector, torch.tensor([not row for row, count in zip(rows, counts, strict=True) for _ in range(count)]))
    known = [now[place] for place in common]
    if before == now:
        log.info("starting from %s, which has the same %d classes", source, len(now))
    else:
        log.info(
            "starting from %s: its %d classes are not the %d of %s, so the class heads are made anew; %s",
            source, len(before), len(now), photos.annotations,
            f"{len(known)} that both know keep their weights ({few(known)})" if known else "the two have no class in common",
        )  # fmt: skip
    return detector


def _rows(classes: Sequence[int], config: DetectorConfig) -> list[int]:
    """Which rows of a detector's class heads these classes have."""
    counts = config.class_rows or (1,) * config.num_classes
    firsts = list(accumulate(counts, initial=0))
    return [row for place in classes for row in range(firsts[place], firsts[place + 1])]


def _hold(detector: Detector, learned: Tensor) -> None:
    """Train only those rows of the class heads that are ``learned`` (R,), bool."""
    for name, parameter in detector.named_parameters():
        if name.startswith(CLASS_PARTS) and not name.startswith("label_embed."):
            parameter.requires_grad_(bool(learned.any()))
            if learned.any():
                parameter.register_hook(lambda gradient: _only(learned, gradient))


def _only(learned: Tensor, gradient: Tensor) -> Tensor:
    """The gradient (R, …) of the rows that are ``learned`` (R,), zeros of the others; the detector may be on a GPU by now."""
    return torch.where(learned.to(gradient.device).view(-1, *[1] * (gradient.ndim - 1)), gradient, 0.0)
