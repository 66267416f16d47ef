"""Golden steps of training: their targets, draws and settings as ours."""

import pytest

from litedetr.training.denoising import DenoisingDraws
from litedetr.training.losses import LossSettings, total_loss
from litedetr.training.matching import MatchCost
from litedetr.training.targets import Targets
from tests import golden_data as golden

STEPS = golden.cases("train", "train_")


def targets_of(case: dict, arrays: dict) -> Targets:
    pictures = range(len(case["targets_per_image"]))
    return Targets.from_lists([arrays[f"target{b}.labels"] for b in pictures], [arrays[f"target{b}.boxes"] for b in pictures])


def draws_of(arrays: dict) -> DenoisingDraws:
    names = ("label_uniform", "new_labels", "box_sign", "box_uniform")
    return DenoisingDraws(**{name: arrays.get(f"draw.{name}") for name in names})


def settings_of(config: dict) -> LossSettings:
    return LossSettings(
        label=config["cls_loss_coef"],
        l1=config["bbox_loss_coef"],
        giou=config["giou_loss_coef"],
        interm=config["interm_loss_coef"],
        alpha=config["focal_alpha"],
        cost=MatchCost(
            label=config["set_cost_class"],
            l1=config["set_cost_bbox"],
            giou=config["set_cost_giou"],
            alpha=config["focal_alpha"],
        ),
    )


def check_losses(case: dict, losses: dict, settings: LossSettings) -> None:
    assert set(losses) == set(case["losses"])
    for key, expected in case["losses_float64"].items():
        noise = abs(expected - case["losses"][key])
        assert losses[key].item() == pytest.approx(expected, abs=10 * noise + 1e-5, rel=1e-5), key
    total = total_loss(losses, settings).item()
    assert total == pytest.approx(case["total_loss_float64"], rel=1e-5)
