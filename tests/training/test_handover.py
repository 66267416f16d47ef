"""A student that begins where its teacher ends: random teacher, few and small pictures, the whole way."""

import copy

import pytest
import torch
from safetensors.torch import save_file

from litedetr import Detector
from litedetr.positions import box_proposals
from litedetr.training.augment import AugmentSettings
from litedetr.training.data import PhotoSet
from litedetr.training.denoising import DenoisingSettings
from litedetr.training.handover import HandOverSettings, closed_memory, hand_over
from litedetr.training.log import read_log
from litedetr.training.loop import train
from litedetr.training.losses import LossSettings
from litedetr.training.recipes import Recipe, Stage
from litedetr.training.teacher import Teacher
from tests.backbones.test_nanodet import published

SETTINGS = HandOverSettings(
    size=128, batch=2, statistics=8, regression=12, boxes=3, box_steps=30, box_tokens=64, steps=4, rate=1e-5
)  # fmt: skip


@pytest.fixture(scope="module")
def pair(photo_folder) -> tuple[Detector, Teacher]:
    torch.manual_seed(0)
    detector, teacher = Detector.from_preset("lite-dino-nanodet-g", queries=20), Teacher()
    for module in detector.backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="leaky_relu")
    for output in teacher.outputs:
        torch.nn.init.normal_(output.weight, std=0.2)
        torch.nn.init.constant_(output.bias, -1.0)
    hand_over(detector, teacher, PhotoSet.open(photo_folder, "train"), SETTINGS, progress=False)
    return detector, teacher


@pytest.fixture(scope="module")
def pixels(photo_folder) -> torch.Tensor:
    photo = PhotoSet.open(photo_folder, "val").sample(0).image
    grown = torch.nn.functional.interpolate(torch.from_numpy(photo).permute(2, 0, 1)[None].float(), (96, 128))
    return (grown - 120) / 58


@torch.no_grad()
def test_encoder_and_decoder_add_nothing(pair, pixels):
    detector, _ = pair
    memory, pyramid = closed_memory(detector, detector.backbone(pixels))
    torch.testing.assert_close(detector.encoder(pyramid), memory, atol=1e-4, rtol=1e-4)
    output = detector(pixels)
    for layer in (*output.auxiliary, output):
        torch.testing.assert_close(layer.logits, output.proposals.logits, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(layer.boxes, output.proposals.boxes, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_tokens_give_the_teachers_classes(pair, pixels):
    detector, teacher = pair
    maps = detector.backbone(pixels)
    memory, pyramid = closed_memory(detector, maps)
    wanted = teacher(maps).logits
    T = wanted.shape[1]
    _, usable = box_proposals(pyramid.shapes, pyramid.mask, cells=detector.config.anchor_cells)
    found = detector.selection.every_token(memory, pyramid).logits
    wanted, taught = wanted[usable[:, :T]].clamp(min=-8), found[:, :T][usable[:, :T]]
    unexplained = (wanted - taught).var() / wanted.var()
    assert unexplained < 0.15


def test_all_heads_are_one(pair):
    detector, _ = pair
    assert torch.equal(detector.heads.classes[0].weight, detector.selection.class_head.weight)
    assert torch.equal(detector.selection.norm.weight, torch.ones(128))


def test_the_loop_asks_the_teacher(pair, photo_folder, tmp_path):
    file = str(tmp_path / "teacher.safetensors")
    save_file(published(), file)
    recipe = Recipe(
        teacher=file, freeze=("backbone",), steps=2, stages=(Stage(1.0, 128, 2),),
        losses=LossSettings(interm=0.0, soft=1.0, taught=1.0, dense=0.5), denoising=DenoisingSettings(number=50, filled=True),
        augmentation=AugmentSettings(mosaic=0.0), precision="f32", log_steps=1, threads=1,
    )  # fmt: skip
    train(recipe, photo_folder, tmp_path / "out", detector=copy.deepcopy(pair[0]), progress=False)
    lines = [line for line in read_log(tmp_path / "out" / "log.jsonl") if "loss" in line]
    assert len(lines) == 2
    for name in ("loss_ce_soft", "loss_bbox_soft", "loss_giou_soft", "loss_ce_taught", "loss_ce_dense", "loss_ce", "norm"):
        assert all(0 < line[name] < float("inf") for line in lines), name


def test_a_student_of_other_classes_is_refused(photo_folder, tmp_path):
    recipe = Recipe(teacher="teacher.safetensors", steps=1)
    detector = Detector.from_preset("lite-dino-nanodet-g", num_classes=2)
    with pytest.raises(ValueError, match="COCO's 80 classes for this teacher, got nanodet_g with 2 classes"):
        train(recipe, photo_folder, tmp_path, detector=detector, progress=False)
