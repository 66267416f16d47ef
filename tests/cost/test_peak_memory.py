"""What a model may need at most: every preset passes as a stranger's, and what grows without bound does not."""

import pytest

from litedetr import DetectorConfig
from litedetr.config import preset, presets
from litedetr.cost.peak_memory import peak_bytes
from litedetr.weights import WeightsError
from litedetr.weights.limits import Limits, check_work


@pytest.mark.parametrize("name", sorted(presets()))
def test_what_was_published_passes(name):
    config = preset(name)
    check_work(config, name, Limits())
    assert 1e7 < peak_bytes(config, (config.short_side, config.long_side)) < 1.5e9


def test_outputs_and_traces_of_all_layers_count():
    one_stage = {"family": "deformable_detr", "two_stage": False, "learned_content": False, "short_side": 32, "long_side": 32}
    many = DetectorConfig(**one_stage, queries=5000, num_classes=50_000)
    assert peak_bytes(many, (32, 32)) > 4 * 5000 * 50_000 * many.decoder_layers
    few = DetectorConfig(schedule="H4L0-(1+1)x6")
    deep = DetectorConfig(schedule="H4L0-(1+1)x60")
    assert peak_bytes(deep, (800, 1333)) - peak_bytes(few, (800, 1333)) > 4 * 54 * 17_000 * deep.width
    with pytest.raises(WeightsError, match="at most 3,000 queries, got 5,000 in many"):
        check_work(many, "many", Limits())
