"""The backbones' rows: what was measured, the right way round."""

import pytest
import torch

from litedetr.bench.backbones import backbone_ratios
from tests.bench.conftest import told


@pytest.mark.usefixtures("known_times")
def test_a_row_per_dtype():
    plain = told("plain")
    for row, dtype in zip(backbone_ratios("mobilenetv2", (32, 32)), (torch.float32, torch.bfloat16), strict=True):
        fast = told(str(dtype))
        assert (row.dtype, row.plain, row.fast) == (dtype, 1.5 * plain, 1.5 * fast)
        assert row.ratio.value == pytest.approx(fast / plain)
