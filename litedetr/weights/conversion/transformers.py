"""Names of transformers' DeformableDetr -> names of the published implementation.

Two layouts exist: that of 2022, which the Hub's weights have (torchvision's names in the backbone, ``fc1``, ``out_proj``), and
that of transformers 5 (``embedder``, ``stages``; ``mlp.fc1`` and ``o_proj`` in memory). Both are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from litedetr.weights.errors import WeightsError

_ENCODER_LAYER = (
    (r"^self_attn_layer_norm\.", "norm1."),
    (r"^final_layer_norm\.", "norm2."),
    (r"^(?:mlp\.)?fc([12])\.", r"linear\1."),
)
_DECODER_LAYER = (
    (r"^encoder_attn\.", "cross_attn."),
    (r"^encoder_attn_layer_norm\.", "norm1."),
    (r"^self_attn_layer_norm\.", "norm2."),
    (r"^final_layer_norm\.", "norm3."),
    (r"^self_attn\.o(?:ut)?_proj\.", "self_attn.out_proj."),
    (r"^(?:mlp\.)?fc([12])\.", r"linear\1."),
)
_BACKBONE = (
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
)
_TOP = (
    (r"^model\.input_proj\.", "input_proj."),
    (r"^model\.query_position_embeddings\.", "query_embed."),
    (r"^model\.", "transformer."),
)
_ARGUMENTS = {
    "encoder_layers": "enc_layers",
    "decoder_layers": "dec_layers",
    "num_feature_levels": "num_feature_levels",
    "encoder_n_points": "enc_n_points",
    "decoder_n_points": "dec_n_points",
    "encoder_attention_heads": "nheads",
    "with_box_refine": "with_box_refine",
    "two_stage": "two_stage",
    "dilation": "dilation",
}


def published_name(name: str) -> str:
    """Name in transformers' state dict, either layout -> name in the published implementation's."""
    backbone = re.match(r"^model\.backbone\.(?:conv_encoder\.)?model\.(.*)$", name)
    if backbone:
        return "backbone.0.body." + _backbone_name(backbone[1])
    layer = re.match(r"^model\.(encoder|decoder)\.layers\.(\d+)\.(.*)$", name)
    if layer:
        stack, index, rest = layer.groups()
        return f"transformer.{stack}.layers.{index}.{_first(rest, _ENCODER_LAYER if stack == 'encoder' else _DECODER_LAYER)}"
    return _first(name, _TOP)


def published_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Transformers' state dict under the published names, the decoder's three input projections joined.

    Transformers 5 saves a head that layers share once, as that of the first layer; the published layout has it for each.
    """
    renamed = {published_name(name): value for name, value in state.items()}
    for name in [name for name in renamed if name.endswith((".self_attn.q_proj.weight", ".self_attn.q_proj.bias"))]:
        parts = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
        if all(part in renamed for part in parts):
            joined = torch.cat([renamed.pop(part) for part in parts])
            renamed[name.replace("q_proj.", "in_proj_")] = joined
    layers = len({name.split(".")[3] for name in renamed if name.startswith("transformer.decoder.layers.")})
    for kind in ("class_embed", "bbox_embed"):
        heads = {name: value for name, value in renamed.items() if re.match(rf"^(?:transformer\.decoder\.)?{kind}\.\d+\.", name)}
        if all(f"{kind}.0." in name for name in heads):
            for index in range(1, layers):
                renamed |= {name.replace(f"{kind}.0.", f"{kind}.{index}."): value for name, value in heads.items()}
    return renamed


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the published implementation calls ``args``, from transformers' config.json.

    Raises:
        WeightsError: the model is of a kind that is not here.
    """
    for key, wanted in (("model_type", "deformable_detr"), ("position_embedding_type", "sine"), ("activation_function", "relu")):
        if config.get(key, wanted) != wanted:
            raise WeightsError(f"expected a transformers model with {key} {wanted}, got {config[key]!r}: convert another one")
    given = {ours: config[theirs] for theirs, ours in _ARGUMENTS.items() if theirs in config}
    given["num_queries"] = config.get("two_stage_num_proposals" if config.get("two_stage") else "num_queries", 300)
    names = {int(index): name for index, name in config.get("id2label", {}).items()}
    if sorted(names) == list(range(len(names))) and names:
        given["class_names"] = tuple(names[index] for index in sorted(names))
    if config.get("decoder_attention_heads", given.get("nheads")) != given.get("nheads"):
        raise WeightsError(
            f"expected as many heads in the decoder as in the encoder ({given['nheads']}), "
            f"got {config['decoder_attention_heads']}: convert another model"
        )
    return given


def _backbone_name(name: str) -> str:
    block = re.match(r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.(.*)$", name)
    if block is None:
        return _first(name, _BACKBONE)
    stage, index, rest = block.groups()
    part = re.match(r"^(?:layer\.(\d)|(shortcut))\.(convolution|normalization)\.(.*)$", rest)
    if part is None:
        return name
    number, shortcut, kind, last = part.groups()
    if shortcut:
        inner = f"downsample.{0 if kind == 'convolution' else 1}"
    else:
        inner = f"{'conv' if kind == 'convolution' else 'bn'}{int(number) + 1}"
    return f"layer{int(stage) + 1}.{index}.{inner}.{last}"


def _first(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name
