"""predict, predict_batch, traces, saving and loading."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from litedetr import Detections, Detector, Trace, ops
from litedetr.detections import class_nms
from litedetr.image import PhotoError
from litedetr.ops import reference
from litedetr.weights import WeightsError


def test_predict(detector, photo):
    result = detector.predict(photo, threshold=0.0)
    assert isinstance(result, Detections)
    N = len(result)
    assert result.boxes.shape == (N, 4)
    assert result.scores.shape == result.labels.shape == result.queries.shape == (N,)
    assert len(result.scores) == detector.config.top_k
    assert (np.diff(result.scores) <= 0).all(), "sorted by score"
    assert (result.boxes[:, :2] <= result.boxes[:, 2:]).all()
    assert (result.boxes >= 0).all()
    assert (result.boxes <= [200, 150, 200, 150]).all()
    assert result.names[0] == detector.config.names[result.labels[0]]
    assert result.trace is None
    threshold = float(result.scores[5])
    kept = detector.predict(photo, threshold=threshold)
    assert np.array_equal(kept.scores, result.above(threshold).scores)


def test_default_threshold_comes_from_the_config(detector, photo):
    everything = detector.predict(photo, threshold=0.0)
    middle = float(everything.scores[len(everything) // 2])
    other = copy.copy(detector)
    other.config = replace(detector.config, threshold=middle)
    assert np.array_equal(other.predict(photo).scores, everything.above(middle).scores)


@pytest.mark.parametrize("kind", ["path", "string", "pil", "bytes"])
def test_every_kind_of_photo(detector, photo, tmp_path, kind):
    file = tmp_path / "photo.png"
    Image.fromarray(photo).save(file)
    given = {"path": file, "string": str(file), "pil": Image.open(file), "bytes": file.read_bytes()}[kind]
    expected = detector.predict(photo, threshold=0.0)
    result = detector.predict(given, threshold=0.0)
    assert np.array_equal(result.boxes, expected.boxes)
    assert np.array_equal(result.scores, expected.scores)


def test_batches_do_not_change_results(detector, photo):
    photos = [photo, photo[:, ::-1], np.rot90(photo), photo[20:, 10:]]
    photos = [np.ascontiguousarray(p) for p in photos]
    for single, batched in zip([detector.predict(p, 0.0) for p in photos], detector.predict_batch(photos, 0.0), strict=True):
        assert single.photo_size == batched.photo_size
        np.testing.assert_allclose(batched.scores, single.scores, atol=1e-4)
        np.testing.assert_allclose(batched.boxes[:10], single.boxes[:10], atol=0.05)


def test_exports(detector, photo):
    result = detector.predict(photo, threshold=0.0)[:3]
    coco = result.to_coco(image_id=7)
    assert [entry["image_id"] for entry in coco] == [7, 7, 7]
    assert coco[0]["category_id"] == detector.config.ids[result.labels[0]]
    x, y, width, height = coco[0]["bbox"]
    np.testing.assert_allclose([x, y, x + width, y + height], result.boxes[0], atol=0.02)
    data = json.loads(json.dumps(result.to_dict()))
    assert (data["width"], data["height"]) == (200, 150)
    assert data["detections"][0]["name"] == result.names[0]


def test_trace_is_complete_and_changes_nothing(detector, photo):
    plain, traced = detector.predict(photo, 0.0), detector.predict(photo, 0.0, trace=True)
    assert np.array_equal(plain.boxes, traced.boxes)
    assert np.array_equal(plain.scores, traced.scores)
    trace = traced.trace
    assert isinstance(trace, Trace)
    schedule = detector.config.encoder_schedule.steps()
    assert [step.name for step in trace.steps] == [s.name for s in schedule] + ["decoder 1", "decoder 2"]
    assert [step.kind for step in trace.encoder_steps] == [s.kind for s in schedule]
    tokens = [H * W for H, W in trace.spatial_shapes]
    M, L, P = detector.config.heads, detector.config.levels, detector.config.points
    for step, planned in zip(trace.encoder_steps, schedule, strict=True):
        Q = sum(tokens[level] for level in planned.query_levels)
        assert step.query_levels == planned.query_levels
        assert step.first_query == sum(tokens) - Q
        assert step.locations.shape == (Q, M, L, P, 2)
        assert step.weights.shape == (Q, M, L, P)
        assert step.reference_points.shape == (Q, L, 2)
    for step in trace.decoder_steps:
        assert step.locations.shape == (detector.config.queries, M, L, P, 2)
        assert step.reference_points.shape == (detector.config.queries, L, 4)
    for step in trace.steps:
        total = step.weights.sum((-2, -1))
        assert torch.allclose(total, torch.ones_like(total), atol=1e-5), "weights sum to 1 per query and head"
        assert step.rebuild_error() < 1e-5
        assert step.rebuild([0, 3]).shape == (2, detector.config.width)
        assert step.rebuild_error([0, 3]) < 1e-5
    assert trace.boxes.shape == (3, detector.config.queries, 4)
    assert trace.logits.shape == (2, detector.config.queries, 80)
    scores = trace.logits[-1].sigmoid()[traced.queries, traced.labels]
    np.testing.assert_allclose(scores.numpy(), traced.scores, atol=1e-6)
    stages = {"backbone", "neck", "encoder", "selection", "decoder"}
    assert set(trace.milliseconds) == stages | {step.name for step in trace.steps}
    assert trace.nbytes > 0
    with pytest.raises(KeyError, match="expected one of the steps B1 high"):
        trace.step("B9 all")


def test_trace_says_what_went_in_and_came_out(detector, photo):
    """Weights from queries and keys, tokens between steps, what every token proposed: each agrees with what it explains."""
    trace = detector.predict(photo, 0.0, trace=True).trace
    for step in trace.steps:
        _, weights = reference.key_aware_deformable_attention(
            step.query[None], step.key[None], step.value[None], step.spatial_shapes, step.locations[None]
        )
        torch.testing.assert_close(weights[0], step.weights, atol=1e-5, rtol=1e-4)
        assert step.tokens.shape == step.output.shape
    last = len(trace.encoder_steps) - 1
    memory = trace.memory(last)
    values = detector.decoder.layers[0].attention.value_proj(memory).unflatten(-1, (detector.config.heads, -1))
    torch.testing.assert_close(values, trace.decoder_steps[0].value, atol=1e-5, rtol=1e-4)
    assert torch.equal(trace.memory(-1), trace.tokens)
    assert torch.equal(memory[: trace.steps[last].first_query], trace.memory(last - 1)[: trace.steps[last].first_query])
    chosen = trace.selected_tokens
    assert torch.equal(trace.proposal_logits.amax(-1).topk(len(chosen)).indices, chosen)
    torch.testing.assert_close(trace.proposal_boxes[chosen], trace.boxes[0], atol=1e-5, rtol=1e-4)
    assert trace.queries.shape == (len(chosen), detector.config.width)
    assert trace.query_positions is None


def test_trace_on_the_reference_op_sees_the_same(detector, photo):
    fast = detector.predict(photo, 0.0, trace=True).trace
    with ops.use("reference"):
        slow = detector.predict(photo, 0.0, trace=True).trace
    for a, b in zip(fast.steps, slow.steps, strict=True):
        assert torch.allclose(a.output, b.output, atol=1e-4)


def test_points_land_where_they_should(detector, photo):
    """Encoder reference points, mapped to the photo, are the centres of their cells there."""
    trace = detector.predict(photo, 0.0, trace=True).trace
    step = trace.step("B1 all")
    H, W = trace.spatial_shapes[0]
    corners = trace.geometry.to_photo(step.reference_points[[0, W - 1, (H - 1) * W], 0])
    (height, width), resized = trace.geometry.photo, trace.geometry.resized
    first = torch.tensor([8 * width / resized[1] / 2, 8 * height / resized[0] / 2])  # cells are 8 pixels of the resized photo
    assert torch.allclose(corners[0], first, atol=0.05)
    assert torch.allclose(corners[1], torch.tensor([width, 0]) + first * torch.tensor([-1, 1]), atol=0.05)
    back = trace.geometry.from_photo(corners)
    assert torch.allclose(back, step.reference_points[[0, W - 1, (H - 1) * W], 0], atol=1e-6)


def test_forward_contract(detector):
    pixels = torch.randn(2, 3, 128, 192)
    mask = torch.zeros(2, 128, 192, dtype=torch.bool)
    mask[1, 100:] = True
    with torch.no_grad():
        output = detector(pixels, mask)
        alone = detector(pixels[:1], mask[:1])
    assert output.logits.shape == (2, 40, 80)
    assert output.boxes.shape == (2, 40, 4)
    assert ((output.boxes >= 0) & (output.boxes <= 1)).all()
    assert len(output.auxiliary) == 1
    assert torch.allclose(output.logits[:1], alone.logits, atol=1e-4)


def test_fewer_tokens_than_queries():
    detector = Detector.from_preset("lite-dino-mobilenet", queries=150)
    with torch.no_grad():
        output = detector(torch.randn(1, 3, 64, 64))
    assert output.logits.shape == (1, 64 + 16 + 4 + 1, 80)


@pytest.mark.parametrize("schedule", ["H2L1-(2+1)x2", "H4L1-(3+1)x1"])
def test_three_and_five_scales(schedule, photo):
    levels = sum(int(schedule[i]) for i in (1, 3))
    sizes = {"width": 64, "short_side": 128, "long_side": 128}
    detector = Detector.from_preset("lite-dino-mobilenet", schedule=schedule, levels=levels, **sizes)
    result = detector.predict(photo, 0.0, trace=True)
    assert len(result.trace.spatial_shapes) == levels
    assert max(step.rebuild_error() for step in result.trace.steps) < 1e-5


def test_save_and_load(detector, photo, tmp_path):
    detector.save_pretrained(tmp_path)
    loaded = Detector.from_pretrained(tmp_path)
    assert loaded.config == detector.config
    assert not loaded.training
    expected, result = detector.predict(photo, 0.0), loaded.predict(photo, 0.0)
    assert np.array_equal(expected.scores, result.scores)
    detector.save_pretrained(tmp_path / "half", dtype=torch.float16)
    half, full = (p.stat().st_size for p in (tmp_path / "half" / "model.safetensors", tmp_path / "model.safetensors"))
    assert half < 0.52 * full
    assert next(Detector.from_pretrained(tmp_path / "half").parameters()).dtype == torch.float32


def test_the_dense_head_is_not_shipped(tmp_path):
    detector = Detector.from_preset("lite-dino-mobilenet", dense_head=True, width=32)
    detector.save_pretrained(tmp_path)
    loaded = Detector.from_pretrained(tmp_path)
    assert loaded.config == replace(detector.config, dense_head=False)
    assert loaded.dense_head is None


def test_wrong_weights_load_nothing(detector, tmp_path):
    detector.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["schedule"], config["key_aware"] = "H3L1-(6+1)x1", False
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError) as error:
        Detector.from_pretrained(tmp_path)
    message = str(error.value)
    assert message.startswith("expected weights that fit the model exactly, got ")
    assert " missing: encoder.layers.0.attention.attention_weights.weight, " in message
    assert " unexpected: " in message
    assert message.endswith("Nothing was loaded: use the config.json that belongs to these weights.")


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(WeightsError) as error:
        Detector.from_pretrained("nowhere")
    assert str(error.value) == (
        'expected "embedded", a folder with config.json and model.safetensors, "owner/name", or a preset with published weights, '
        "got 'nowhere'"
    )
    with pytest.raises(WeightsError, match=r"expected config\.json and model\.safetensors of a litedetr model in"):
        Detector.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 16)
    with pytest.raises(WeightsError, match="could not read them"):
        Detector.from_pretrained(tmp_path)


def test_missing_photo(detector, tmp_path):
    with pytest.raises(PhotoError) as error:
        detector.predict(tmp_path / "none.jpg")
    assert str(error.value) == "There is no picture called none.jpg: check the path."


def test_near_duplicates_of_a_class_are_dropped_beside_the_best():
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [0, 0, 10, 10], [50, 50, 50, 50], [50, 50, 50, 50]])
    labels = np.array([1, 1, 1, 2, 1, 1])
    assert class_nms(boxes, labels, None).all()
    assert class_nms(boxes, labels, 0.85).tolist() == [True, False, True, True, True, False]  # a dropped one drops nobody
    assert class_nms(boxes, labels, 0.7).tolist() == [True, False, False, True, True, False]  # nor do empty ones stay twice
    assert class_nms(boxes[:0], labels[:0], 0.5).shape == (0,)


def test_a_detector_drops_duplicates_where_its_config_says_so(detector, photo):
    one, other = (Detector(replace(detector.config, nms_iou=overlap)) for overlap in (None, 0.02))
    for twin in (one, other):
        twin.load_state_dict(detector.state_dict())
        with torch.no_grad():
            twin.heads.classes[-1].bias[0] = 10.0  # one class for all, in boxes that overlap
    everything, fewer = one.predict(photo, 0.0), other.predict(photo, 0.0)
    assert 0 < len(fewer) < len(everything)
    pairs, others = (set(zip(found.queries.tolist(), found.labels.tolist(), strict=True)) for found in (fewer, everything))
    assert pairs < others
    assert fewer.scores[0] == everything.scores[0]
    with pytest.raises(ValueError) as error:
        replace(detector.config, nms_iou=1.5)
    assert str(error.value) == "expected nms_iou as an IoU in (0, 1], or None to keep all, got 1.5"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(detector, photo, dtype):
    expected, other = detector.predict(photo, threshold=0.0), copy.deepcopy(detector).to(dtype)
    for found in (other.predict(photo, 0.0, trace=True), *other.predict_batch([photo], 0.0)):
        assert found.scores.dtype == np.float32
        assert np.abs(found.scores - expected.scores).max() < 0.15  # other queries where tokens are nearly equal


def test_another_default_dtype_changes_nothing(detector, photo):
    expected = detector.predict(photo, threshold=0.0)
    torch.set_default_dtype(torch.float64)
    try:
        found = detector.predict(photo, threshold=0.0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.array_equal(found.scores, expected.scores)


@pytest.mark.parametrize(("threshold", "said"), [(50, "for 50 % give 0.5"), (-0.1, "give one"), (float("nan"), "got nan")])
def test_a_threshold_is_a_score(detector, photo, threshold, said):
    with pytest.raises(ValueError, match=f"expected a threshold from 0 to 1, as scores are, .*{said}"):
        detector.predict(photo, threshold)
