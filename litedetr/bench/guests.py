"""Other people's deformable DETRs with their published hyper-parameters and random weights, as they are and accelerated."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from litedetr.bench import peers
from litedetr.bench.peers import build, need
from litedetr.guests.accelerate import accelerate
from litedetr.timing import Contestant


def eager_and_accelerated(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Contestant, Contestant]:
    """The whole model as it is, and the same one on the kernels."""

    def eager() -> None:
        with torch.inference_mode():
            model(**inputs)

    def accelerated() -> None:
        with accelerate(model):
            eager()

    return eager, accelerated


def deformable_detr() -> nn.Module:
    """Deformable DETR, ResNet-50: attention in 6 encoder layers and 6 decoder layers, 300 queries."""
    transformers = need("transformers")
    backbone = transformers.ResNetConfig(out_indices=[2, 3, 4])
    return build(transformers.DeformableDetrForObjectDetection, transformers.DeformableDetrConfig(backbone_config=backbone))


class Prompted(nn.Module):
    """Grounding DINO asked for two words, by a text encoder of one small layer: what is left is its vision part."""

    def __init__(self, config):
        super().__init__()
        self.model = need("transformers").GroundingDinoForObjectDetection(config)

    def forward(self, pixel_values: Tensor):
        tokens = torch.tensor([[101, 4937, 1012, 102]])
        return self.model(pixel_values=pixel_values, input_ids=tokens, attention_mask=torch.ones_like(tokens))


def grounding_dino() -> nn.Module:
    """Grounding DINO tiny's vision part, Swin-T: attention in 6 encoder layers and 6 decoder layers, 900 queries."""
    transformers = need("transformers")
    text = transformers.BertConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    backbone = transformers.SwinConfig(
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, out_indices=[2, 3, 4]
    )
    return build(Prompted, transformers.GroundingDinoConfig(backbone_config=backbone, text_config=text))


def mask2former() -> nn.Module:
    """Mask2Former, Swin-T: attention in the 6 layers of its pixel decoder."""
    transformers = need("transformers")
    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = transformers.SwinConfig(
        embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, out_features=stages
    )
    config = transformers.Mask2FormerConfig(backbone_config=backbone)
    return build(transformers.Mask2FormerForUniversalSegmentation, config)


def rt_detr_v2_r18() -> nn.Module:
    """RT-DETRv2-R18: attention in 3 decoder layers, 300 queries."""
    transformers = need("transformers")
    backbone = transformers.RTDetrResNetConfig(
        hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", out_features=["stage2", "stage3", "stage4"]
    )
    config = transformers.RTDetrV2Config(
        backbone_config=backbone, encoder_in_channels=[128, 256, 512], hidden_expansion=0.5, decoder_layers=3, num_labels=80
    )
    return build(transformers.RTDetrV2ForObjectDetection, config)


def rf_detr_nano() -> nn.Module:
    """RF-DETR nano: attention in 2 decoder layers on one level, 300 queries."""
    transformers = need("transformers")
    backbone = transformers.RfDetrDinov2Config(
        hidden_size=384, num_attention_heads=6, image_size=384, patch_size=16, num_windows=2,
        out_features=["stage3", "stage6", "stage9", "stage12"],
    )  # fmt: skip
    config = transformers.RfDetrConfig(backbone_config=backbone, decoder_layers=2, decoder_n_points=2, num_labels=91)
    return build(transformers.RfDetrForObjectDetection, config)


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "Deformable DETR, ResNet-50": (deformable_detr, 640),
    "Grounding DINO tiny, vision part": (grounding_dino, 640),
    "Mask2Former, Swin-T": (mask2former, 640),
    "RT-DETR-R50": (peers.rt_detr_r50, 640),
    "RT-DETRv2-R18": (rt_detr_v2_r18, 640),
    "D-FINE-N": (peers.d_fine_n, 640),
    "RF-DETR nano": (rf_detr_nano, 384),
}
"""By name: what makes it, and the sides of its photos."""
