"""The transformer's parts for inference: copies of the plain ones in which the layers are exchanged for faster ones, so that
there is one forward of each part, the plain one."""

from __future__ import annotations

import copy

import torch
from torch import nn

from litedetr.fast.dense import Dense, DenseFeedForward, DenseMLP, DenseSelfAttention, frozen_norm
from litedetr.feedforward import MLP, FeedForward


def fast_copy(part: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a module in `dtype` for inference, sharing nothing with it, whose linear layers, norms, feed-forward networks
    and self-attentions are fast ones; heads' last layers, `class_head` and box MLPs, compute in float32."""
    return copy.deepcopy(part, _exchanged(part, dtype)).requires_grad_(False).eval()


def _exchanged(part: nn.Module, dtype: torch.dtype, name: str = "") -> dict[int, nn.Module]:
    """What a copy has in place of which module, by identity: what `copy.deepcopy` takes as its memo."""
    fast = _fast_layer(part, dtype, name)
    if fast is not None:
        return {id(part): fast}
    found = {}
    for child_name, child in part.named_children():
        found |= _exchanged(child, dtype, child_name)
    return found


def _fast_layer(layer: nn.Module, dtype: torch.dtype, name: str) -> nn.Module | None:
    if isinstance(layer, nn.Linear):
        return Dense(layer, dtype, keep=name == "output_proj")  # which a trace reads
    if isinstance(layer, FeedForward):
        return DenseFeedForward(layer, dtype)
    if isinstance(layer, MLP):
        return DenseMLP(layer, dtype, last=dtype if name == "reference_head" else torch.float32)
    if isinstance(layer, nn.MultiheadAttention):
        return DenseSelfAttention(layer, dtype)
    if isinstance(layer, nn.LayerNorm):
        return frozen_norm(layer, dtype)
    if isinstance(layer, nn.Embedding):
        return copy.deepcopy(layer).to(dtype)
    return None
