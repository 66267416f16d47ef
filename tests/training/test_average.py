"""Weights between two detectors."""

import pytest
import torch

from litedetr.training.average import average
from tests.training.conftest import tiny_detector


def test_half_way():
    before, after = tiny_detector(), tiny_detector()
    with torch.no_grad():
        for value in after.parameters():
            value.add_(1.0)
    between = average(before, after, 0.25)
    kept = before.state_dict()
    for name, value in between.named_parameters():
        torch.testing.assert_close(value, kept[name] + 0.25)


def test_others_are_refused():
    with pytest.raises(ValueError, match="expected two detectors with the same weights"):
        average(tiny_detector(), tiny_detector(encoder_ffn=16), 0.5)
