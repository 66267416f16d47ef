"""A teacher's answers as losses: by hand, and what is left out."""

import pytest
import torch

from litedetr.output import LayerOutput
from litedetr.training.distillation import DistillationSettings, token_losses
from litedetr.training.losses import LossSettings, loss_weight


def answers(batch: int, tokens: int, classes: int, seed: int) -> LayerOutput:
    random = torch.Generator().manual_seed(seed)
    boxes = 0.3 + 0.2 * torch.rand(batch, tokens, 4, generator=random)
    return LayerOutput(2 * torch.randn(batch, tokens, classes, generator=random), boxes)


def everything(batch: int, tokens: int) -> torch.Tensor:
    return torch.ones(batch, tokens, dtype=torch.bool)


def test_one_token_by_hand():
    student, teacher = answers(1, 1, 2, 0), answers(1, 1, 2, 1)
    found = token_losses(student, everything(1, 1), teacher)
    p, q = student.logits[0, 0].sigmoid(), teacher.logits[0, 0].sigmoid()
    entropy = -(q * p.log() + (1 - q) * (1 - p).log())
    worth = q.max()
    loss = ((p - q).abs() * entropy).sum() / worth.clamp(min=1)
    assert found["loss_ce_soft"].item() == pytest.approx(loss.item(), rel=1e-4)
    distance = (student.boxes - teacher.boxes).abs().sum()
    assert found["loss_bbox_soft"].item() == pytest.approx((distance * worth).item(), rel=1e-4)


def test_who_agrees_pays_for_nothing():
    teacher = answers(2, 30, 5, 0)
    found = token_losses(teacher, everything(2, 30), teacher)
    assert all(value.item() == pytest.approx(0, abs=1e-5) for value in found.values())


def test_coarser_and_unusable_tokens_are_taught_to_see_nothing():
    student, teacher = answers(1, 6, 3, 0), answers(1, 4, 3, 1)
    student.logits.requires_grad_()
    usable = everything(1, 6)
    usable[0, 1] = False
    token_losses(student, usable, teacher)["loss_ce_soft"].backward()
    slope = student.logits.grad[0]
    assert (slope[[1, 4, 5]] > 0).all(), "a step against the slope lowers them"
    assert torch.equal(slope[0] > 0, student.logits[0, 0] > teacher.logits[0, 0]), "the others go towards the teacher"


def test_boxes_count_where_the_teacher_sees_something():
    student, teacher = answers(1, 8, 3, 0), answers(1, 8, 3, 1)
    teacher.logits[0, :5] = -9.0
    student.boxes.requires_grad_()
    token_losses(student, everything(1, 8), teacher, DistillationSettings(least=0.05))["loss_giou_soft"].backward()
    moved = student.boxes.grad[0].abs().sum(-1) > 0
    assert moved.tolist() == [False] * 5 + [True] * 3


def test_weights():
    settings = LossSettings(label=3.0, l1=4.0, soft=0.5)
    assert loss_weight("loss_ce_soft", settings) == 1.5
    assert loss_weight("loss_bbox_soft", settings) == 2.0
    assert loss_weight("loss_ce_soft", LossSettings()) == 0.0
