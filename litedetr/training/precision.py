"""How a batch is fed to the detector: normalisation, and half precision where it helps."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from litedetr.config import DetectorConfig

PRECISIONS = ("auto", "f32", "bf16")


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """A context in which matrix products run in bfloat16, or none. "auto": where the hardware multiplies bfloat16."""
    if precision not in PRECISIONS:
        raise ValueError(f"expected a precision among {PRECISIONS}, got {precision!r}; choose one")
    if precision == "f32" or (precision == "auto" and not multiplies_bf16(device)):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 products (AMX or AVX-512 BF16 on a CPU)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def normalise(images: Tensor, mask: Tensor, config: DetectorConfig) -> Tensor:
    """(B, H, W, 3) uint8 RGB, (B, H, W) True = padding -> (B, 3, H, W) float32, zero at padding, channels last."""
    mean = torch.tensor(config.pixel_mean, device=images.device)
    std = torch.tensor(config.pixel_std, device=images.device)
    pixels = (images.float() - mean) / std
    return pixels.masked_fill_(mask[..., None], 0).permute(0, 3, 1, 2)
