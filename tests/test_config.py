"""Configs and presets."""

import json
from dataclasses import replace

import pytest

from litedetr import DetectorConfig
from litedetr.config import preset, presets


@pytest.mark.parametrize("name", sorted(presets()))
def test_json_round_trip(name):
    config = preset(name)
    assert DetectorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert len(config.names) == len(config.ids) == config.num_classes


def test_a_config_with_the_names_of_old_still_loads():
    config = preset("lite-dino-mobilenet", top_k=7, nms_iou=0.6)
    values = config.to_dict()
    old = {"select": values.pop("top_k"), "duplicates": values.pop("nms_iou"), **values}
    assert DetectorConfig.from_dict(old) == config
    assert preset("lite-dino-mobilenet", select=7, duplicates=0.6) == config


def test_presets_are_those_of_the_paper():
    schedules = ("h2l2-2x3", "h3l1-6x1", "h3l1-2x3")
    lite = {f"lite-{family}-{b}-{s}" for family in ("dino", "h-detr") for b in ("r50", "swin-t") for s in schedules}
    lite |= {f"lite-deformable-detr-r50-{s}" for s in (*schedules, "h3l1-3x2")}
    full = {f"{family}-{b}" for family in ("dino", "h-detr") for b in ("r50", "swin-t")}
    full |= {"deformable-detr-r50", "deformable-detr-r50-refine", "deformable-detr-r50-two-stage"}
    full |= {"deformable-detr-r50-single-scale", "deformable-detr-r50-single-scale-dc5"}
    assert set(presets()) == lite | full | {"lite-dino-mobilenet"}
    assert all(preset(name).encoder_schedule.is_full and not preset(name).key_aware for name in full)
    assert all(not preset(name).encoder_schedule.is_full and preset(name).low_ffn == 256 for name in lite)
    assert {name for name in lite if not preset(name).key_aware} == {name for name in lite if "deformable" in name}
    assert preset("lite-deformable-detr-r50-h3l1-3x2").schedule == "H3L1-(3+1)x2"
    assert preset("lite-dino-r50-h3l1-2x3").names[1] == "person"
    assert preset("lite-dino-mobilenet").names[0] == "person"
    assert preset("lite-dino-mobilenet").ids[-1] == 90


def test_other_classes_drop_the_old_names():
    config = preset("lite-dino-mobilenet", num_classes=3)
    assert config.names == ("class 0", "class 1", "class 2")
    assert config.ids == (0, 1, 2)


def test_messages():
    with pytest.raises(ValueError) as error:
        preset("yolo")
    assert str(error.value) == f"expected one of the presets {', '.join(sorted(presets()))}, got 'yolo'"
    with pytest.raises(ValueError) as error:
        DetectorConfig(levels=3)
    assert str(error.value) == "expected a schedule for 3 scales, got H3L1-(2+1)x3 for 4: change levels or the schedule"
    with pytest.raises(ValueError) as error:
        DetectorConfig.from_dict({"family": "dino", "speed": 9})
    assert str(error.value) == ("expected a litedetr config, got the unknown fields speed: was it written by a newer version?")
    with pytest.raises(ValueError) as error:
        replace(preset("lite-dino-mobilenet"), class_names=("one",))
    assert str(error.value) == "expected 80 class_names (num_classes), got 1: give one per class or none"
