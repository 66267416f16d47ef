"""Swin Transformer (Liu et al. 2021): attention in windows that shift by half their size from block to block."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litedetr.backbones.backbone import Backbone


class WindowAttention(nn.Module):
    """Self-attention among the tokens of one window, with a learned bias for every relative position (section 3.2).

    Args:
        width: C; heads: M; window: side of a window in tokens.
    """

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, W, N, C) tokens of W windows, (W, N, N) added to the logits -> (B, W, N, C)."""
        B, W, N, C = x.shape
        query, key, value = self.qkv(x).view(B, W, N, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)  # (B, W, M, N, C/M)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # (M, N, N)
        bias = bias[None] if mask is None else bias + mask[:, None]  # (1 or W, M, N, N)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None].expand(B, W, -1, -1, -1).to(query.dtype))
        return self.proj(out.transpose(2, 3).reshape(B, W, N, C))


class SwinMLP(nn.Module):
    """Linear, GELU, linear; four times as wide inside."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Window attention and an MLP, pre-norm. `shift`: by how many tokens the windows are moved."""

    def __init__(self, width: int, heads: int, window: int, shift: int):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = SwinMLP(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attend(self, x: Tensor) -> Tensor:
        """Attention in windows; zeros fill the last ones below and to the right."""
        _, H, W, _ = x.shape
        side, shift = self.window, self.shift
        padded = F.pad(x, (0, 0, 0, -W % side, 0, -H % side))
        size = padded.shape[1:3]
        mask = None
        if shift:
            padded = padded.roll((-shift, -shift), dims=(1, 2))
            mask = shift_mask(*size, side, shift, x.device)
        attended = _from_windows(self.attn(_to_windows(padded, side), mask), side, *size)
        if shift:
            attended = attended.roll((shift, shift), dims=(1, 2))
        return attended[:, :H, :W]


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the width; zeros fill an odd side."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2 * C)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        neighbours = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(neighbours, dim=-1)))


class SwinStage(nn.Module):
    """Blocks of one resolution, and the way to the next."""

    def __init__(self, width: int, depth: int, heads: int, window: int, merge: bool):
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(width, heads, window, window // 2 if index % 2 else 0) for index in range(depth))
        self.downsample = PatchMerging(width) if merge else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class PatchEmbedding(nn.Module):
    """Patches of 4 x 4 pixels to tokens; zeros fill the last ones."""

    def __init__(self, width: int, patch: int = 4):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(3, width, patch, stride=patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h, w, C)."""
        H, W = pixels.shape[2:]
        pixels = F.pad(pixels, (0, -W % self.patch, 0, -H % self.patch))
        return self.norm(self.proj(pixels).permute(0, 2, 3, 1))


class SwinTransformer(nn.Module):
    """Four stages, of which the last three are returned, each through a norm of its own. The defaults are Swin-T.

    Args:
        width: C of the first stage, doubled from stage to stage.
        depths: blocks per stage; heads: M per stage; window: side of a window in tokens.
    """

    def __init__(
        self,
        width: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
    ):
        super().__init__()
        last = len(depths) - 1
        self.patch_embed = PatchEmbedding(width)
        self.layers = nn.ModuleList(
            SwinStage(width * 2**stage, depth, M, window, stage < last)
            for stage, (depth, M) in enumerate(zip(depths, heads, strict=True))
        )
        self.channels = tuple(width * 2**stage for stage in range(1, len(depths)))
        for stage, channels in enumerate(self.channels, start=1):
            self.add_module(f"norm{stage}", nn.LayerNorm(channels))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps of stride 8, 16, 32, finest first."""
        x = self.patch_embed(pixels)
        maps = []
        for index, stage in enumerate(self.layers):
            x = stage(x)
            if index:
                maps.append(getattr(self, f"norm{index}")(x).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps

    def freeze_stem(self) -> None:
        """Take the patch embedding out of training."""
        self.patch_embed.requires_grad_(False)


def relative_position_index(window: int) -> Tensor:
    """(N, N) row of the bias table for every pair of the N = window ** 2 tokens of a window."""
    place = torch.arange(window)
    rows, columns = place.repeat_interleave(window), place.repeat(window)
    down = rows[:, None] - rows[None] + window - 1
    right = columns[:, None] - columns[None] + window - 1
    return down * (2 * window - 1) + right


@lru_cache(maxsize=32)
def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device) -> Tensor:
    """(W, N, N) -100 between tokens that the shift has brought into one window from opposite borders, else 0."""
    rows, columns = (_band(size, window, shift, device) for size in (height, width))
    region = rows[:, None] * 3 + columns[None]  # (height, width)
    region = _to_windows(region[None, :, :, None], window)[0, :, :, 0]  # (W, N)
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, -100.0)


def _band(size: int, window: int, shift: int, device: torch.device) -> Tensor:
    place = torch.arange(size, device=device)
    return (place >= size - window).long() + (place >= size - shift).long()


def _to_windows(x: Tensor, side: int) -> Tensor:
    """(B, H, W, C) -> (B, windows, side * side, C)."""
    B, H, W, C = x.shape
    x = x.view(B, H // side, side, W // side, side, C).transpose(2, 3)
    return x.reshape(B, -1, side * side, C)


def _from_windows(windows: Tensor, side: int, height: int, width: int) -> Tensor:
    """(B, windows, side * side, C) -> (B, height, width, C)."""
    B, _, _, C = windows.shape
    x = windows.view(B, height // side, width // side, side, side, C).transpose(2, 3)
    return x.reshape(B, height, width, C)


def _products(module: nn.Module, output: Tensor) -> int:
    """q.k and weights.v."""
    return 2 * module.window**2 * output.numel() if isinstance(module, WindowAttention) else 0


BACKBONE = Backbone("Swin-T", build=lambda config: SwinTransformer(config.backbone_width), width=96, products=_products)
