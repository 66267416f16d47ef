"""Positions, masks, reference points and proposals against golden data."""

import pytest
import torch

from litedetr.detections import top_k
from litedetr.positions import (
    box_proposals,
    box_sine,
    coordinate_sine,
    inverse_sigmoid,
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
