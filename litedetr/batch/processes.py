"""Several processes at one task, as ``torchrun`` starts them; alone, every method gives back what it got."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Anything = TypeVar("Anything")
PATIENCE = timedelta(hours=12)
"""How long a process waits for the others, e.g. while the first one measures."""


@dataclass(frozen=True)
class Processes:
    """This process is number ``rank`` of ``count``; the first one writes files and speaks."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, items: int) -> tuple[int, int]:
        """The part [start, stop) of ``items`` things in a row that is this process'."""
        return self.rank * items // self.count, (self.rank + 1) * items // self.count

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, element by element, in each of them."""
        if self.count == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total

    def total(self, number: int) -> int:
        """The sum of a whole number over all processes."""
        return number if self.count == 1 else int(self.sum(torch.tensor(number, dtype=torch.int64)))

    def largest(self, number: float) -> float:
        """The largest of a number over all processes."""
        if self.count == 1:
            return number
        value = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return float(value)

    def from_first(self, make: Callable[[], Anything]) -> Anything:
        """What the first process makes; the others wait for it. Its errors are everybody's."""
        if self.count == 1:
            return make()
        answer: list = [None, None]
        if self.first:
            try:
                answer[0] = make()
            except Exception as error:
                answer[1] = error
        dist.broadcast_object_list(answer)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def gather(self, item: Anything) -> list[Anything]:
        """Every process' item, in their order."""
        if self.count == 1:
            return [item]
        items: list = [None] * self.count
        dist.all_gather_object(items, item)
        return items

    @torch.no_grad()
    def same(self, values: Sequence[Tensor]) -> None:
        """Overwrite the values with the first process'."""
        for value in values if self.count > 1 else ():
            copy = value.clone(memory_format=torch.contiguous_format)
            dist.broadcast(copy, src=0)
            value.copy_(copy)

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter], good: bool) -> bool:
        """Add up the gradients of all processes, if ``good`` in each of them; says whether it was.

        A parameter without a gradient here, but not everywhere, counts as 0; without one anywhere it stays without.
        """
        if self.count == 1:
            return good
        if not good:
            for parameter in parameters:
                parameter.grad = None
        flags = [1.0 if good else 0.0, *(0.0 if parameter.grad is None else 1.0 for parameter in parameters)]
        parts = [
            (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).reshape(-1).float()
            for parameter in parameters
        ]
        summed = self.sum(torch.cat([torch.tensor(flags, device=parts[0].device), *parts]))
        present, place = summed[1 : len(flags)].tolist(), len(flags)
        for parameter, owners in zip(parameters, present, strict=True):
            if owners > 0:
                parameter.grad = summed[place : place + parameter.numel()].view_as(parameter).to(parameter.dtype)
            place += parameter.numel()
        return round(float(summed[0])) == self.count


ALONE = Processes()


def join(device: str = "auto") -> Processes:
    """The processes that ``torchrun`` started, joined over NCCL (GPU) and Gloo; `ALONE` without it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return ALONE
    if not dist.is_initialized():
        gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        if gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=PATIENCE)
    return Processes(dist.get_rank(), count)


def leave() -> None:
    """Part from the other processes, at the end of the work."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def choose_device(name: str = "auto") -> torch.device:
    """The device called ``name``; "auto": a GPU if there is one."""
    return torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
