"""A run can be cancelled between the parts of its stages, whatever the backbone."""

import numpy as np
import pytest

from app.run import progress
from tests.pictures import scene
from tests.small_models import small


@pytest.mark.parametrize(
    ("name", "parts"),
    [("lite-dino-r50-h3l1-2x3", 16), ("dino-swin-t", 12), ("lite-dino-mobilenet", 15), ("lite-dino-nanodet-g", 10)],
)
def test_every_block_of_a_backbone_is_a_place_to_end(name, parts, monkeypatch):
    monkeypatch.setattr(progress, "PULSE", 0.0)
    told = []
    fast = small(name).optimize("float32")
    with progress.report_stages(fast, lambda share, stage: told.append(stage)):
        fast.predict(np.asarray(scene(120, 90)))
    assert told.count("backbone") > parts
