"""Models of transformers' own Deformable DETR, tiny and random."""

import re

import pytest
import torch

transformers = pytest.importorskip("transformers")


def build(two_stage: bool, box_refine: bool, levels: int = 4, classes: int = 7):
    """A tiny model with a backbone of ResNet-50's shape, and random weights everywhere."""
    torch.manual_seed(4)
    backbone = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[16, 32, 64, 128], depths=[3, 4, 6, 3], layer_type="bottleneck",
        out_features=["stage2", "stage3", "stage4"][-levels:],
    )  # fmt: skip
    model = transformers.DeformableDetrForObjectDetection(
        transformers.DeformableDetrConfig(
            backbone_config=backbone, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=24, decoder_ffn_dim=20,
            encoder_attention_heads=4, decoder_attention_heads=4, num_queries=11, two_stage_num_proposals=11,
            num_feature_levels=levels,
            two_stage=two_stage, with_box_refine=box_refine, id2label={index: f"thing {index}" for index in range(classes)},
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
            elif name.endswith("running_mean"):
                buffer.normal_(std=0.1)
    return model.eval()


def name_of_2022(name: str) -> str:
    name = name.replace("embedder.embedder.convolution", "conv1").replace("embedder.embedder.normalization", "bn1")
    name = re.sub(r"encoder\.stages\.(\d)\.layers", lambda m: f"layer{int(m[1]) + 1}", name)
    name = re.sub(r"\.layer\.(\d)\.convolution", lambda m: f".conv{int(m[1]) + 1}", name)
    name = re.sub(r"\.layer\.(\d)\.normalization", lambda m: f".bn{int(m[1]) + 1}", name)
    return name.replace("shortcut.convolution", "downsample.0").replace("shortcut.normalization", "downsample.1")
