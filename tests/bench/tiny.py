"""Everything the benchmark measures, small enough for a test."""

from dataclasses import replace

import pytest

from litedetr.bench import peers
from litedetr.bench.rows import Plan
from litedetr.config import preset
from tests import small_models


def plan(**changes) -> Plan:
    small = {"width": 32, "heads": 4, "encoder_ffn": 32, "low_ffn": 16, "decoder_ffn": 32, "decoder_layers": 1, "queries": 8}
    chosen = {
        "sizes": ((64, 96),),
        "photo": (64, 96),
        "large_photo": (64, 96),
        "lite": replace(
            preset("lite-dino-r50-h3l1-2x3", num_classes=5), backbone_width=8, short_side=64, long_side=96, top_k=8, **small
        ),
        "embedded": replace(preset("lite-dino-mobilenet", num_classes=5), top_k=8, **small),
        "rt_detr": rt_detr,
        "d_fine": d_fine,
        "guests": {"RT-DETR": (rt_detr, 96)},
        "exported": {"tiny": lambda: small_models.small("lite-dino-mobilenet", schedule="H3L1-(2+1)x1", decoder_layers=1)},
        "rounds": 1,
    }
    return Plan(**(chosen | changes))


def rt_detr():
    transformers = pytest.importorskip("transformers")
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"]
    )
    return peers.build(
        transformers.RTDetrForObjectDetection,
        transformers.RTDetrConfig(
            backbone_config=backbone, encoder_hidden_dim=32, encoder_in_channels=[16, 24, 32], d_model=32,
            encoder_ffn_dim=32, decoder_ffn_dim=32, decoder_in_channels=[32, 32, 32], decoder_layers=1, num_queries=126,
            encoder_attention_heads=4, decoder_attention_heads=4, num_labels=5,
        ),
    )  # fmt: skip


def d_fine():
    transformers = pytest.importorskip("transformers")
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 8], stage_in_channels=[8, 8, 16, 16], stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 16, 16, 24], stage_num_blocks=[1, 1, 1, 1], stage_numb_of_layers=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 16, 24], depths=[1, 1, 1, 1], out_features=["stage3", "stage4"],
    )  # fmt: skip
    return peers.build(
        transformers.DFineForObjectDetection,
        transformers.DFineConfig(
            backbone_config=backbone, encoder_in_channels=[16, 24], feat_strides=[16, 32], encoder_hidden_dim=32,
            encode_proj_layers=[1], encoder_ffn_dim=32, hidden_expansion=0.5, depth_mult=0.34, d_model=32, num_queries=30,
            decoder_in_channels=[32, 32], decoder_ffn_dim=32, num_feature_levels=2, decoder_n_points=[2, 2],
            decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, num_labels=5,
        ),
    )  # fmt: skip
