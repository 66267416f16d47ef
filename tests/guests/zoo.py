"""Every kind of model that `litedetr.watch` knows in transformers, tiny and with random weights: the real code of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers as tf
from torch import Tensor, nn

SIDE = 64
SMALL = {"d_model": 32, "decoder_ffn_dim": 32, "decoder_layers": 2, "num_queries": 7}


@dataclass(frozen=True)
class Guest:
    """A model and what it is called with."""

    model: nn.Module
    inputs: dict[str, Tensor]


def make(kind: str, seed: int = 0) -> Guest:
    """A model of a type, in evaluation mode."""
    torch.manual_seed(seed)
    return spread(KINDS[kind]())


def spread(guest: Guest) -> Guest:
    """The same model with weights that make a difference: fresh ones put every point at its ring, and some models to sleep."""
    with torch.no_grad():
        for name, parameter in guest.model.named_parameters():
            lively = name.rpartition(".")[0].endswith(("sampling_offsets", "attention_weights"))
            parameter.add_((0.3 if lively else 0.1) * torch.randn_like(parameter))
    return Guest(guest.model.eval(), guest.inputs)


def photo(batch: int = 1, side: int = SIDE) -> Tensor:
    return torch.randn(batch, 3, side, side)


def resnet(**out) -> tf.ResNetConfig:
    return tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic", **out)


def swin(**out) -> tf.SwinConfig:
    return tf.SwinConfig(image_size=SIDE, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, **out)


def bert() -> tf.BertConfig:
    return tf.BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)


def deformable_detr() -> Guest:
    config = tf.DeformableDetrConfig(
        **SMALL,
        backbone_config=resnet(out_indices=[2, 3, 4]),
        encoder_layers=2,
        encoder_ffn_dim=32,
        with_box_refine=True,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_labels=5,
    )
    return Guest(tf.DeformableDetrForObjectDetection(config), {"pixel_values": photo(side=2 * SIDE)})


def hybrid(config: type, backbone: object, **more) -> object:
    """A configuration of RT-DETR and its kin: an encoder without deformable attention."""
    return config(
        **SMALL,
        backbone_config=backbone,
        encoder_hidden_dim=32,
        encoder_in_channels=[16, 24, 32],
        encoder_ffn_dim=32,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        decoder_in_channels=[32, 32, 32],
        num_denoising=0,
        num_labels=5,
        **more,
    )


def rt_backbone() -> object:
    stages = ["stage2", "stage3", "stage4"]
    return tf.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic", out_features=stages
    )


def hgnet(first: int = 2, finest: int = 8) -> object:
    return tf.HGNetV2Config(
        embedding_size=8, stem_channels=[3, 8, 8], hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1],
        stage_in_channels=[8, finest, 16, 24],
        stage_mid_channels=[8, 8, 8, 8], stage_out_channels=[finest, 16, 24, 32], stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1], out_features=[f"stage{stage}" for stage in range(first, 5)],
    )  # fmt: skip


def rt_detr() -> Guest:
    return Guest(tf.RTDetrForObjectDetection(hybrid(tf.RTDetrConfig, rt_backbone())), {"pixel_values": photo()})


def rt_detr_v2() -> Guest:
    return Guest(tf.RTDetrV2ForObjectDetection(hybrid(tf.RTDetrV2Config, rt_backbone())), {"pixel_values": photo()})


def d_fine(method: str = "default") -> Guest:
    config = hybrid(tf.DFineConfig, hgnet(), decoder_n_points=[3, 6, 3], decoder_method=method)
    return Guest(tf.DFineForObjectDetection(config), {"pixel_values": photo()})


def deimv2() -> Guest:
    config = hybrid(tf.Deimv2Config, hgnet(), decoder_n_points=[3, 6, 3])
    return Guest(tf.Deimv2ForObjectDetection(config), {"pixel_values": photo()})


def rf_detr() -> Guest:
    backbone = tf.RfDetrDinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=16, num_windows=2,
        out_features=["stage1", "stage2"],
    )  # fmt: skip
    config = tf.RfDetrConfig(
        **SMALL, backbone_config=backbone, decoder_self_attention_heads=2, decoder_cross_attention_heads=4, num_labels=5,
        decoder_n_points=2,
    )  # fmt: skip
    return Guest(tf.RfDetrForObjectDetection(config), {"pixel_values": photo()})


def lw_detr() -> Guest:
    backbone = tf.LwDetrViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, pretrain_image_size=SIDE, patch_size=16,
        num_windows=4, window_block_indices=[0], out_indices=[1, 2],
    )  # fmt: skip
    config = tf.LwDetrConfig(
        **SMALL, backbone_config=backbone, projector_scale_factors=[2.0, 0.5], num_feature_levels=2, num_labels=5,
        decoder_self_attention_heads=2, decoder_cross_attention_heads=4,
    )  # fmt: skip
    return Guest(tf.LwDetrForObjectDetection(config), {"pixel_values": photo()})


def grounded(config: type, model: type) -> Guest:
    made = config(
        **SMALL, backbone_config=swin(out_indices=[2, 3, 4]), text_config=bert(), encoder_layers=2, encoder_ffn_dim=32,
        encoder_attention_heads=4, decoder_attention_heads=4, max_text_len=16,
    )  # fmt: skip
    tokens = torch.tensor([[2, 5, 6, 3]])
    inputs = {"pixel_values": photo(side=2 * SIDE), "input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return Guest(model(made), inputs)


def grounding_dino() -> Guest:
    return grounded(tf.GroundingDinoConfig, tf.GroundingDinoForObjectDetection)


def mm_grounding_dino() -> Guest:
    return grounded(tf.MMGroundingDinoConfig, tf.MMGroundingDinoForObjectDetection)


def omdet_turbo() -> Guest:
    text = tf.CLIPTextConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, bos_token_id=1,
        eos_token_id=3,
    )  # fmt: skip
    config = tf.OmDetTurboConfig(
        text_config=text, backbone_config=swin(out_indices=[2, 3, 4]), use_timm_backbone=False, image_size=SIDE, num_queries=7,
        apply_layernorm_after_vision_backbone=False, text_projection_in_dim=16, text_projection_out_dim=16, class_embed_dim=16,
        task_encoder_hidden_dim=32, encoder_hidden_dim=32,
        vision_features_channels=[32, 32, 32], encoder_in_channels=[16, 32, 64],
        encoder_attention_heads=4, encoder_dim_feedforward=32, decoder_hidden_dim=32, decoder_num_heads=4, decoder_num_layers=2,
        decoder_dim_feedforward=32,
    )  # fmt: skip
    words = torch.tensor([[5, 6, 3], [7, 8, 3]])
    inputs = {
        "pixel_values": photo(), "classes_input_ids": words, "classes_attention_mask": torch.ones_like(words),
        "tasks_input_ids": words[:1], "tasks_attention_mask": torch.ones_like(words[:1]), "classes_structure": torch.tensor([2]),
    }  # fmt: skip
    return Guest(tf.OmDetTurboForObjectDetection(config), inputs)


def pp_doclayout_v2() -> Guest:
    reading = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1}
    config = hybrid(
        tf.PPDocLayoutV2Config, hgnet(), class_thresholds=[0.5] * 5, class_order=[0, 1, 2, 3, 4],
        reading_order_config={**reading, "coordinate_size": 6, "shape_size": 4},
    )  # fmt: skip
    return Guest(tf.PPDocLayoutV2ForObjectDetection(config), {"pixel_values": photo()})


def pp_doclayout_v3() -> Guest:
    config = hybrid(tf.PPDocLayoutV3Config, hgnet(first=1, finest=128))
    return Guest(tf.PPDocLayoutV3ForObjectDetection(config), {"pixel_values": photo()})


def pp_doclayout_v4() -> Guest:
    return Guest(tf.PPDocLayoutV4ForObjectDetection(hybrid(tf.PPDocLayoutV4Config, hgnet())), {"pixel_values": photo()})


def mask2former() -> Guest:
    config = tf.Mask2FormerConfig(
        backbone_config=swin(out_features=["stage1", "stage2", "stage3", "stage4"]), feature_size=32, mask_feature_size=32,
        hidden_dim=32, encoder_feedforward_dim=32, encoder_layers=2, decoder_layers=2, num_attention_heads=4,
        dim_feedforward=32, num_queries=5, num_labels=5,
    )  # fmt: skip
    return Guest(tf.Mask2FormerForUniversalSegmentation(config), {"pixel_values": photo()})


def oneformer() -> Guest:
    config = tf.OneFormerConfig(
        backbone_config=swin(out_features=["stage1", "stage2", "stage3", "stage4"]), conv_dim=32, mask_dim=32, hidden_dim=32,
        encoder_feedforward_dim=32, encoder_layers=2, decoder_layers=2, num_attention_heads=4, dim_feedforward=32, num_queries=5,
        num_labels=5, task_seq_len=8, text_encoder_width=32, text_encoder_vocab_size=64, text_encoder_num_layers=1,
    )  # fmt: skip
    inputs = {"pixel_values": photo(), "task_inputs": torch.randint(0, 9, (1, 8)).float()}
    return Guest(tf.OneFormerForUniversalSegmentation(config), inputs)


KINDS: dict[str, Callable[[], Guest]] = {
    made.__name__: made
    for made in (
        deformable_detr, rt_detr, rt_detr_v2, d_fine, deimv2, rf_detr, lw_detr, grounding_dino, mm_grounding_dino, omdet_turbo,
        pp_doclayout_v2, pp_doclayout_v3, pp_doclayout_v4, mask2former, oneformer,
    )
}  # fmt: skip
