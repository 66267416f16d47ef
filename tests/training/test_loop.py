"""The loop: it learns, and a killed run goes on bit for bit."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from litedetr.training.augment import AugmentSettings
from litedetr.training.board import scalars
from litedetr.training.checkpoint import load_checkpoint
from litedetr.training.denoising import DenoisingSettings
from litedetr.training.log import read_log
from litedetr.training.loop import train
from litedetr.training.losses import LossSettings
from litedetr.training.recipes import Recipe, Stage
from tests.training.conftest import tiny_detector

STEPS = 6
RECIPE = Recipe(
    steps=STEPS,
    stages=(Stage(0.5, 64, 2), Stage(1.0, 128, 2)),
    losses=LossSettings(dense=1.0),
    denoising=DenoisingSettings(number=4),
    augmentation=AugmentSettings(mosaic=0.3),
    precision="f32",
    threads=1,
    log_steps=2,
    checkpoint_seconds=0.0,
)
CHILD = """
import os, signal, sys
from tests.training.test_loop import RECIPE, train, tiny_detector
def stop(step):
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
train(RECIPE, sys.argv[1], sys.argv[2], detector=tiny_detector(), progress=False, on_step=stop)
"""


@pytest.fixture(scope="module")
def whole(photo_folder, tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    return out, train(RECIPE, photo_folder, out, detector=tiny_detector(), progress=False)


def test_what_a_run_leaves(whole, photo_folder):
    out, result = whole
    assert result.steps == STEPS
    assert result.evaluation.images == 4
    assert Recipe.load(out / "recipe.json") == RECIPE
    weights = load_file(out / "weights" / "model.safetensors")
    assert not any(name.startswith("dense_head") for name in weights)
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float16}
    lines = read_log(out / "log.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6]
    assert "AP50" in lines[-1]["val"]
    assert "AP50" in (out / "curve.svg").read_text()
    assert {"photos_per_second", "seconds", "rate", "loss_ce", "loss_giou_dn", "loss_ce_dense"} <= set(lines[0])


def test_a_card_tells_of_the_training(whole, photo_folder):
    out, result = whole
    text = (out / "weights" / "README.md").read_text(encoding="utf-8")
    assert f"\n# {out.name}\n" in text
    assert f"| trained on | `{photo_folder.name}`: 10 pictures, " in text
    assert "| from | random weights |" in text
    assert f"| for | {STEPS} steps, " in text
    assert f"| AP, AP50, AP75 | {100 * result.evaluation.figures['AP']:.1f}, " in text
    assert "| person | " in text
    assert "![Loss and average precision against hours](curve.svg)" in text
    assert (out / "weights" / "curve.svg").read_text() == (out / "curve.svg").read_text()
    assert "The set names no licences of its pictures." in text


def test_other_classes_ask_for_a_restart(whole, photo_folder, tmp_path):
    for split in ("train", "val"):
        content = json.loads((photo_folder / f"{split}.json").read_text())
        content["categories"][1]["name"] = "tram"
        (tmp_path / split).symlink_to(photo_folder / split)
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"begun with \(person, train\), got 2 \(person, tram\): begin again with --restart"):
        train(RECIPE, tmp_path, whole[0], detector=tiny_detector(), progress=False)


def test_the_figures_go_to_tensorboard_where_it_is_installed():
    line = {"step": 4, "seconds": 2.0, "progress": 0.5, "loss": 3.5, "loss_ce": 1.0, "rate": 1e-4, "canvas": (64, 48)}
    assert scalars(line) == {"train/loss": 3.5, "train/loss_ce": 1.0, "train/rate": 1e-4}
    assert scalars({"step": 4, "val": {"AP": 0.2}}) == {"val/AP": 0.2}


def test_a_killed_run_goes_on_bit_for_bit(whole, photo_folder, tmp_path):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", CHILD, str(photo_folder), str(tmp_path)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert load_checkpoint(tmp_path)["step"] == 3
    other = tiny_detector()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)  # nothing of the new process' weights may remain
    train(RECIPE, photo_folder, tmp_path, detector=other, progress=False)
    expected, resumed = load_checkpoint(whole[0]), load_checkpoint(tmp_path)
    assert resumed["step"] == STEPS
    assert resumed["position"] == expected["position"]
    for part in ("model", "ema"):
        for name, value in expected[part].items():
            assert torch.equal(value, resumed[part][name]), (part, name)
    for key, state in expected["optimiser"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, resumed["optimiser"]["state"][key][name]), (key, name)
    ours, theirs = (read_log(folder / "log.jsonl") for folder in (tmp_path, whole[0]))
    assert [line.get("loss") for line in ours] == [line.get("loss") for line in theirs]


def test_another_recipe_is_refused(whole, photo_folder):
    out, _ = whole
    other = replace(RECIPE, seed=9)
    with pytest.raises(ValueError, match=r"\['seed'\]"):
        train(other, photo_folder, out, detector=tiny_detector(), progress=False)
    result = train(other, photo_folder, out, detector=tiny_detector(), progress=False, allow_changes=True)
    assert result.steps == STEPS  # it had reached its length


def test_a_broken_checkpoint_is_named(photo_folder, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(ValueError, match="start over"):
        train(RECIPE, photo_folder, tmp_path, detector=tiny_detector(), progress=False)


@pytest.mark.parametrize("trained", [True, False])
def test_heads_are_trained_first_where_they_are_trained(photo_folder, tmp_path, trained):
    detector = tiny_detector()
    for name in ("heads.classes", "selection.class_head", "label_embed"):
        detector.get_submodule(name).requires_grad_(trained)
    before = detector.encoder.layers[0].ffn.linear1.weight.detach().clone()
    train(replace(RECIPE, steps=1, heads_first=9), photo_folder, tmp_path, detector=detector, progress=False)
    assert torch.equal(detector.encoder.layers[0].ffn.linear1.weight, before) == trained


def test_a_time_budget_ends_the_run(photo_folder, tmp_path):
    recipe = replace(RECIPE, steps=0, seconds=0.5, stages=(Stage(1.0, 64, 2),), losses=LossSettings())
    result = train(recipe, photo_folder, tmp_path, detector=tiny_detector(), progress=False)
    assert result.steps >= 1
    assert result.seconds >= 0.5


def test_diverging_runs_stop(photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("litedetr.training.loop.BAD_STEPS", 2)
    detector = tiny_detector()
    with torch.no_grad():
        detector.decoder.norm.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="lower the rates"):
        train(replace(RECIPE, steps=5), photo_folder, tmp_path, detector=detector, progress=False)


def test_it_learns(photo_folder, tmp_path):
    recipe = replace(RECIPE, steps=40, stages=(Stage(1.0, 64, 4),), augmentation=AugmentSettings(mosaic=0, crop=0), log_steps=5)
    recipe = replace(recipe, checkpoint_seconds=1e9, optimiser=replace(recipe.optimiser, rate=2e-3, warm_up=5))
    train(recipe, photo_folder, tmp_path, detector=tiny_detector(), progress=False)
    losses = [line["loss"] for line in read_log(tmp_path / "log.jsonl") if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
