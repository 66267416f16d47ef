"""Names of the published Lite-DINO and DINO implementations -> this project's names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from litedetr.weights import WeightsError, check_state

# First match wins; "" drops a tensor that takes no part in the computation.
_ENCODER_LAYER = (
    (r"^self_attn\.", "attention."),
    (r"^norm1\.", "norm."),
    (r"^linear1\.", "ffn.linear1."),
    (r"^linear2\.", "ffn.linear2."),
    (r"^norm2\.", "ffn.norm."),
    (r"^linear12\.", "low_ffn.linear1."),
    (r"^linear22\.", "low_ffn.linear2."),
    (r"^norm22\.", "low_ffn.norm."),
)
_DECODER_LAYER = (
    (r"^self_attn\.", "self_attention."),
    (r"^cross_attn\.", "attention."),
    (r"^norm1\.", "norm."),
    (r"^norm2\.", "self_norm."),
    (r"^norm3\.", "ffn.norm."),
    (r"^linear1\.", "ffn.linear1."),
    (r"^linear2\.", "ffn.linear2."),
)
_DINO = (
    (r"^backbone\.0\.body\.", "backbone."),
    (r"^input_proj\.", "neck.projections."),
    (r"^transformer\.level_embed$", "neck.level_embed"),
    (r"^transformer\.enc_output\.", "selection.project."),
    (r"^transformer\.enc_output_norm\.", "selection.norm."),
    (r"^transformer\.enc_out_class_embed\.", "selection.class_head."),
    (r"^transformer\.enc_out_bbox_embed\.", "selection.box_head."),
    (r"^transformer\.tgt_embed\.", "selection.content."),
    (r"^transformer\.decoder\.norm\.", "decoder.norm."),
    (r"^transformer\.decoder\.ref_point_head\.", "decoder.reference_head."),
    (r"^(?:transformer\.decoder\.)?class_embed\.", "heads.classes."),
    (r"^(?:transformer\.decoder\.)?bbox_embed\.", "heads.boxes."),
    (r"^label_enc\.", "label_embed."),
)


def encoder_layer_name(name: str) -> str:
    """Name inside an encoder layer: "self_attn.value_proj.weight" -> "attention.value_proj.weight"."""
    return _rename(name, _ENCODER_LAYER)


def dino_name(name: str) -> str:
    """Name in a published DINO or Lite-DINO state dict -> name here."""
    layer = re.match(r"^transformer\.(encoder|decoder)\.layers\.(\d+)\.(.*)$", name)
    if layer:
        stack, index, rest = layer.groups()
        inner = _rename(rest, _ENCODER_LAYER if stack == "encoder" else _DECODER_LAYER)
        return f"{stack}.layers.{index}.{inner}"
    return _rename(name, _DINO)


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def convert_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a published state dict for a model whose own state dict is `expected`.

    Aliases of one tensor (heads shared by all layers) must be equal and become one. The published plain attention has a
    ``query_proj`` that takes no part in it; it is dropped where the model has none.

    Raises:
        WeightsError: two aliases differ, or a key is left over, missing or misshaped.
    """
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        target = dino_name(name)
        shared = re.match(r"^(heads\.(?:classes|boxes))\.\d+\.(.*)$", target)
        if shared and target not in expected:
            target = f"{shared[1]}.0.{shared[2]}"
        if ".attention.query_proj." in target and target not in expected:
            continue
        if target in converted and not torch.equal(converted[target], value):
            raise WeightsError(
                f"expected {name} to equal its other copies (heads shared by all decoder layers), and it does not: "
                "build the model with shared_heads=False"
            )
        converted[target] = value
    check_state(dict(expected), converted)
    return converted


def load_reference_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a published state dict into a detector; every key and shape is accounted for, or nothing is loaded."""
    expected = model.state_dict()
    # Classes of denoising labels were fixed to one more than the number of logits.
    model.load_state_dict({key: value.to(expected[key].dtype) for key, value in convert_state(state, expected).items()})
