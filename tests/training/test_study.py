"""One detector, several encoders, one budget."""

import json

import pytest
import torch
from safetensors.torch import load_file

from litedetr.cli import main
from litedetr.training import recipes
from litedetr.training import study as module
from litedetr.training.data import PhotoSet
from litedetr.training.start import build_detector, close_branches
from litedetr.training.study import Variant, clock, markdown, spread, study
from tests.training.conftest import tiny_detector

VARIANTS = (Variant("full", "H4L0-(1+1)x2", seeds=(0, 1)), Variant("plain", "H3L1-(2+1)x1", key_aware=False))


@pytest.fixture
def start(tmp_path) -> str:
    detector = tiny_detector(dense_head=False, short_side=64, long_side=64, class_names=("person", "train"))
    detector.save_pretrained(tmp_path / "start")
    return str(tmp_path / "start")


def test_a_study_of_two_encoders(photo_folder, tmp_path, start, monkeypatch):
    out = tmp_path / "out"
    found = study(photo_folder, out, steps=2, size=64, source=start, variants=VARIANTS, progress=False)
    assert found == json.loads((out / "study.json").read_text())
    assert (found["photos"], found["size"]) == (16, 64)
    seeds = {row["name"]: [run["seed"] for run in row["runs"]] for row in found["variants"]}
    assert seeds == {"full": [0, 1], "plain": [0]}
    assert all(0 <= run["AP"] <= 100 for row in found["variants"] for run in row["runs"])
    assert found["variants"][0]["encoder_gmacs"] > found["variants"][1]["encoder_gmacs"]
    first, second = (load_file(out / f"full-{seed}" / "weights" / "model.safetensors") for seed in (0, 1))
    assert any(not torch.equal(value, second[name]) for name, value in first.items() if name.startswith("encoder."))
    spread(found, photo_folder, out, rounds=20, progress=False)
    clock(found, out, size=(64, 96), rounds=1)
    table = markdown(found).splitlines()
    assert len(table) == 4
    assert table[2].startswith("| full, 2 layers | KDA | ")
    assert table[3].startswith("| H3L1-(2+1)x1 | plain | ")
    # what was done stays done: nothing is trained again
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    again = study(photo_folder, out, steps=2, size=64, source=start, variants=VARIANTS, progress=False)
    assert [row["runs"] for row in again["variants"]] == [row["runs"] for row in found["variants"]]


def test_differences_of_what_was_found(photo_folder, tmp_path, start):
    """The same weights differ by nothing on any draw; a seed's share counts as half; bounds are those of the draws."""
    out = tmp_path / "out"
    found = {"size": 64, "variants": []}
    for name, seeds in (("full", (0, 1)), ("same", (0,)), ("none", ())):
        found["variants"].append({"name": name, "runs": [{"seed": seed} for seed in seeds]})
        for seed in seeds:
            (out / f"{name}-{seed}").mkdir(parents=True)
            (out / f"{name}-{seed}" / "weights").symlink_to(start)
    spread(found, photo_folder, out, rounds=20, progress=False)
    full, same, none = found["variants"]
    assert full["difference"] == same["difference"] == {"AP": 0.0, "low": 0.0, "high": 0.0}
    assert "difference" not in none


def test_the_table_says_how_sure_a_difference_is():
    run = {"seed": 0, "AP": 4.0, "AP50": 9.0, "AP_small": 0.5, "person_ap50": 30.0}
    row = {"schedule": "H3L1-(2+1)x1", "key_aware": True, "gmacs": 2.0, "encoder_gmacs": 1.0}
    difference = {"AP": -0.4, "low": -1.0, "high": 0.25}
    rows = [{**row, "runs": [run, {**run, "AP": 5.0}], "difference": {"AP": 0.0, "low": 0.0, "high": 0.0}}]
    table = markdown({"variants": [*rows, {**row, "runs": [run], "difference": difference}, {**row, "runs": []}]}).splitlines()
    assert table[2].startswith("| H3L1-(2+1)x1 | KDA | 2.00 (1.00) | - | 4.5 (4.0–5.0) | 9.0 (9.0–9.0) | ")
    assert table[2].endswith(" | 30.0 (30.0–30.0) |  |")
    assert table[3].endswith("| 30.0 | -0.4 (-1.0 to +0.2) |")
    assert len(table) == 4


def test_every_encoder_begins_as_the_same_one():
    """With closed branches a layer only norms its queries, so schedules that reach every scale agree."""
    torch.manual_seed(0)
    detectors = [tiny_detector(schedule=plan) for plan in ("H4L0-(1+1)x2", "H3L1-(2+1)x2", "H2L2-(3+1)x1")]
    pixels, memories = torch.randn(2, 3, 128, 128), []
    for detector in detectors:
        close_branches(detector.encoder)
        detector.neck.load_state_dict(detectors[0].neck.state_dict())
        detector.backbone.load_state_dict(detectors[0].backbone.state_dict())
        memories.append(detector.encoder(detector.neck(detector.backbone(pixels), None)))
    for memory in memories[1:]:
        torch.testing.assert_close(memory, memories[0], rtol=1e-3, atol=1e-4)


def test_only_what_is_compared_starts_anew(start, photo_folder):
    config = tiny_detector().config
    plain = module.recipe(VARIANTS[1], 0, config, 4, 64, start)
    trained = module.Detector.from_pretrained(start).state_dict()
    detector = build_detector(plain, PhotoSet.open(photo_folder))
    kept = {name for name, value in detector.state_dict().items() if name in trained and torch.equal(value, trained[name])}
    anew = {name for name in detector.state_dict() if name not in kept}
    assert {name.split(".")[0] for name in anew} == {"encoder", "decoder"}
    assert {name.split(".")[-2] for name in anew if name.startswith("decoder.")} == {"attention_weights"}
    learns = {name for name, parameter in detector.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in learns} == {"encoder", "decoder"}
    assert {name.split(".")[3] for name in learns if name.startswith("decoder.")} == {"attention"}
    assert not any(layer.attention.output_proj.weight.any() for layer in detector.encoder.layers)  # closed
    assert plain.teacher == recipes.START, "without NanoDet-g's weights it learns from what it was"
    assert module.recipe(VARIANTS[1], 0, config, 4, 64, start, "file").teacher == "file"


def test_attention_that_begins_near_keeps_its_points(start, photo_folder):
    made = build_detector(recipes.Recipe(start=start, steps=1, near=True), PhotoSet.open(photo_folder))
    fresh, trained = tiny_detector(), module.Detector.from_pretrained(start).state_dict()
    for kind, scale in (("encoder", 0.5), ("decoder", 1.0)):
        for layer, usual in zip(getattr(made, kind).layers, getattr(fresh, kind).layers, strict=True):
            offsets = layer.attention.sampling_offsets
            assert torch.equal(offsets.bias, scale * usual.attention.sampling_offsets.bias)
            assert not offsets.weight.any()
            assert not any(parameter.requires_grad for parameter in offsets.parameters())
            assert layer.attention.output_proj.weight.any() == (kind == "decoder")
    kept = {name for name, value in made.state_dict().items() if torch.equal(value, trained[name])}
    changed = {name.split(".")[-2] for name in set(trained) - kept}
    assert changed <= {"sampling_offsets", "value_proj", "query_proj", "output_proj"}


def test_the_command_says_what_it_needs(capsys):
    with pytest.raises(SystemExit):
        main(["study", "--data", "nowhere"])
    assert "--out" in capsys.readouterr().err
