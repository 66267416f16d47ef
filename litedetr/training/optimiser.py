"""AdamW's parameter groups, the rates over time, and the averaged weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from litedetr.training.classes import CLASS_PARTS
from litedetr.training.recipes import EmaSettings, OptimiserSettings


def parameter_groups(model: nn.Module, settings: OptimiserSettings) -> list[dict]:
    """Up to eight groups: backbone, sampling offsets, what has a row per class, the rest; each with and without weight decay.

    Biases, norms and embeddings (and every other parameter of one dimension) do not decay. Frozen ones are left out.
    """
    embeddings = {
        f"{name}.{key}" for name, module in model.named_modules() if isinstance(module, nn.Embedding)
        for key, _ in module.named_parameters(recurse=False)
    }  # fmt: skip
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = settings.rate
        if name.startswith("backbone."):
            rate = settings.backbone
        elif "sampling_offsets" in name or ".offsets." in name:
            rate = settings.rate * settings.offsets
        elif name.startswith(CLASS_PARTS):
            rate = settings.rate * settings.classes
        plain = parameter.ndim <= 1 or name in embeddings or name.endswith("level_embed")
        groups.setdefault((rate, 0.0 if plain else settings.decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "full_rate": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def rate_factor(step: int, progress: float, settings: OptimiserSettings) -> float:
    """What the rates are multiplied by at a step (from 0): linear warm-up, constant, cosine down to the floor."""
    warm = min((step + 1) / settings.warm_up, 1.0) if settings.warm_up > 0 else 1.0
    if progress <= settings.constant_until or settings.constant_until >= 1:
        return warm
    turn = min((progress - settings.constant_until) / (1 - settings.constant_until), 1.0)
    return warm * (settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * turn)))


def ema_decay(step: int, settings: EmaSettings) -> float:
    """How much of the average is kept at a step (from 0).

    The average looks back over a share of the training so far, hence needs no knowledge of how long it will be; in its
    first steps it is the plain mean of all weights seen.
    """
    window = max(step * settings.share, 1 / (1 - settings.fastest))
    window = min(window, 1 / (1 - settings.slowest))
    return min(1 - 1 / window, step / (step + 1))


class Ema:
    """Exponential moving average of a model's floating-point state; other buffers are copied."""

    def __init__(self, model: nn.Module, settings: EmaSettings) -> None:
        self.settings = settings
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        weight = 1 - ema_decay(step, self.settings)
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                averaged.append(self.state[name])
                current.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averaged, current, weight)
