"""What a published checkpoint is: its config, from the names and shapes of its tensors, its ``args`` and its file's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from litedetr.config import DetectorConfig, preset
from litedetr.schedule import EncoderSchedule
from litedetr.weights.errors import WeightsError

_SAME_COMPUTATION = {
    "pre_norm": False,
    "transformer_activation": "relu",
    "two_stage_type": "standard",
    "value_proj_after": False,
    "decoder_sa_type": "sa",
    "num_patterns": 0,
}
_SCHEDULE_IN_NAME = re.compile(r"(?<![a-z0-9])s(\d)ex(\d)(?!\d)")
_EIGHT_HEADS = re.compile(r"_s\dex\d_|_[45]scale|deformable_detr.*checkpoint|hybrid_branch")
_SWIN_T = (96, (2, 2, 6, 2))


@dataclass(frozen=True)
class Known:
    """What is known besides the tensors: the checkpoint's ``args``, its file's name, and the user's own word."""

    args: Mapping[str, Any]
    name: str = ""
    schedule: str | None = None
    heads: int | None = None


def infer_config(state: Mapping[str, Tensor], known: Known) -> DetectorConfig:
    """The config of the model that a state dict with published names belongs to.

    Raises:
        WeightsError: it is no model of a known family, or the schedule or the number of heads is unknown.
    """
    if not {"transformer.level_embed", "class_embed.0.weight", "transformer.decoder.class_embed.0.weight"} & state.keys():
        raise WeightsError(
            "expected a checkpoint of Lite-DINO, DINO, Deformable DETR or H-DETR, got the keys "
            f"{', '.join(list(state)[:3])}, …: convert one of those"
        )
    for name, wanted in _SAME_COMPUTATION.items():
        if known.args.get(name, wanted) != wanted:
            raise WeightsError(
                f"expected a model trained with {name}={wanted!r}, got {known.args[name]!r}: it computes otherwise"
            )
    L, d = state["transformer.level_embed"].shape
    family = _family(state, known)
    base = preset({"dino": "dino-r50", "h_detr": "h-detr-r50"}.get(family, "deformable-detr-r50"))
    heads = _heads(known)
    encoder, decoder = "transformer.encoder.layers.{}.", "transformer.decoder.layers.{}."
    layers, decoder_layers = _count(state, encoder), _count(state, decoder)
    narrow = {i for i in range(layers) if f"{encoder.format(i)}linear12.weight" in state}
    first = encoder.format(0)
    points = _points(state, decoder.format(0), heads, L)
    classes = _first_of(state, "class_embed.0.weight").shape[0]
    two_stage = family != "deformable_detr" or "transformer.pos_trans.weight" in state
    box_refine = two_stage or "transformer.decoder.bbox_embed.0.layers.0.weight" in state
    names = known.args.get("class_names") or (base.class_names if classes == len(base.class_names) else ())
    return DetectorConfig(
        family=family,
        **_backbone(state),
        dilation=bool(known.args.get("dilation", "dc5" in known.name.lower())),
        width=d,
        heads=heads,
        levels=L,
        points=points,
        schedule=str(_schedule(state, known, L, layers, narrow)),
        key_aware=f"{first}self_attn.attention_weights.weight" not in state,
        same_loc=_points(state, first, heads, 1, "self_attn") == points and L > 1,
        proj_key=f"{first}self_attn.key_proj.weight" in state,
        encoder_ffn=state[f"{first}linear1.weight"].shape[0],
        low_ffn=state[f"{encoder.format(max(narrow))}linear12.weight"].shape[0] if narrow else None,
        decoder_ffn=state[f"{decoder.format(0)}linear1.weight"].shape[0],
        decoder_layers=decoder_layers,
        **_queries(state, family, two_stage, known),
        shared_heads=_shared(state, decoder_layers),
        two_stage=two_stage,
        box_refine=box_refine,
        temperature=float(known.args.get("pe_temperatureH", base.temperature)) if family == "dino" else base.temperature,
        position_shift=base.position_shift,
        num_classes=classes,
        class_names=tuple(names),
        top_k=int(known.args.get("num_select", base.top_k)),
    )


def schedule_from(known: Known, levels: int, layers: int) -> EncoderSchedule | None:
    """The schedule that ``args``, the file's name and the user tell; None where none of them does.

    Raises:
        WeightsError: args and name disagree, and the user says nothing.
    """
    if known.schedule:
        return EncoderSchedule.parse(known.schedule)
    told = {}
    if "enc_scale" in known.args and "num_expansion" in known.args:
        told["its args"] = (int(known.args["enc_scale"]), int(known.args["num_expansion"]))
    found = _SCHEDULE_IN_NAME.search(known.name)
    if found:
        told["its name"] = (int(found[1]), int(found[2]))
    schedules = {
        source: EncoderSchedule(high, levels - high, layers // blocks, blocks) for source, (high, blocks) in told.items()
    }
    if len(set(schedules.values())) > 1:
        raise WeightsError(
            f"expected one schedule for {known.name}, got {' and '.join(f'{s} from {by}' for by, s in schedules.items())}: "
            "say which with --schedule"
        )
    return next(iter(schedules.values()), None)


def _schedule(state: Mapping[str, Tensor], known: Known, L: int, layers: int, narrow: set[int]) -> EncoderSchedule:
    lite = bool(narrow) or any(".query_proj." in name for name in state) or "enc_scale" in known.args
    schedule = schedule_from(known, L, layers)
    if schedule is None and lite:
        raise WeightsError(
            f"expected to learn the encoder's schedule of {known.name or 'these weights'}, and neither args nor name tell: "
            'give it with --schedule, e.g. --schedule "H3L1-(2+1)x3" (a wrong one loads and ruins the detections)'
        )
    schedule = schedule or EncoderSchedule.full(L, layers)
    updated = {step.index for step in schedule.steps() if step.kind == "all"}
    if schedule.levels != L or len(schedule.steps()) != layers or (narrow and narrow != updated):
        raise WeightsError(
            f"expected a schedule for {L} scales and {layers} layers"
            + (f", of which {', '.join(str(i + 1) for i in sorted(narrow))} update every scale" if narrow else "")
            + f", got {schedule}: give another with --schedule"
        )
    return schedule


def _heads(known: Known) -> int:
    if known.heads:
        return known.heads
    if "nheads" in known.args:
        return int(known.args["nheads"])
    if _EIGHT_HEADS.search(known.name):
        return 8
    raise WeightsError(
        f"expected to learn the number of attention heads of {known.name or 'these weights'}, and neither args nor name "
        "tell: give it with --heads (8 in the published models)"
    )


def _family(state: Mapping[str, Tensor], known: Known) -> str:
    if "transformer.enc_out_class_embed.weight" in state:
        return "dino"
    if "transformer.reference_points.weight" in state:
        return "deformable_detr"
    if "transformer.pos_trans.weight" in state:
        hybrid = "query_embed.weight" in state or "num_queries_one2one" in known.args or "hybrid" in known.name
        return "h_detr" if hybrid else "deformable_detr"
    raise WeightsError(
        "expected DINO's, Deformable DETR's or H-DETR's query selection (transformer.enc_out_class_embed, "
        "transformer.reference_points or transformer.pos_trans), got none of them: convert a checkpoint of these families"
    )


def _queries(state: Mapping[str, Tensor], family: str, two_stage: bool, known: Known) -> dict[str, Any]:
    """Numbers of queries: from the embedding that has one row for each, else from args, else as published."""
    args = known.args
    if family == "dino":
        learned = state.get("transformer.tgt_embed.weight")
        queries = int(args.get("num_queries", 900)) if learned is None else learned.shape[0]
        return {"queries": queries, "learned_content": learned is not None}
    embedded = state.get("query_embed.weight")
    if family == "h_detr":
        queries = int(args.get("num_queries_one2one", 300))
        extra = int(args.get("num_queries_one2many", 1500)) if embedded is None else embedded.shape[0] - queries
        return {"queries": queries, "one_to_many_queries": extra, "learned_content": embedded is not None}
    queries = int(args.get("num_queries", 300)) if two_stage else embedded.shape[0]
    return {"queries": queries, "learned_content": False}


def _shared(state: Mapping[str, Tensor], layers: int) -> bool:
    """Whether all decoder layers have one class head and one box head."""
    kinds = ("class_embed.{}.weight", "class_embed.{}.bias", "bbox_embed.{}.layers.0.weight", "bbox_embed.{}.layers.2.bias")
    return all(
        torch.equal(_first_of(state, kind.format(0)), other)
        for kind in kinds
        for index in range(1, layers)
        if (other := _first_of(state, kind.format(index))) is not None
    )


def _backbone(state: Mapping[str, Tensor]) -> dict[str, Any]:
    stem = state.get("backbone.0.body.conv1.weight")
    if stem is not None:
        depths = tuple(_count(state, f"backbone.0.body.layer{stage}.{{}}.") for stage in range(1, 5))
        if depths != (3, 4, 6, 3):
            raise WeightsError(f"expected a ResNet-50 (3, 4, 6, 3 blocks), got {', '.join(map(str, depths))} blocks")
        return {"backbone": "resnet50", "backbone_width": stem.shape[0]}
    for prefix in ("backbone.0.", "backbone.0.body."):
        patches = state.get(f"{prefix}patch_embed.proj.weight")
        if patches is not None:
            depths = tuple(_count(state, f"{prefix}layers.{stage}.blocks.{{}}.") for stage in range(4))
            if (patches.shape[0], depths) != _SWIN_T:
                raise WeightsError(
                    f"expected a Swin-T (96 channels; 2, 2, 6, 2 blocks), got {patches.shape[0]} channels and "
                    f"{', '.join(map(str, depths))} blocks"
                )
            return {"backbone": "swin_tiny", "backbone_width": patches.shape[0]}
    found = [name for name in state if name.startswith("backbone.")][:3]
    raise WeightsError(f"expected a ResNet-50 or a Swin-T as backbone, got {', '.join(found) or 'no backbone'}, …")


def _points(state: Mapping[str, Tensor], layer: str, heads: int, levels: int, attention: str = "cross_attn") -> int:
    rows = state[f"{layer}{attention}.sampling_offsets.weight"].shape[0]
    if attention == "cross_attn" and rows % (2 * heads * levels):
        raise WeightsError(
            f"expected sampling offsets for {heads} heads and {levels} scales, got {rows} rows: give the heads with --heads"
        )
    return rows // (2 * heads * levels)


def _first_of(state: Mapping[str, Tensor], name: str) -> Tensor | None:
    return state.get(name, state.get(f"transformer.decoder.{name}"))


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many of `pattern` with 0, 1, 2, … begin a name."""
    before, after = pattern.split("{}")
    return len({name[len(before) :].split(".")[0] for name in state if name.startswith(before)})
