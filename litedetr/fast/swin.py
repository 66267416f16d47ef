"""Swin for inference: a block goes through a few windows at a time, from their tokens' places to their new values, so that what
lies between its layers stays in the cache."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litedetr.backbones.swin import PatchMerging, SwinBlock, SwinTransformer, shift_mask
from litedetr.fast.convolution import channels_last, plain
from litedetr.fast.dense import ROWS, Dense, frozen_norm


class FastSwin(nn.Module):
    """`SwinTransformer` for inference. Between its layers, tokens are rows of a table (B * H * W + 1, C), the last one blank."""

    def __init__(self, swin: SwinTransformer, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.channels = dtype, swin.channels
        self.patch, self.embedding = swin.patch_embed.patch, plain(swin.patch_embed.proj, dtype)
        self.norm = frozen_norm(swin.patch_embed.norm, dtype)
        self.stages = nn.ModuleList(nn.ModuleList(FastSwinBlock(block, dtype) for block in stage.blocks) for stage in swin.layers)
        self.merges = nn.ModuleList(FastPatchMerging(stage.downsample, dtype) for stage in swin.layers[:-1])
        self.norms = nn.ModuleList(frozen_norm(getattr(swin, f"norm{stage}"), dtype) for stage in range(1, len(swin.layers)))

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps of stride 8, 16, 32, finest first, channels last."""
        H, W = pixels.shape[2:]
        patches = self.embedding(channels_last(F.pad(pixels, (0, -W % self.patch, 0, -H % self.patch)), self.dtype))
        B, C, H, W = patches.shape
        table = patches.new_zeros(B * H * W + 1, C)
        table[:-1] = self.norm(patches.permute(0, 2, 3, 1).reshape(-1, C))
        maps = []
        for index, blocks in enumerate(self.stages):
            if index:
                table, (H, W) = self.merges[index - 1](table, (B, H, W))
            for block in blocks:
                block(table, (B, H, W))
            if index:
                maps.append(self.norms[index - 1](table[:-1]).view(B, H, W, -1).permute(0, 3, 1, 2))
        return maps


class FastSwinBlock(nn.Module):
    """`SwinBlock` for inference."""

    def __init__(self, block: SwinBlock, dtype: torch.dtype):
        super().__init__()
        attention = block.attn
        self.window, self.shift, self.heads = block.window, block.shift, attention.heads
        self.norm1, self.norm2 = frozen_norm(block.norm1, dtype), frozen_norm(block.norm2, dtype)
        self.qkv, self.proj = Dense(attention.qkv, dtype), Dense(attention.proj, dtype)
        self.fc1, self.fc2 = DenseGELU(block.mlp.fc1, dtype), Dense(block.mlp.fc2, dtype)
        bias = attention.relative_position_bias_table.detach()[attention.relative_position_index]
        self.bias = nn.Buffer(bias.permute(2, 0, 1).to(dtype, copy=True).contiguous(), persistent=False)  # (M, N, N)

    def forward(self, table: Tensor, size: tuple[int, int, int]) -> None:
        """Give the tokens of B maps, rows of `table` (B * H * W + 1, C), their new values, in place."""
        N = self.window**2
        for rows, blank, mask in window_groups(*size, self.window, self.shift, table.device):
            bias = self.bias[None] if mask is None else self.bias + mask[:, None].to(self.bias.dtype)
            tokens = table.index_select(0, rows)
            normed = self.norm1(tokens).index_fill_(0, blank, 0)
            tokens = self.proj.add(self._attend(self.qkv(normed), N, bias), tokens)
            tokens = self.fc2.add(self.fc1(self.norm2(tokens)), tokens)
            table.index_copy_(0, rows, tokens)

    def _attend(self, qkv: Tensor, N: int, bias: Tensor) -> Tensor:
        """(w * N, 3 * C) of w windows, (1 or w, M, N, N) -> (w * N, C)."""
        rows = len(qkv)
        query, key, value = qkv.view(rows // N, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        bias = bias.expand(rows // N, -1, -1, -1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2).reshape(rows, -1)


class FastPatchMerging(nn.Module):
    """`PatchMerging` for inference."""

    def __init__(self, merging: PatchMerging, dtype: torch.dtype):
        super().__init__()
        self.norm, self.reduction = frozen_norm(merging.norm, dtype), Dense(merging.reduction, dtype)

    def forward(self, table: Tensor, size: tuple[int, int, int]) -> tuple[Tensor, tuple[int, int]]:
        """Rows (B * H * W + 1, C) -> rows (B * h * w + 1, 2 * C) and h, w."""
        table[-1] = 0  # what fills an odd side
        places, shape = neighbours(*size, table.device)
        merged = table.new_empty(len(places) + 1, 2 * table.shape[1])
        for out, four in zip(merged[:-1].split(ROWS), places.split(ROWS), strict=True):
            out.copy_(self.reduction(self.norm(table.index_select(0, four.flatten()).view(len(four), -1))))
        return merged, shape


class DenseGELU(Dense):
    """A linear layer with a GELU behind it."""

    def forward(self, x: Tensor) -> Tensor:
        if self.packed is not None:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "gelu", [], "none")
        return F.gelu(F.linear(x, self.weight, self.bias))


@lru_cache(maxsize=32)
def window_groups(
    batch: int, height: int, width: int, window: int, shift: int, device: torch.device
) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """All windows of N = window ** 2 tokens, a few at a time.

    Returns:
        Of every group of w windows: (w * N,) the tokens' rows in a table of batch * height * width rows and a blank one after
        them; which of the w * N are blank; (w, N, N) what is added to the logits, or None for nothing.
    """
    places = F.pad(_places(height, width, device), (0, -width % window, 0, -height % window), value=-1)
    rows, columns = places.shape
    places = places.roll((-shift, -shift), dims=(0, 1))
    places = places.view(rows // window, window, columns // window, window).transpose(1, 2).reshape(-1, window**2)
    masks = shift_mask(rows, columns, window, shift, device) if shift else places.new_zeros(len(places), 1, 1)
    masked = masks.flatten(1).any(1)
    if len(places) * batch <= 2 * (ROWS // window**2):
        masked[:] = shift > 0  # too few to be told apart
    blank = batch * height * width
    free = _in_batch(places[~masked], batch, height * width)
    others = _in_batch(places[masked], batch, height * width)
    groups = [(some, None) for some in _evenly(free, ROWS // window**2)]
    groups += zip(*(_evenly(t, ROWS // window**2) for t in (others, masks[masked].repeat(batch, 1, 1))), strict=True)
    return [(some.flatten(), (some.flatten() == blank).nonzero()[:, 0], mask) for some, mask in groups]


@lru_cache(maxsize=32)
def neighbours(batch: int, height: int, width: int, device: torch.device) -> tuple[Tensor, tuple[int, int]]:
    """(batch * h * w, 4) rows of a table like `window_groups`' that become one, and h, w."""
    places = F.pad(_places(height, width, device), (0, width % 2, 0, height % 2), value=-1)
    four = torch.stack([places[row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
    return _in_batch(four.flatten(0, 1), batch, height * width), tuple(four.shape[:2])


def _places(height: int, width: int, device: torch.device) -> Tensor:
    """(height, width) numbers of a map's tokens."""
    return torch.arange(height * width, device=device).view(height, width)


def _in_batch(places: Tensor, batch: int, tokens: int) -> Tensor:
    """(n, k) numbers of a map's tokens, -1 = none -> (batch * n, k) rows of all maps' table, the last of which is blank."""
    return torch.cat([torch.where(places < 0, batch * tokens, places + photo * tokens) for photo in range(batch)])


def _evenly(x: Tensor, most: int) -> tuple[Tensor, ...]:
    """As few parts of at most `most` rows as possible, all about as large; none of nothing."""
    return x.tensor_split(-(-len(x) // most)) if len(x) else ()
