"""What test_processes.py runs in each of two processes: sums of gradients, a training, a measurement."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from litedetr.batch.processes import ALONE, Processes, join
from litedetr.cli import main
from litedetr.training.augment import AugmentSettings
from litedetr.training.denoising import DenoisingSettings
from litedetr.training.loop import train
from litedetr.training.losses import LossSettings
from litedetr.training.recipes import Recipe, Stage
from tests.training.conftest import tiny_detector

RECIPE = Recipe(
    steps=3,
    stages=(Stage(1.0, 96, 3),),
    losses=LossSettings(dense=1.0),
    denoising=DenoisingSettings(number=4),
    augmentation=AugmentSettings(mosaic=0),
    precision="f32",
    device="cpu",
    threads=1,
    log_steps=1,
)


def train_a_little(data: Path, out: Path, processes: Processes = ALONE) -> list[dict]:
    """The gradients of every step, None for a parameter that has none."""
    torch.manual_seed(processes.rank)
    detector = tiny_detector()
    detector.unused = nn.Parameter(torch.ones(3))
    if not processes.first:
        nn.init.zeros_(detector.neck.level_embed)  # the first process' weights are everybody's
    steps: list[dict] = []

    def keep(_: int) -> None:
        steps.append({k: None if p.grad is None else p.grad.clone() for k, p in detector.named_parameters()})

    train(RECIPE, data, out, detector=detector, progress=False, on_step=keep, processes=processes)
    return steps


def sums(processes: Processes) -> dict:
    """Parameters with a gradient in both processes, in the second one alone, and in none; then one that failed."""
    both, second, none = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    both.grad = torch.tensor([1.0, 2.0])
    if not processes.first:
        second.grad = torch.tensor([3.0, 4.0])
    good = processes.sum_gradients([both, second, none], good=True)
    grads = [None if p.grad is None else p.grad.tolist() for p in (both, second, none)]
    return {"good": good, "grads": grads, "bad": processes.sum_gradients([both], good=processes.first)}


def eval_command(model: Path, coco: Path, out: Path) -> list[str]:
    return ["eval", str(model), "--coco", str(coco), "--batch", "1", "--out", str(out), "--device", "cpu", "--json"]


if __name__ == "__main__":
    data, model, coco, out = map(Path, sys.argv[1:])
    processes = join("cpu")
    everybodys = processes.gather(sums(processes))
    try:
        train(replace(RECIPE, stages=(Stage(1.0, 96, 1),)), data, out / "small", detector=tiny_detector(), processes=processes)
        refused = ""
    except ValueError as error:
        refused = str(error)
    steps = train_a_little(data, out / "run", processes)
    if processes.first:
        (out / "sums.json").write_text(json.dumps(everybodys))
        (out / "refused.txt").write_text(refused)
        torch.save(steps, out / "steps.pt")
    sys.exit(main(eval_command(model, coco, out / "eval")))
