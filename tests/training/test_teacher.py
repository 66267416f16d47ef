"""The teacher's answers for a token, computed by hand; a start as its own teacher."""

from dataclasses import replace

import pytest
import torch

from litedetr.backbones.nanodet import BINS, CLASSES
from litedetr.boxes import cxcywh_to_xyxy
from litedetr.training.denoising import DenoisingSettings
from litedetr.training.distillation import DistillationSettings
from litedetr.training.loop import read_log, train
from litedetr.training.losses import LossSettings
from litedetr.training.recipes import START, OptimiserSettings, Recipe
from litedetr.training.teacher import Teacher, teacher_of
from tests.training.conftest import tiny_detector
from tests.training.test_loop import RECIPE


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


def test_a_start_is_its_own_teacher(photo_folder, tmp_path):
    """Before the first step there is nothing to learn from what one says oneself; and it does not move with the student."""
    losses = LossSettings(soft=1.0, taught=1.0, matched=0.0, distillation=DistillationSettings(labels=0.0, least=1.1))
    recipe = replace(RECIPE, teacher=START, freeze=("backbone",), losses=losses, denoising=DenoisingSettings(number=0))
    recipe = replace(recipe, steps=3, precision="f32", log_steps=1, optimiser=OptimiserSettings(rate=1e-2, warm_up=0))
    detector = tiny_detector(dense_head=False)
    detector.backbone.requires_grad_(False)
    train(recipe, photo_folder, tmp_path, detector=detector, progress=False)
    first, *_, last = (line["loss_ce_soft"] for line in read_log(tmp_path / "log.jsonl") if "loss" in line)
    assert first < 1e-6 < last
    with pytest.raises(ValueError, match='whose backbone is frozen for the teacher "start"'):
        train(replace(recipe, freeze=()), photo_folder, tmp_path / "other", detector=detector, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": START, "coarser": True}, "expected a file with NanoDet-g's weights as the teacher of the coarsest scale"),
        ({"teacher": START}, "whose backbone is frozen"),
        ({"teacher": "file"}, "expected a detector on nanodet_g with COCO's 80 classes"),
    ],
)
def test_a_teacher_that_cannot_teach_this_detector(changes, message):
    with pytest.raises(ValueError, match=message):
        teacher_of(Recipe(steps=1, **changes), tiny_detector())
