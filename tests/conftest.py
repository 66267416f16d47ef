"""Small detectors and photos that several tests use."""

import os

import numpy as np
import pytest
import torch

from litedetr import Detector

if os.environ.get("PYTEST_XDIST_WORKER"):  # a core each
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A coloured picture with edges, 150 x 200."""
    rng = np.random.default_rng(3)
    picture = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((25, 25, 1))).astype(np.uint8)
    picture[40:90, 60:140] = (220, 40, 30)
    return picture


@pytest.fixture(scope="session")
def detector() -> Detector:
    """The embedded model's architecture at a small size, with seeded random weights and lively scores."""
    torch.manual_seed(0)
    detector = Detector.from_preset(
        "lite-dino-mobilenet", width=64, encoder_ffn=96, low_ffn=64, decoder_ffn=96, decoder_layers=2, queries=40,
        short_side=192, long_side=192,
    )  # fmt: skip
    for head in (*detector.heads.classes, detector.selection.class_head):
        torch.nn.init.normal_(head.weight, std=0.3)
    return detector
