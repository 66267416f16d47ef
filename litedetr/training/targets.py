"""The objects of a batch, in one flat list: what every loss compares the detector's output with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Targets:
    """All objects of a batch of B pictures, N of them, picture after picture.

    labels (N,) int64; boxes (N, 4) ``cxcywh``, relative to the picture without its padding; image (N,) int64, the
    picture each object lies in; counts: the number of objects of each picture.
    """

    labels: Tensor
    boxes: Tensor
    image: Tensor
    counts: tuple[int, ...]

    @classmethod
    def from_lists(cls, labels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Targets:
        """One labels tensor (n,) and one boxes tensor (n, 4) per picture."""
        counts = tuple(len(item) for item in labels)
        if counts != tuple(len(item) for item in boxes):
            raise ValueError(
                f"expected as many boxes as labels in every picture, got {counts} labels and "
                f"{tuple(len(item) for item in boxes)} boxes; pass one (n,) and one (n, 4) tensor per picture"
            )
        image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
        return cls(
            labels=torch.cat([item.reshape(-1) for item in labels]).long(),
            boxes=torch.cat([item.reshape(-1, 4) for item in boxes]),
            image=image.to(boxes[0].device),
            counts=counts,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Targets:
        return Targets(self.labels.to(device), self.boxes.to(device), self.image.to(device), self.counts)

    @classmethod
    def join(cls, parts: Sequence[Targets]) -> Targets:
        """Several batches' objects as one batch's."""
        starts = [sum(len(part.counts) for part in parts[:number]) for number in range(len(parts))]
        return cls(
            labels=torch.cat([part.labels for part in parts]),
            boxes=torch.cat([part.boxes for part in parts]),
            image=torch.cat([part.image + start for part, start in zip(parts, starts, strict=True)]),
            counts=tuple(count for part in parts for count in part.counts),
        )

    @property
    def slots(self) -> Tensor:
        """(N,) each object's number within its picture."""
        counts = torch.tensor(self.counts, dtype=torch.int64, device=self.image.device)
        starts = counts.cumsum(0) - counts
        return torch.arange(len(self), device=self.image.device) - starts[self.image]
