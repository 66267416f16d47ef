"""Every kind of preset at a small size: saved and rebuilt, one photo in, its trace rebuilt; choices that combine freely."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from litedetr import Detector, DetectorConfig
from litedetr.config import preset
from litedetr.output import LayerOutput
from tests.small_models import ONE_OF_EACH, small


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_saved_and_rebuilt(name, tmp_path):
    detector = small(name)
    detector.save_pretrained(tmp_path)
    loaded = Detector.from_pretrained(tmp_path)
    assert loaded.config == detector.config
    own, other = detector.state_dict(), loaded.state_dict()
    assert list(own) == list(other)
    assert all(torch.equal(own[key], other[key]) for key in own)


@pytest.mark.parametrize(
    "name",
    ["deformable-detr-r50", "deformable-detr-r50-refine", "lite-deformable-detr-r50-h3l1-3x2", "lite-h-detr-swin-t-h2l2-2x3"],
)
def test_predict_and_trace(name, photo):
    detector = small(name)
    plain, traced = detector.predict(photo, 0.0), detector.predict(photo, 0.0, trace=True)
    assert np.array_equal(plain.boxes, traced.boxes)
    trace = traced.trace
    assert [step.name for step in trace.encoder_steps] == [step.name for step in detector.config.encoder_schedule.steps()]
    for step in trace.steps:
        assert step.rebuild_error() < 1e-5
        total = step.weights.sum((-2, -1))
        assert torch.allclose(total, torch.ones_like(total), atol=1e-5)
    assert trace.boxes.shape == (3, 12, 4)
    assert trace.logits.shape == (2, 12, 91)
    assert (trace.selected_tokens is None) == (not detector.config.two_stage)
    if not detector.config.two_stage:
        assert not trace.boxes[0, :, 2:].any(), "a point is a box of no size"


@pytest.mark.parametrize("name", ["lite-h-detr-r50-h3l1-2x3", "lite-deformable-detr-r50-h2l2-2x3", "deformable-detr-r50"])
@pytest.mark.parametrize("changes", [{"same_loc": True, "proj_key": True, "key_aware": True}, {"key_aware": False}])
def test_choices_combine(name, changes):
    shared = {"shared_heads": not preset(name).shared_heads, "schedule": "H3L2-(3+1)x1", "levels": 5}
    detector = small(name, **changes, **shared)
    with torch.no_grad():
        output = detector(torch.randn(1, 3, 160, 160))
    assert output.logits.shape == (1, 12, 91)
    assert ((output.boxes >= 0) & (output.boxes <= 1)).all()


def test_one_to_many_queries_do_not_disturb_the_others():
    detector = small("lite-h-detr-r50-h3l1-2x3")
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        alone, both = detector(pixels), detector(pixels, one_to_many=True)
    assert alone.one_to_many == ()
    assert torch.allclose(alone.logits, both.logits, atol=1e-5)
    assert torch.allclose(alone.boxes, both.boxes, atol=1e-5)
    assert len(both.one_to_many) == 2
    assert isinstance(both.one_to_many[0], LayerOutput)
    assert both.one_to_many[-1].logits.shape == (2, 7, 91)


@pytest.mark.parametrize("name", ["deformable-detr-r50-refine", "deformable-detr-r50-two-stage", "lite-h-detr-r50-h3l1-2x3"])
def test_every_parameter_learns(name):
    detector = small(name).train()
    firsts = [detector.selection.box_head] if detector.config.two_stage else []
    for head in (*detector.heads.boxes, *firsts):
        torch.nn.init.normal_(head.layers[-1].weight)
    output = detector(torch.randn(1, 3, 128, 128), one_to_many=bool(detector.config.one_to_many_queries))
    layers = [LayerOutput(output.logits, output.boxes), *output.auxiliary, *output.one_to_many]
    layers += [output.proposals] if output.proposals is not None else []
    sum(layer.logits.sum() + layer.boxes.sum() for layer in layers).backward()
    assert [key for key, parameter in detector.named_parameters() if parameter.grad is None] == []


def test_messages():
    with pytest.raises(ValueError) as error:
        DetectorConfig(family="yolo")
    assert str(error.value) == "expected the family dino, deformable_detr or h_detr, got 'yolo'"
    with pytest.raises(ValueError) as error:
        DetectorConfig(box_refine=False)
    assert str(error.value) == (
        "expected two_stage and box_refine in a dino model, got two_stage=True, box_refine=False: only deformable_detr does "
        "without them, and two stages need box_refine"
    )
    with pytest.raises(ValueError) as error:
        small("deformable-detr-r50")(torch.zeros(1, 3, 32, 32), one_to_many=True)
    assert str(error.value) == ("expected a model with one-to-many queries (H-DETR), got deformable_detr: leave one_to_many out")
    with pytest.raises(ValueError) as error:
        Detector.from_preset("dino-r50", backbone="vgg")
    assert str(error.value) == "expected the backbone resnet50, swin_tiny, mobilenetv2 or nanodet_g, got 'vgg'"


def test_configs_of_the_first_release_still_load():
    new = {"two_stage", "box_refine", "one_to_many_queries", "position_shift"}
    old = {key: value for key, value in preset("lite-dino-mobilenet").to_dict().items() if key not in new}
    assert DetectorConfig.from_dict(old) == preset("lite-dino-mobilenet")
    assert new <= {field.name for field in fields(DetectorConfig)}
