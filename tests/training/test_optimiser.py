import math

import pytest
import torch
from torch import nn

from litedetr.training.optimiser import Ema, ema_decay, parameter_groups, rate_factor
from litedetr.training.recipes import NAMED, EmaSettings, OptimiserSettings, Recipe, Stage
from tests.training.conftest import tiny_detector


def test_groups_hold_every_trained_parameter_once():
    detector = tiny_detector()
    settings = OptimiserSettings(rate=1e-3, offsets=0.3, backbone=1e-4, decay=0.01)
    groups = parameter_groups(detector, settings)
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    placed = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(placed) == sorted(name for name, p in detector.named_parameters() if p.requires_grad)
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            rate = 1e-4 if name.startswith("backbone.") else 3e-4 if "sampling_offsets" in name else 1e-3
            assert group["lr"] == pytest.approx(rate), name
            plain = parameter.ndim <= 1 or name in ("label_embed.weight", "selection.content.weight", "neck.level_embed")
            assert group["weight_decay"] == (0.0 if plain else 0.01), name


def test_parts_that_start_trained_learn_slowly():
    detector = tiny_detector()
    settings = OptimiserSettings(rate=1e-3, trained=("neck", "heads.classes"), trained_factor=0.1)
    rates = {id(p): group["lr"] for group in parameter_groups(detector, settings) for p in group["params"]}
    for name, parameter in detector.named_parameters():
        if name.startswith(("neck.", "heads.classes.")):
            assert rates[id(parameter)] == pytest.approx(1e-4), name
        elif name.startswith(("encoder.layers.0.ffn", "heads.boxes.")):
            assert rates[id(parameter)] == pytest.approx(1e-3), name


def test_rates_rise_stay_and_fall():
    settings = OptimiserSettings(warm_up=10, constant_until=0.5, floor=0.1)
    assert rate_factor(0, 0.0, settings) == pytest.approx(0.1)
    assert rate_factor(9, 0.01, settings) == 1.0
    assert rate_factor(500, 0.5, settings) == 1.0
    assert rate_factor(750, 0.75, settings) == pytest.approx(0.55)
    assert rate_factor(1000, 1.0, settings) == pytest.approx(0.1)
    falling = [rate_factor(1000, p / 100, settings) for p in range(50, 101)]
    assert falling == sorted(falling, reverse=True)
    assert rate_factor(0, 1.0, OptimiserSettings(warm_up=0, constant_until=1.0)) == 1.0


def test_the_average_is_first_a_mean_then_looks_back_further():
    settings = EmaSettings(slowest=0.9998, fastest=0.998, share=0.1)
    assert ema_decay(0, settings) == 0.0
    assert ema_decay(1, settings) == 0.5
    assert ema_decay(2_000, settings) == pytest.approx(0.998)
    assert ema_decay(20_000, settings) == pytest.approx(1 - 1 / 2000)
    assert ema_decay(10**6, settings) == pytest.approx(0.9998)


def test_ema_of_a_model():
    model = nn.BatchNorm1d(2)
    ema = Ema(model, EmaSettings())
    values = [1.0, 2.0, 6.0]
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        model.num_batches_tracked.fill_(step)
        ema.update(model, step)
    assert torch.allclose(ema.state["weight"], torch.full((2,), 3.0))
    assert ema.state["num_batches_tracked"] == 2


def test_recipes_as_json(tmp_path):
    for named in NAMED.values():
        assert Recipe.from_json(named(3600).to_json()) == named(3600)
    (tmp_path / "recipe.json").write_text('{"steps": 3, "losses": {"dense": 0.5}, "stages": [{"until": 1, "size": 64}]}')
    loaded = Recipe.load(tmp_path / "recipe.json")
    assert loaded.losses.dense == 0.5
    assert loaded.stages == (Stage(1, 64),)
    with pytest.raises(ValueError, match="densse"):
        Recipe.from_json('{"steps": 3, "losses": {"densse": 0.5}}')
    with pytest.raises(ValueError, match="expected a length"):
        Recipe()
    with pytest.raises(ValueError, match="rising order"):
        Recipe(steps=1, stages=(Stage(0.5, 64),))
    with pytest.raises(ValueError, match="class_loss"):
        Recipe.from_json('{"steps": 3, "losses": {"class_loss": "hinge"}}')


def test_stages_and_late_losses():
    recipe = Recipe(steps=10, stages=(Stage(0.4, 64), Stage(1.0, 128)), late_class_loss="varifocal", late_from=0.5)
    assert [recipe.stage(p).size for p in (0.0, 0.39, 0.4, 1.0)] == [64, 64, 128, 128]
    assert [recipe.losses_at(p).class_loss for p in (0.49, 0.5)] == ["focal", "varifocal"]
    assert math.isclose(recipe.losses_at(0.9).l1, recipe.losses.l1)
