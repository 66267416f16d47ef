"""A trained detector goes on with one's own classes."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from litedetr import Detector
from litedetr.backbones.mobilenet import MobileNetV2
from litedetr.cli import main
from litedetr.training.checkpoint import load_checkpoint
from litedetr.training.data import PhotoSet
from litedetr.training.recipes import Recipe
from litedetr.training.start import CLASS_PARTS, build_detector, from_trained
from tests.training.conftest import tiny_detector
from tests.training.two_processes import RECIPE


def saved(folder, **changes) -> Detector:
    detector = tiny_detector(dense_head=False, short_side=96, long_side=96, **changes)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    detector.save_pretrained(folder)
    return detector


def test_other_classes_get_another_head(photo_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trained = saved(tmp_path, num_classes=3, class_names=("cat", "train", "dog"), category_ids=(17, 7, 18)).state_dict()
    photos = PhotoSet.open(photo_folder)
    detector = from_trained(str(tmp_path), photos, {"dense_head": True})
    assert detector.config.names == ("person", "train")
    assert detector.config.ids == (1, 7)
    assert caplog.messages[-1] == (
        f"starting from {tmp_path}: its 3 classes are not the 2 of {photos.annotations}, so the class heads are made anew; "
        "1 that both know keep their weights (train)"
    )
    for name, value in detector.state_dict().items():
        if name.startswith(CLASS_PARTS):
            assert torch.equal(value[1], trained[name][1]), name
            assert not torch.equal(value[0], trained[name][0]), name
        elif not name.startswith("dense_head."):
            assert torch.equal(value, trained[name]), name


def test_the_same_classes_keep_their_head(photo_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trained = saved(tmp_path, class_names=("person", "train")).state_dict()
    detector = from_trained(str(tmp_path), PhotoSet.open(photo_folder))
    assert caplog.messages[-1] == f"starting from {tmp_path}, which has the same 2 classes"
    assert all(torch.equal(value, trained[name]) for name, value in detector.state_dict().items())
    with pytest.raises(ValueError, match="leave the backbone out"):
        build_detector(replace(RECIPE, start=str(tmp_path), backbone="file"), PhotoSet.open(photo_folder))


def test_a_trained_detector_on_its_first_backbone(photo_folder, tmp_path):
    trained = saved(tmp_path / "trained", backbone="mobilenetv2", class_names=("person", "train")).state_dict()
    torch.manual_seed(5)
    first = MobileNetV2().state_dict()
    save_file(first, tmp_path / "backbone.safetensors")
    recipe = replace(RECIPE, start=str(tmp_path / "trained"), changes={}, fresh=("backbone",), freeze=("backbone",),
                     backbone=str(tmp_path / "backbone.safetensors"))  # fmt: skip
    detector = build_detector(recipe, PhotoSet.open(photo_folder))
    for name, value in detector.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(value, first[name.removeprefix("backbone.")]), name
        elif not name.startswith("dense_head."):
            assert torch.equal(value, trained[name]), name
    assert not any(parameter.requires_grad for parameter in detector.backbone.parameters())


@pytest.mark.parametrize("family", ["dino", "deformable_detr"])
def test_training_from_a_trained_detector(family, photo_folder, tmp_path, capsys):
    changes = {} if family == "dino" else {"family": family, "learned_content": False}
    saved(tmp_path / "trained", num_classes=3, class_names=("cat", "train", "dog"), **changes)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(replace(RECIPE, steps=1).to_json())
    run = ["train", "--data", str(photo_folder), "--out", str(tmp_path / "out"), "--recipe", str(recipe)]
    assert main([*run, "--from", str(tmp_path / "trained")]) == 0
    assert "1 steps in " in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "out")["step"] == 1
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["start"] == str(tmp_path / "trained")
    mine = Detector.from_pretrained(tmp_path / "out" / "weights")
    assert (mine.config.family, mine.config.names) == (family, ("person", "train"))


def test_another_encoder_on_the_trained_rest(photo_folder, tmp_path):
    trained = saved(tmp_path, class_names=("person", "train")).state_dict()
    changes = {"schedule": "H2L2-(1+1)x1", "key_aware": False}
    fresh = ("encoder", "decoder.layers.0.attention", "decoder.layers.1.attention")
    recipe = replace(RECIPE, start=str(tmp_path), changes=changes, fresh=fresh, freeze=("backbone", "neck"))
    assert Recipe.from_json(recipe.to_json()) == recipe
    detector = build_detector(recipe, PhotoSet.open(photo_folder))
    assert (detector.config.schedule, detector.config.key_aware) == ("H2L2-(1+1)x1", False)
    kept = {name: value for name, value in detector.state_dict().items() if not name.startswith((*fresh, "dense_head."))}
    assert {name.split(".")[0] for name in kept} == {name.split(".")[0] for name in trained} - {"encoder"}
    assert all(torch.equal(value, trained[name]) for name, value in kept.items())
    still = {name.split(".")[0] for name, parameter in detector.named_parameters() if not parameter.requires_grad}
    assert still == {"backbone", "neck"}
    moving = {name.split(".")[0] for name, parameter in detector.named_parameters() if parameter.requires_grad}
    assert {"encoder", "decoder", "heads"} <= moving


def test_weights_without_a_place_or_a_source_are_refused(photo_folder, tmp_path):
    saved(tmp_path, class_names=("person", "train"))
    photos = PhotoSet.open(photo_folder)
    with pytest.raises(ValueError, match="take back the change that drops them, or name their part in `fresh`"):
        from_trained(str(tmp_path), photos, {"decoder_layers": 1})
    with pytest.raises(ValueError, match="take back the change that needs it, or name its part in `fresh`"):
        from_trained(str(tmp_path), photos, {"queries": 7})
