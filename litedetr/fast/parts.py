"""The transformer's parts for inference: copies of the plain ones in which the layers are exchanged for faster ones, so that
there is one forward of each part, the plain one."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from litedetr.families.heads import ClassHead, DetectionHeads, best_rows
from litedetr.fast.dense import Dense, DenseMLP, frozen_norm
from litedetr.feedforward import MLP


class DenseClasses(Dense):
    """`ClassHead` for inference."""

    def __init__(self, head: ClassHead, dtype: torch.dtype):
        super().__init__(head, dtype)
        self.rows = head.rows

    def forward(self, x: Tensor) -> Tensor:
        return best_rows(super().forward(x), self.rows)


def fast_copy(part: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a module in `dtype` for inference, sharing nothing with it, whose linear layers, norms, feed-forward networks
    and self-attentions are fast ones."""
    return copy.deepcopy(part, _exchanged(part, dtype)).requires_grad_(False).eval()


def fast_heads(heads: DetectionHeads, dtype: torch.dtype) -> DetectionHeads:
    """A copy of the decoder's heads for inference, whose last layers compute in float32, because their outputs are the answer."""
    exchanged: dict[int, nn.Module] = {id(head): DenseClasses(head, torch.float32) for head in heads.classes}
    exchanged |= {id(head): DenseMLP(head, dtype, last=torch.float32) for head in heads.boxes}
    return copy.deepcopy(heads, exchanged)


def _exchanged(part: nn.Module, dtype: torch.dtype) -> dict[int, nn.Module]:
    """What a copy has in place of which module, by identity: what `copy.deepcopy` takes as its memo."""
    fast = _fast_layer(part, dtype)
    if fast is not None:
        return {id(part): fast}
    found = {}
    for child in part.children():
        found |= _exchanged(child, dtype)
    return found


def _fast_layer(layer: nn.Module, dtype: torch.dtype) -> nn.Module | None:
    if isinstance(layer, ClassHead):
        return DenseClasses(layer, dtype)
    if isinstance(layer, nn.Linear):
        return Dense(layer, dtype)
    if isinstance(layer, MLP):
        return DenseMLP(layer, dtype, last=torch.float32)
    if isinstance(layer, nn.LayerNorm):
        return frozen_norm(layer, dtype)
    if isinstance(layer, nn.Embedding):
        return copy.deepcopy(layer).to(dtype)
    return None
