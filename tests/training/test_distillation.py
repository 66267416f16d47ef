"""A teacher's answers as losses: by hand, and what is left out."""

import pytest
import torch

from litedetr.boxes import cxcywh_to_xyxy, iou
from litedetr.output import DetectorOutput, LayerOutput
from litedetr.training.distillation import DistillationSettings, answers, taught_losses, token_losses
from litedetr.training.losses import LossSettings, loss_weight
from litedetr.training.targets import Targets


def layer(batch: int, tokens: int, classes: int, seed: int) -> LayerOutput:
    random = torch.Generator().manual_seed(seed)
    boxes = 0.3 + 0.2 * torch.rand(batch, tokens, 4, generator=random)
    return LayerOutput(2 * torch.randn(batch, tokens, classes, generator=random), boxes)


def everything(batch: int, tokens: int) -> torch.Tensor:
    return torch.ones(batch, tokens, dtype=torch.bool)


def test_one_token_by_hand():
    student, teacher = layer(1, 1, 2, 0), layer(1, 1, 2, 1)
    found = token_losses(student, *answers(teacher, everything(1, 1)))
    p, q = student.logits[0, 0].sigmoid(), teacher.logits[0, 0].sigmoid()
    entropy = -(q * p.log() + (1 - q) * (1 - p).log())
    worth = q.max()
    loss = ((p - q).abs() * entropy).sum() / worth.clamp(min=1)
    assert found["ce"].item() == pytest.approx(loss.item(), rel=1e-4)
    distance = (student.boxes - teacher.boxes).abs().sum()
    assert found["bbox"].item() == pytest.approx((distance * worth).item(), rel=1e-4)


def test_who_agrees_pays_for_nothing():
    teacher = layer(2, 30, 5, 0)
    found = token_losses(teacher, *answers(teacher, everything(2, 30)))
    assert all(value.item() == pytest.approx(0, abs=1e-5) for value in found.values())


def test_coarser_and_unusable_tokens_are_taught_to_see_nothing():
    student, teacher = layer(1, 6, 3, 0), layer(1, 4, 3, 1)
    student.logits.requires_grad_()
    usable = everything(1, 6)
    usable[0, 1] = False
    token_losses(student, *answers(teacher, usable))["ce"].backward()
    slope = student.logits.grad[0]
    assert (slope[[1, 4, 5]] > 0).all(), "a step against the slope lowers them"
    assert torch.equal(slope[0] > 0, student.logits[0, 0] > teacher.logits[0, 0]), "the others go towards the teacher"


def test_boxes_count_where_the_teacher_sees_something():
    student, teacher = layer(1, 8, 3, 0), layer(1, 8, 3, 1)
    teacher.logits[0, :5] = -9.0
    student.boxes.requires_grad_()
    token_losses(student, *answers(teacher, everything(1, 8)), DistillationSettings(least=0.05))["giou"].backward()
    moved = student.boxes.grad[0].abs().sum(-1) > 0
    assert moved.tolist() == [False] * 5 + [True] * 3


def test_weights():
    settings = LossSettings(label=3.0, l1=4.0, soft=0.5)
    assert loss_weight("loss_ce_soft", settings) == 1.5
    assert loss_weight("loss_bbox_soft", settings) == 2.0
    assert loss_weight("loss_ce_soft", LossSettings()) == 0.0
    taught = LossSettings(l1=4.0, taught=0.25, matched=0.0)
    assert loss_weight("loss_bbox_taught_0", taught) == loss_weight("loss_bbox_taught", taught) == 1.0
    assert loss_weight("loss_bbox_0", taught) == 0.0
    assert loss_weight("loss_bbox_dn", taught) == 4.0


def test_an_object_takes_the_place_of_the_teachers_box_and_shares_the_score():
    student, teacher = layer(1, 1, 3, 0), layer(1, 1, 3, 1)
    near = student.boxes[0, 0] + torch.tensor((0.02, 0.0, 0.0, 0.03))
    far = torch.tensor((0.9, 0.9, 0.1, 0.1))
    targets = Targets.from_lists([torch.tensor([2, 1])], [torch.stack((near, far))])
    soft, boxes = answers(teacher, everything(1, 1))
    settings = DistillationSettings(least=0.0, labels=0.3)
    found = token_losses(student, soft, boxes, settings, targets)
    overlap = iou(cxcywh_to_xyxy(student.boxes[0]), cxcywh_to_xyxy(near[None]), eps=1e-9)[0]
    q = soft[0, 0] * 0.7 + torch.tensor((0.0, 0.0, 0.3)) * overlap
    p = student.logits[0, 0].sigmoid()
    entropy = -(q * p.log() + (1 - q) * (1 - p).log())
    assert found["ce"].item() == pytest.approx(((p - q).abs() * entropy).sum().item(), rel=1e-4)
    worth = torch.maximum(overlap * soft[0, 0, 2].sqrt(), soft[0, 0].max())
    assert found["bbox"].item() == pytest.approx((0.05 * worth).item(), rel=1e-4)


def test_another_pictures_object_teaches_nothing():
    student, teacher = layer(2, 4, 3, 0), layer(2, 4, 3, 1)
    nothing = Targets.from_lists([torch.zeros(0), torch.zeros(0)], [torch.zeros(0, 4), torch.zeros(0, 4)])
    soft, boxes = answers(teacher, everything(2, 4))
    boxes[0], soft[0] = 0, 0  # in the first picture the teacher sees nothing
    there = Targets.from_lists([torch.tensor([0]), torch.zeros(0)], [student.boxes[1, :1], torch.zeros(0, 4)])
    settings = DistillationSettings(labels=0.0)
    without, there = (token_losses(student, soft, boxes, settings, targets) for targets in (nothing, there))
    assert all(torch.equal(without[name], there[name]) for name in without)


def test_queries_are_taught_what_their_tokens_are():
    student, teacher = layer(2, 6, 3, 0), layer(2, 4, 3, 1)
    tokens = torch.tensor([[3, 5, 0], [1, 2, 4]])
    queries = LayerOutput(*(torch.stack([part[i, tokens[i]] for i in range(2)]) for part in (student.logits, student.boxes)))
    nothing = Targets.from_lists([torch.zeros(0), torch.zeros(0)], [torch.zeros(0, 4), torch.zeros(0, 4)])
    output = DetectorOutput(queries.logits, queries.boxes, auxiliary=(queries,), tokens=tokens, every_token=student)
    found = taught_losses(output, everything(2, 6), teacher, nothing)
    soft, boxes = answers(teacher, everything(2, 6))
    chosen = [torch.stack([part[i, tokens[i]] for i in range(2)]) for part in (soft, boxes)]
    for kind, value in token_losses(queries, *chosen).items():
        assert found[f"loss_{kind}_taught"] == found[f"loss_{kind}_taught_0"] == value
    assert set(found) == {f"loss_{kind}_{of}" for kind in ("ce", "bbox", "giou") for of in ("soft", "taught", "taught_0")}
