"""Positions, masks, reference points and proposals against golden data."""

import math

import pytest
import torch

from litedetr.detections import top_k
from litedetr.positions import (
    box_proposals,
    box_sine,
    coordinate_sine,
    inverse_sigmoid,
    move_anchors,
    move_boxes,
    reference_points,
    sine_positions,
    valid_ratios,
)
from litedetr.pyramid import level_mask
from tests import golden_data as golden


def test_masks_positions_reference_points():
    config, arrays, _ = golden.load("ops", "masks_positions_dino")
    shapes = [tuple(size) for size in config["level_sizes"]]
    mask = arrays["image_mask"]
    masks = [level_mask(mask, shape, mask.shape[0], mask.device) for shape in shapes]
    for level, level_ in enumerate(masks):
        assert torch.equal(level_, arrays[f"mask{level}"])
        for setting, temperature in (("t20", 20.0), ("t10000", 10000.0), ("t_w20_h50", (50.0, 20.0))):
            expected = arrays[f"sine_{setting}.{level}"]
            golden.assert_close(sine_positions(level_, expected.shape[1] // 2, temperature), expected, 2e-5, setting)
    ratios = torch.stack([valid_ratios(m) for m in masks], dim=1)
    golden.assert_close(ratios, arrays["valid_ratios"], 1e-6, "valid ratios")
    golden.assert_close(reference_points(shapes, ratios), arrays["reference_points"], 1e-6, "reference points")


def test_box_sine():
    _, arrays, _ = golden.load("ops", "box_sine_dino")
    for coordinates in (2, 4):
        boxes, expected = arrays[f"pos{coordinates}"], arrays[f"sine{coordinates}"]
        golden.assert_close(box_sine(boxes, expected.shape[-1] // coordinates), expected, 2e-5)
    golden.assert_close(inverse_sigmoid(arrays["x"]), arrays["inverse_sigmoid_eps1e-3"], 1e-5)


def test_positions_of_deformable_detr():
    config, arrays, _ = golden.load("ops", "positions_deformable_detr")
    for level, shape in enumerate(config["level_sizes"]):
        mask = level_mask(arrays["image_mask"], tuple(shape), arrays["image_mask"].shape[0], arrays["image_mask"].device)
        assert torch.equal(mask, arrays[f"mask{level}"])
        expected = arrays[f"sine.{level}"]
        golden.assert_close(sine_positions(mask, expected.shape[1] // 2, 10000.0, shift=-0.5), expected, 2e-5, f"level {level}")


def test_coordinate_sine():
    _, arrays, _ = golden.load("ops", "proposal_sine_deformable_detr")
    expected = arrays["sine"]
    golden.assert_close(coordinate_sine(arrays["proposals"].sigmoid(), expected.shape[-1] // 4), expected, 2e-5)
    golden.assert_close(inverse_sigmoid(arrays["x"], 1e-5), arrays["inverse_sigmoid_eps1e-5"], 1e-5)


def test_a_moved_point_becomes_a_box():
    start, delta = torch.tensor([[0.25, 0.5]]), torch.tensor([[0.0, 1.0, -2.0, 0.5]])
    moved = move_boxes(start, delta, 1e-5)
    assert torch.allclose(moved, torch.cat((torch.tensor([[0.0, 1.0]]) + torch.logit(start), delta[:, 2:]), -1).sigmoid())
    assert torch.allclose(move_boxes(moved, torch.zeros(1, 4)), moved, atol=1e-6)


def test_box_proposals():
    _, arrays, _ = golden.load("ops", "encoder_output_proposals")
    shapes = [tuple(shape) for shape in arrays["spatial_shapes"].tolist()]
    proposals, usable = box_proposals(shapes, arrays["mask_flatten"])
    golden.assert_close(proposals, arrays["output_proposals"], 1e-4, "proposals")
    golden.assert_close(arrays["memory"].masked_fill(~usable[..., None], 0.0), arrays["output_memory"], 0.0, "memory")
    learned, _ = box_proposals(shapes, arrays["mask_flatten"], arrays["learned_wh"].sigmoid())
    golden.assert_close(learned, arrays["output_proposals_learned_wh"], 1e-4, "proposals of a learned size")
    finite, _ = box_proposals(shapes, arrays["mask_flatten"], usable_only=False)
    assert finite.isfinite().all()


def test_a_token_on_the_limit_is_unusable_however_it_is_rounded():
    """In 50 rows the first centre is at 0.01 and the last at 0.99, which is not within these."""
    for padded in range(50, 90):
        mask = (torch.arange(padded) >= 50)[:, None].expand(padded, 20).reshape(1, -1)
        usable = box_proposals([(padded, 20)], mask)[1].view(padded, 20)
        assert usable.any(1).nonzero()[:, 0].tolist() == list(range(1, 49)), padded


def test_proposals_in_cells_are_squares_in_the_photo():
    height, width = 96, 160
    shapes = [(12, 20), (6, 10), (3, 5), (2, 3)]
    mask = torch.zeros(2, sum(h * w for h, w in shapes), dtype=torch.bool)
    mask[1, :240] = (torch.arange(20) >= 10).repeat(12)  # the right half of the finest level is padding
    proposals, usable = box_proposals(shapes, mask, cells=2.5)
    sides = proposals.sigmoid()[..., 2:] * torch.tensor((width, height))
    assert torch.allclose(sides[0, :240][usable[0, :240]], torch.tensor(20.0)), "2.5 cells of 8 pixels"
    assert torch.allclose(sides[0, 240:300][usable[0, 240:300]], torch.tensor(40.0))
    half = proposals[1, :240].sigmoid()[usable[1, :240]]
    assert torch.allclose(half[:, 2], torch.tensor(2.5 / 10)), "of the part that is a photo"
    assert proposals[0, -6:].sigmoid()[usable[0, -6:]][:, 3].max() == pytest.approx(0.9), "never wider than the photo"


def test_anchors_move_by_parts_of_their_sides():
    start = torch.tensor([[0.2, 0.5, 0.1, 0.2], [0.7, 0.5, 0.1, 0.2]])
    delta = torch.tensor([0.5, -0.25, 0.0, 1.0]).expand(2, 4).clone().requires_grad_()
    moved = move_anchors(torch.logit(start), delta).sigmoid()
    size = [0.1, 0.2 * math.e]
    assert torch.allclose(moved, torch.tensor([[0.25, 0.45, *size], [0.75, 0.45, *size]]), atol=1e-6)
    moved.sum().backward()
    assert (delta.grad != 0).all()
    nowhere = torch.full((1, 4), float("inf"))
    assert torch.equal(move_anchors(nowhere, torch.ones(1, 4)), nowhere)


@pytest.mark.parametrize("case", golden.cases("ops", "postprocess_"))
def test_post_processing(case):
    config, arrays, _ = golden.load("ops", case)
    photos = zip(arrays["pred_logits"].numpy(), arrays["pred_boxes"].numpy(), arrays["target_sizes"].tolist(), strict=True)
    for index, (logits, given, size) in enumerate(photos):
        scores, labels, boxes, queries = map(torch.from_numpy, top_k(logits, given, size, config["num_select"]))
        golden.assert_close(scores, arrays["scores"][index], 1e-6, "scores")
        assert torch.equal(labels, arrays["labels"][index])
        golden.assert_close(boxes, arrays["boxes"][index], 1e-3, "boxes")
        assert (queries < arrays["pred_logits"].shape[1]).all()
