"""Properties of the losses that the golden cases do not cover."""

import pytest
import torch
from torch import nn

from litedetr.boxes import cxcywh_to_xyxy, iou_and_giou, pairwise_iou, xyxy_to_cxcywh
from litedetr.output import DetectorOutput, LayerOutput
from litedetr.training.denoising import DenoisingSettings, group_count, make_denoising
from litedetr.training.dense import DenseSettings, assign_tokens, centres_and_cell, dense_losses
from litedetr.training.losses import CLASS_LOSSES, LossSettings, detection_losses, total_loss
from litedetr.training.matching import match
from litedetr.training.targets import Targets

TARGETS = Targets.from_lists(
    [torch.tensor([1, 0]), torch.tensor([], dtype=torch.int64), torch.tensor([2])],
    [torch.tensor([[0.3, 0.3, 0.2, 0.4], [0.7, 0.6, 0.3, 0.3]]), torch.zeros(0, 4), torch.tensor([[0.5, 0.5, 0.9, 0.9]])],
)
SHAPES = ((8, 8), (4, 4), (2, 2))
NONE = Targets.from_lists([torch.zeros(0)] * 2, [torch.zeros(0, 4)] * 2)


def random_output(targets: Targets, queries: int = 10, classes: int = 3, layers: int = 3) -> DetectorOutput:
    generator = torch.Generator().manual_seed(0)

    def layer() -> LayerOutput:
        shape = (len(targets.counts), queries)
        return LayerOutput(
            torch.randn(*shape, classes, generator=generator).requires_grad_(),
            (torch.rand(*shape, 4, generator=generator) * 0.8 + 0.1).requires_grad_(),
        )

    last = layer()
    return DetectorOutput(last.logits, last.boxes, tuple(layer() for _ in range(layers - 1)), layer())


def test_boxes():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 3.0], [4.0, 4.0, 5.0, 6.0]])
    assert torch.equal(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)
    table = pairwise_iou(boxes, boxes)
    assert torch.allclose(table.diagonal(), torch.ones(3))
    assert table[0, 1] == pytest.approx(1 / 7)
    assert iou_and_giou(boxes[0], boxes[1])[1] == pytest.approx(1 / 7 - 2 / 9)
    assert torch.equal(iou_and_giou(boxes[:, None], boxes)[0], table)
    empty = torch.zeros(1, 4)
    assert iou_and_giou(empty, empty, eps=1e-9)[0].item() == 0.0


def test_targets():
    assert TARGETS.counts == (2, 0, 1)
    assert TARGETS.image.tolist() == [0, 0, 2]
    assert TARGETS.slots.tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="as many boxes as labels"):
        Targets.from_lists([torch.zeros(2)], [torch.zeros(1, 4)])


def test_more_objects_than_queries():
    pairs = match(torch.zeros(1, 3, 1, 3), torch.full((1, 3, 1, 4), 0.5), TARGETS)
    assert sorted(pairs.image.tolist()) == [0, 2]


def test_several_queries_an_object():
    """Each picture has ten queries, three of them on each of its objects: with three an object, these stand for it."""
    boxes = torch.full((1, 3, 10, 4), 0.05)
    for image, slot, box in zip(TARGETS.image.tolist(), TARGETS.slots.tolist(), TARGETS.boxes, strict=True):
        boxes[0, image, 1 + 3 * slot : 4 + 3 * slot] = box + torch.tensor([[0.01], [0.0], [-0.01]])
    pairs = match(torch.zeros(1, 3, 10, 3), boxes, TARGETS, many=3)
    found = {target: sorted(pairs.query[pairs.target == target].tolist()) for target in range(3)}
    assert found == {0: [1, 2, 3], 1: [4, 5, 6], 2: [1, 2, 3]}
    assert (pairs.image == TARGETS.image[pairs.target]).all()
    output = DetectorOutput(torch.zeros(3, 10, 3), boxes[0])
    one, three = (detection_losses(output, TARGETS, settings=LossSettings(many=many)) for many in (1, 3))
    assert one["loss_bbox"] < 1e-6, "each object has a query that lies on it"
    assert three["loss_bbox"] == pytest.approx((0.04 + 0 + 0.04) / 3, abs=1e-5), "the mean over all of them"


def test_broken_outputs_are_refused():
    boxes = torch.full((1, 3, 4, 4), 0.5)
    boxes[0, 0, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="learning rate"):
        match(torch.zeros(1, 3, 4, 3), boxes, TARGETS)


@pytest.mark.parametrize("class_loss", CLASS_LOSSES)
def test_better_outputs_lose_less(class_loss):
    settings = LossSettings(class_loss=class_loss)
    output = random_output(TARGETS)
    before = total_loss(detection_losses(output, TARGETS, settings=settings), settings)
    before.backward()
    assert all(layer.boxes.grad.isfinite().all() for layer in output.auxiliary)
    logits = torch.full((3, 10, 3), -6.0)
    boxes = output.boxes.detach().clone()
    for number in range(3):
        place = TARGETS.image[number], TARGETS.slots[number]
        logits[(*place, TARGETS.labels[number])] = 6.0
        boxes[place] = TARGETS.boxes[number]
    perfect = DetectorOutput(logits, boxes, (LayerOutput(logits, boxes),) * 2, LayerOutput(logits, boxes))
    losses = detection_losses(perfect, TARGETS, settings=settings, diagnostics=True)
    assert total_loss(losses, settings) < 0.1 < before
    assert losses["class_error"] == 0


def test_pictures_without_objects():
    losses = detection_losses(random_output(NONE), NONE, settings=LossSettings(), diagnostics=True)
    assert losses["loss_bbox"] == 0
    assert losses["loss_ce"] > 0
    assert make_denoising(NONE, nn.Embedding(4, 8), 3, 10) is None


def test_groups():
    assert group_count(100, 5) == 20
    assert group_count(100, 300) == 1
    assert group_count(5, 3) == 10
    assert group_count(0, 3) == 1


def test_denoising_is_drawn_from_the_generator():
    embed = nn.Embedding(4, 8)
    settings = DenoisingSettings(number=20, label_noise=0.5, box_noise=1.0)
    first, again, other = (
        make_denoising(TARGETS, embed, 3, 10, settings, torch.Generator().manual_seed(seed)).queries for seed in (1, 1, 2)
    )
    assert torch.equal(first.reference_points, again.reference_points)
    assert not torch.equal(first.reference_points, other.reference_points)


def test_token_centres_ignore_padding():
    mask = torch.zeros(1, 84, dtype=torch.bool)
    levels = [torch.zeros(h, w, dtype=torch.bool) for h, w in SHAPES]
    for level in levels:
        level[:, level.shape[1] // 2 :] = True
    mask[0] = torch.cat([level.flatten() for level in levels])
    centres, cell = centres_and_cell(SHAPES, mask)
    assert torch.allclose(centres[0, 0], torch.tensor([0.125, 0.0625]))
    assert torch.allclose(cell, torch.tensor([[0.25, 0.125]]))
    valid = centres[~mask]
    assert ((valid > 0) & (valid < 1)).all()
    assert (centres[..., 0][mask] > 1).all()


def test_tokens_are_taken_inside_objects_once():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 84, 3, generator=generator)
    boxes = torch.rand(3, 84, 4, generator=generator)
    mask = torch.zeros(3, 84, dtype=torch.bool)
    token, target, quality = assign_tokens(logits, boxes, SHAPES, mask, TARGETS, DenseSettings(topk=5))
    assert set(target.tolist()) == {0, 1, 2}
    assert torch.bincount(target).max() <= 5
    places = list(zip(TARGETS.image[target].tolist(), token.tolist(), strict=True))
    assert len(places) == len(set(places))
    centres, _ = centres_and_cell(SHAPES, mask)
    offset = (centres[TARGETS.image[target], token] - TARGETS.boxes[target, :2]).abs()
    assert (offset <= TARGETS.boxes[target, 2:] / 2).all()
    assert ((quality >= 0) & (quality <= 1)).all()


def test_a_tiny_object_gets_a_token_and_padding_none():
    targets = Targets.from_lists([torch.tensor([0])], [torch.tensor([[0.51, 0.51, 0.01, 0.01]])])
    mask = torch.zeros(1, 84, dtype=torch.bool)
    boxes = torch.full((1, 84, 4), 0.5)
    _, target, _ = assign_tokens(torch.zeros(1, 84, 3), boxes, SHAPES, mask, targets, DenseSettings())
    assert len(target) >= 1
    _, target, _ = assign_tokens(torch.zeros(1, 84, 3), boxes, SHAPES, ~mask, targets, DenseSettings())
    assert len(target) == 0


def test_dense_loss_falls_when_trained_on():
    torch.manual_seed(0)
    logits = nn.Parameter(torch.full((3, 84, 3), -4.0))
    raw = nn.Parameter(torch.randn(3, 84, 4) * 0.3)
    optimiser = torch.optim.Adam([logits, raw], lr=0.05)
    values = []
    for _ in range(80):
        losses = dense_losses(LayerOutput(logits, raw.sigmoid()), SHAPES, None, TARGETS)
        total = losses["loss_ce_dense"] + 5 * losses["loss_bbox_dense"] + 2 * losses["loss_giou_dense"]
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        values.append(total.item())
    assert values[-1] < 0.25 * values[0]
    empty = dense_losses(LayerOutput(logits[:2], raw[:2].sigmoid()), SHAPES, None, NONE)
    assert empty["loss_bbox_dense"] == 0
