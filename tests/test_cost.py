"""Counted multiply-adds."""

import pytest
import torch
from torch import nn

from litedetr import Detector
from litedetr.config import preset
from litedetr.cost import full_encoder, gmacs, level_shapes


@pytest.mark.parametrize(
    ("name", "encoder", "total"),
    [
        ("dino-r50", 136.9, 235.0),
        ("lite-dino-r50-h2l2-2x3", 33.9, 130.2),
        ("lite-dino-r50-h3l1-6x1", 46.2, 142.4),
        ("lite-dino-r50-h3l1-2x3", 56.1, 152.4),
    ],
)
def test_published_counts(name, encoder, total):
    """Counts of the published implementations at 800 x 1066; theirs refine every token's box, ours only the chosen ones'."""
    cost = gmacs(preset(name), (800, 1066))
    assert cost.encoder == pytest.approx(encoder, abs=0.05)
    assert cost.total == pytest.approx(total, rel=0.02)
    assert cost.encoder == pytest.approx(sum(cost.steps))
    assert sum(cost.tokens) == 17821


def test_the_paper_s_saving():
    config = preset("lite-dino-r50-h3l1-2x3")
    size = (800, 1066)
    assert gmacs(full_encoder(config), size).encoder == pytest.approx(gmacs(preset("dino-r50"), size).encoder)
    assert 0.57 <= 1 - gmacs(config, size).encoder / gmacs(full_encoder(config), size).encoder <= 0.78


def test_linear_layers_are_counted_as_they_run():
    """The formula's linear layers and convolutions against hooks on a running model."""
    config = preset("lite-dino-mobilenet")
    detector, size = Detector(config), (128, 192)
    counted = {"encoder": 0, "backbone": 0, "neck": 0}

    def count(stage):
        def hook(module, inputs, output):
            counted[stage] += output.numel() * module.weight[0].numel()
        return hook  # fmt: skip

    for stage in counted:
        for module in getattr(detector, stage).modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.register_forward_hook(count(stage))
    with torch.no_grad():
        detector(torch.zeros(1, 3, *size))
    cost = gmacs(config, size)
    assert cost.tokens == tuple(h * w for h, w in level_shapes(config, size))
    assert cost.backbone * 1e9 == pytest.approx(counted["backbone"])
    C = config.width
    assert cost.neck * 1e9 == pytest.approx(counted["neck"] + 5 * C * sum(cost.tokens))
    points = config.levels * config.points
    queries = sum(sum(cost.tokens[level] for level in step.query_levels) for step in config.encoder_schedule.steps())
    sampling_and_norms = queries * (2 * points * C + 8 * points * C + 10 * C)
    assert cost.encoder * 1e9 == pytest.approx(counted["encoder"] + sampling_and_norms)
