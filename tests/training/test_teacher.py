"""The teacher's answers for a token, computed by hand."""

import pytest
import torch

from litedetr.backbones.nanodet import BINS, CLASSES
from litedetr.boxes import cxcywh_to_xyxy
from litedetr.training.teacher import Teacher


@pytest.fixture
def teacher() -> Teacher:
    torch.manual_seed(0)
    return Teacher()


def test_answers_by_hand(teacher):
    height, width = 64, 96
    maps = [torch.randn(2, 128, height // stride, width // stride) for stride in (8, 16, 32)]
    answer = teacher(maps)
    assert answer.logits.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, CLASSES)
    level, stride, row, column = 1, 16, 2, 5
    token = 8 * 12 + row * 6 + column
    raw = teacher.outputs[level].weight[:, :, 0, 0] @ maps[level][1, :, row, column] + teacher.outputs[level].bias
    torch.testing.assert_close(answer.logits[1, token], raw[:CLASSES], atol=1e-5, rtol=1e-5)
    left, top, right, bottom = (raw[CLASSES:].view(4, BINS).softmax(-1) @ torch.arange(float(BINS)) * stride).tolist()
    x, y = (column + 0.5) * stride, (row + 0.5) * stride
    expected = torch.tensor([(x - left) / width, (y - top) / height, (x + right) / width, (y + bottom) / height])
    torch.testing.assert_close(cxcywh_to_xyxy(answer.boxes[1, token]), expected, atol=1e-5, rtol=1e-5)


def test_it_never_learns(teacher):
    maps = [torch.randn(1, 128, side, side, requires_grad=True) for side in (4, 2, 1)]
    answer = teacher(maps)
    assert not answer.logits.requires_grad
    assert not any(value.requires_grad for value in teacher.parameters())
