"""Whole detectors against golden data: every stage and every output."""

import numpy as np
import pytest
import torch

from litedetr import Detector
from litedetr.detections import top_k
from tests import golden_data as golden
from tests.golden_data import config_of

CASES = golden.cases("model", "lite_dino_", "dino", "ddetr", "hdetr")


@pytest.fixture(scope="module", params=CASES)
def run(request):
    case, arrays, parameters = golden.load("model", request.param)
    detector = Detector(config_of(case))
    golden.load_published(detector, parameters)
    many = [True] if case["family"] == "h_detr" and not case["eval_one2one"] else []
    with torch.inference_mode():
        features = detector.backbone(arrays["image"])
        pyramid = detector.neck(features, arrays["mask"])
        memory = detector.encoder(pyramid)
        selected = detector.selection(memory, pyramid, *many)
        states, references = detector.decoder(
            selected.content, selected.references, memory, pyramid, detector.heads.box_heads(), selected.attention_mask,
            positions=selected.positions,
        )  # fmt: skip
        output = detector(arrays["image"], arrays["mask"], one_to_many=bool(many))
        every_token = detector.selection.every_token(memory, pyramid) if detector.config.two_stage else None
    dino = detector.config.family == "dino"
    stages = {
        **{f"feat{index}": feature for index, feature in enumerate(features)},
        "src_flatten": pyramid.tokens,
        "mask_flatten": pyramid.mask,
        "pos_flatten_no_level": pyramid.positions - torch.cat(
            [row.expand(H * W, -1) for row, (H, W) in zip(detector.neck.level_embed.detach(), pyramid.shapes, strict=True)]
        ),
        "memory": memory,
        "enc.scores": selected.scores,
        "enc.topk_indices": selected.tokens,
        "dec.tgt": selected.content,
        "dec.ref_in": selected.references if dino else selected.references.sigmoid(),
        "dec.hs": states,
        "dec.references": torch.stack(references if dino else references[1:]),
        "out.pred_logits": output.logits,
        "out.pred_boxes": output.boxes,
    }  # fmt: skip
    for index, layer in enumerate(output.auxiliary):
        stages[f"out.aux_outputs.{index}.pred_logits"] = layer.logits
        stages[f"out.aux_outputs.{index}.pred_boxes"] = layer.boxes
    for index, layer in enumerate(output.one_to_many):
        last = index == len(output.one_to_many) - 1
        name, suffix = ("out.", "_one2many") if last else (f"out.aux_outputs_one2many.{index}.", "")
        stages[f"{name}pred_logits{suffix}"] = layer.logits
        stages[f"{name}pred_boxes{suffix}"] = layer.boxes
    if dino:
        matching = selected.anchors if case["family"] == "lite_dino" else selected.anchors.sigmoid()
        stages["out.interm_outputs.pred_logits"] = output.proposals.logits
        stages["out.interm_outputs.pred_boxes"] = output.proposals.boxes
        stages["out.interm_outputs_for_matching_pre.pred_logits"] = output.proposals.logits
        stages["out.interm_outputs_for_matching_pre.pred_boxes"] = matching
    elif every_token is not None:
        stages["out.enc_outputs.pred_logits"] = every_token.logits
        stages["out.enc_outputs.pred_boxes"] = every_token.boxes
    return case, arrays, stages


def test_every_stage(run):
    case, arrays, stages = run
    expected = [key for key in arrays if key.startswith(("feat", "out.", "enc.", "dec.", "memory", "src", "mask_f", "pos_f"))]
    assert set(expected) <= set(stages), set(expected) - set(stages)
    noise = case["max_abs_diff_float32_vs_float64"]
    for key in expected:
        value = stages[key]
        if value.dtype in (torch.bool, torch.int64):
            assert torch.equal(value, arrays[key]), key
        else:
            golden.assert_close(value, arrays[key], golden.tolerance(max(noise.get(key, 0.0), max(noise.values()))), key)


def test_post_processing(run):
    case, arrays, stages = run
    outputs = (stages[f"out.pred_{name}"].detach().float().numpy() for name in ("logits", "boxes"))
    photos = zip(*outputs, arrays["post.target_sizes"].tolist(), strict=True)
    best = [top_k(*photo, case["post_num_select"])[:3] for photo in photos]
    scores, labels, boxes = (torch.from_numpy(np.stack(column)) for column in zip(*best, strict=True))
    sure = case["post_unambiguous_prefix"]
    limit = golden.tolerance(max(case["max_abs_diff_float32_vs_float64"].values()))
    golden.assert_close(scores, arrays["post.scores"], limit, "scores")
    assert torch.equal(labels[:, :sure], arrays["post.labels"][:, :sure])
    size = float(arrays["post.target_sizes"].max())
    golden.assert_close(boxes[:, :sure], arrays["post.boxes"][:, :sure], limit * size, "boxes")


def test_cases_are_there():
    assert {"lite_dino_s3ex3_kda", "dino_unshared_heads"} <= set(CASES)
