"""Every preset at full size on one 800 x 1066 photo. Minutes of computing: runs where LITEDETR_FULL_SIZE is set."""

import os
import resource

import numpy as np
import pytest

from litedetr import Detector
from litedetr.config import preset, presets

pytestmark = pytest.mark.skipif(not os.environ.get("LITEDETR_FULL_SIZE"), reason="set LITEDETR_FULL_SIZE to run full-size models")


@pytest.mark.parametrize("name", sorted(presets()))
def test_one_photo_within_24_gb(name):
    photo = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    detector = Detector.from_preset(name)
    if not name.startswith(("lite-dino-mobilenet", "lite-dino-nanodet")):
        assert detector.prepare(photo)[0].shape[2:] in ((800, 1066), (800, 1067))
    result = detector.predict(photo, threshold=0.0)
    assert len(result) == preset(name).top_k
    assert np.isfinite(result.boxes).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 < 24, "gigabytes"
