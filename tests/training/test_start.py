"""A trained detector goes on with one's own classes."""

import json
import logging
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from litedetr import Detector
from litedetr.backbones.mobilenet import MobileNetV2
from litedetr.backbones.resnet import ResNet50
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


def published(backbone: torch.nn.Module, library: str) -> dict[str, torch.Tensor]:
    """Random weights under the names that a library gives them, with its classifier."""
    state = {name: torch.randn_like(value) for name, value in backbone.state_dict().items() if not re.match(r"norm\d\.", name)}
    if isinstance(backbone, ResNet50):
        classifier = {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}
        return state | classifier | {"bn1.num_batches_tracked": torch.tensor(1)}
    later = {"timm": lambda stage: f"layers.{stage + 1}.downsample.", "microsoft": lambda stage: f"layers.{stage}.downsample."}
    named = {}
    for name, value in state.items():
        found = re.match(r"layers\.(\d)\.(?:blocks\.(\d)|downsample)\.(.*)", name)
        stage, block, rest = found.groups() if found else ("", "", name)
        if library == "torchvision":
            rest = rest.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")
            rest = rest.replace("patch_embed.proj", "features.0.0").replace("patch_embed.norm", "features.0.2")
            place = f"features.{2 * int(stage) + (1 if block else 2)}.{block + '.' if block else ''}" if stage else ""
            named[place + rest] = value
        else:
            named[name if block or not stage else later[library](int(stage)) + rest] = value
    return named | {"norm.weight": torch.ones(8), "head.weight": torch.zeros(1000, 8)}


@pytest.mark.parametrize(
    ("kind", "library", "file"),
    [
        ("resnet50", "torchvision", "backbone.pth"),
        ("resnet50", "timm", "backbone.safetensors"),
        ("swin_tiny", "torchvision", "backbone.pth"),
        ("swin_tiny", "timm", "backbone.safetensors"),
        ("swin_tiny", "microsoft", "backbone.pth"),
    ],
)
def test_imagenet_weights_under_their_libraries_names(kind, library, file, photo_folder, tmp_path):
    width = {"resnet50": 2, "swin_tiny": 24}[kind]
    changes = {"width": 32, "heads": 4, "decoder_layers": 1, "queries": 12, "backbone": kind, "backbone_width": width}
    recipe = replace(RECIPE, changes=changes, backbone=str(tmp_path / file))
    first = build_detector(replace(recipe, backbone=""), PhotoSet.open(photo_folder)).backbone
    saved = published(first, library)
    if file.endswith(".pth"):
        torch.save({"model": saved} if library == "microsoft" else saved, tmp_path / file)
    else:
        save_file(saved, tmp_path / file)
    backbone = build_detector(recipe, PhotoSet.open(photo_folder)).backbone
    own = backbone.state_dict()
    expected = sorted(value.sum().item() for name, value in saved.items() if value.ndim and not re.match("fc|head|norm", name))
    got = sorted(value.sum().item() for name, value in own.items() if not re.match(r"norm\d\.", name))
    assert got == pytest.approx(expected), "each of them is somewhere, and nothing else"
    for name, value in own.items():
        if library != "torchvision" and name in saved and "downsample" not in name:
            assert torch.equal(value, saved[name]), name
    saved.pop(next(name for name in saved if "norm1.weight" in name or "bn1.weight" in name))
    torch.save(saved, tmp_path / "backbone.pth")
    with pytest.raises(ValueError, match=r"got 1 missing: .*Nothing was loaded"):
        build_detector(replace(recipe, backbone=str(tmp_path / "backbone.pth")), PhotoSet.open(photo_folder))


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
