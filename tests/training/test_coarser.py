"""The scale beyond the teacher's coarsest one."""

import copy
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from litedetr import Detector
from litedetr.boxes import cxcywh_to_xyxy
from litedetr.training import recipes
from litedetr.training.augment import NONE
from litedetr.training.coarser import fit_coarsest
from litedetr.training.data import PhotoSet
from litedetr.training.handover import pixels_of
from litedetr.training.log import read_log
from litedetr.training.loop import train
from litedetr.training.recipes import Stage
from litedetr.training.teacher import Teacher, halved
from tests.backbones.test_nanodet import published


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    made = Detector.from_preset("lite-dino-nanodet-g", queries=20)
    for module in made.backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="leaky_relu")
    return made.eval()


def test_halves_are_whole_cells():
    half, larger = halved(torch.ones(1, 3, 96, 160))
    assert half.shape == (1, 3, 64, 96)  # 48 x 80, and zeros
    assert larger == (96 / 80, 64 / 48)
    assert half[..., :48, :80].min() == 1
    assert half.sum() == 3 * 48 * 80
    assert halved(torch.ones(1, 3, 128, 64))[1] == (1.0, 1.0)


@torch.no_grad()
def test_the_teacher_answers_for_the_picture_at_half_its_size(detector):
    """A padded half says what a whole one says of the same cells, in the picture's own measure."""
    torch.manual_seed(0)
    teacher, pixels = Teacher(), torch.randn(1, 3, 128, 192)
    answer = teacher.coarser(pixels, detector.backbone)
    maps = detector.backbone(F.interpolate(pixels, (64, 96), mode="bilinear", antialias=True))
    whole = teacher(maps)
    assert answer.logits.shape == (1, 2 * 3, 80)
    torch.testing.assert_close(answer.logits, whole.logits[:, -6:])
    torch.testing.assert_close(answer.boxes, whole.boxes[:, -6:])
    cut = teacher.coarser(pixels[..., :96, :160], detector.backbone)
    padded = F.pad(F.interpolate(pixels[..., :96, :160], (48, 80), mode="bilinear", antialias=True), (0, 16, 0, 16))
    raw = teacher(detector.backbone(padded)).boxes[:, -6:]
    expected = cxcywh_to_xyxy(raw) * torch.tensor([96 / 80, 64 / 48] * 2)
    torch.testing.assert_close(cxcywh_to_xyxy(cut.boxes), expected)


@torch.no_grad()
def test_the_convolution_is_the_best_linear_guess(detector, photo_folder):
    made = copy.deepcopy(detector)
    photos = PhotoSet.open(photo_folder, "train")
    batches = list(islice(pixels_of(photos, made.config, 128, 2, NONE), 4))
    assert len(batches) == 4
    explained = fit_coarsest(made, batches)
    assert 0.5 < explained <= 1.0, "few places, many inputs"
    pixels = batches[0]
    wanted = made.neck.projections[-2](made.backbone(halved(pixels)[0])[-1].float())
    found, before = (each.neck.projections[-1](each.backbone(pixels)[-1].float()) for each in (made, detector))
    assert found.shape == wanted.shape
    assert (found - wanted).square().mean() < 0.5 * (before - wanted).square().mean()


def test_the_recipe_leaves_all_but_attention_and_encoder(detector, photo_folder, tmp_path):
    file = str(tmp_path / "teacher.safetensors")
    save_file(published(), file)
    detector.save_pretrained(tmp_path / "start")
    plan = recipes.replace(
        recipes.coarser(60, str(tmp_path / "start"), file), seconds=0.0, steps=2, stages=(Stage(1.0, 128, 2),), log_steps=1,
        precision="f32", threads=1,
    )  # fmt: skip
    made = Detector.from_pretrained(tmp_path / "start")
    for name in plan.freeze:
        made.get_submodule(name).requires_grad_(False)
    before = copy.deepcopy(made.state_dict())
    train(plan, photo_folder, tmp_path / "out", detector=made, progress=False)
    assert len([line for line in read_log(tmp_path / "out" / "log.jsonl") if "loss" in line]) == 2
    changed = {key for key, value in made.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.split(".")[0] for key in changed} == {"encoder", "decoder"}
    assert not any("sampling_offsets" in key for key in changed)
    assert {key.split(".")[3] for key in changed if key.startswith("decoder.")} == {"attention"}
