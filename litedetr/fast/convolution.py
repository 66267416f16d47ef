"""Convolutions for inference: channels last, with bias, activation and skip fused, weights packed for oneDNN.

oneDNN's fused operators are no public API of PyTorch. They are used where they exist and give the right result, which is
checked once per dtype; else `F.conv2d` does the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litedetr.backbones.nanodet import SLOPE

Activation = Literal["none", "relu", "relu6", "leaky"]
"""Leaky: LeakyReLU 0.1, as NanoDet has it."""

ONEDNN_NAMES: dict[Activation, tuple[str, list[float]]] = {
    "none": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
    "leaky": ("leaky_relu", [SLOPE]),
}
SMALL = 65536
"""Weights with fewer elements than this are packed for no size in particular: bringing them into another order costs nothing."""


@lru_cache(maxsize=8)
def fusing_works(dtype: torch.dtype) -> bool:
    """Whether oneDNN's fused convolutions are there and right on this machine."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1, 32, 9, 8, generator=random).to(dtype).contiguous(memory_format=torch.channels_last)
    skip = torch.randn(1, 32, 5, 4, generator=random).to(dtype).contiguous(memory_format=torch.channels_last)
    exact = 1e-4 if dtype == torch.float32 else 0.3  # of values around 20, whose last bit in bfloat16 is worth 0.1
    try:
        with torch.inference_mode():
            for groups in (1, 32):
                weight = torch.randn(32, 32 // groups, 3, 3, generator=random).to(dtype)
                bias = torch.randn(32, generator=random).to(dtype)
                convolution = FusedConvolution(weight, bias, dtype, stride=2, padding=1, groups=groups, fused=True)
                expected = F.conv2d(x.float(), weight.float(), bias.float(), 2, 1, 1, groups)
                differences = [(convolution.add(x, skip.clone()) - (expected + skip))]
                references = {
                    "none": expected, "relu": expected.relu(), "relu6": F.relu6(expected), "leaky": F.leaky_relu(expected, SLOPE),
                }  # fmt: skip
                for activation, reference in references.items():
                    convolution.activation = activation
                    differences.append(convolution(x) - reference)
                if not all(bool((difference.float().abs() < exact).all()) for difference in differences):
                    return False
        return True
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False


class FusedConvolution(nn.Module):
    """Convolution, bias and activation: (B, C, H, W) -> (B, N, h, w), both channels last and of `dtype`.

    Args:
        weight: (N, C / groups, k, k), copied; bias: (N,), copied, or None for zeros.
        dtype: float32 or bfloat16.
        lead: how many of the kernel's first rows are zeros, see `SameConvolution`.
        fused: use oneDNN's fused operators; None: where they work.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        activation: Activation = "none",
        lead: int = 0,
        fused: bool | None = None,
    ):
        super().__init__()
        weight = weight.detach().to(dtype, memory_format=torch.channels_last, copy=True)
        self.weight = nn.Buffer(weight, persistent=False)
        self.bias = nn.Buffer(
            weight.new_zeros(len(weight)) if bias is None else bias.detach().to(dtype, copy=True), persistent=False
        )
        self.channels = len(weight)
        self.stride, self.padding, self.groups, self.activation, self.lead = stride, padding, groups, activation, lead
        self.fused = weight.device.type == "cpu" and fusing_works(dtype) if fused is None else fused
        self._packed: tuple[tuple[int, ...] | None, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            name, limits = ONEDNN_NAMES[self.activation]
            return torch.ops.mkldnn._convolution_pointwise(
                x, self._weight_for(x), self.bias, *self._geometry(), name, limits, None
            )
        return _activate(F.conv2d(x, self.weight, self.bias, *self._geometry()), self.activation)

    def add(self, x: Tensor, skip: Tensor) -> Tensor:
        """``activation(convolution(x) + skip)``, written over `skip`; the activation must be none or ReLU."""
        if self.fused:
            name = None if self.activation == "none" else ONEDNN_NAMES[self.activation][0]
            return torch.ops.mkldnn._convolution_pointwise_.binary(
                skip, x, self._weight_for(x), self.bias, *self._geometry(), "add", 1.0, name, [], None
            )
        return _activate(skip.add_(F.conv2d(x, self.weight, self.bias, *self._geometry())), self.activation)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Of the output, from the input's."""
        return tuple(
            (side + 2 * self.padding - kernel) // self.stride + 1
            for side, kernel in zip((height, width), self.weight.shape[2:], strict=True)
        )

    def source_rows(self, first: int, last: int, height: int) -> tuple[int, int]:
        """From which rows of an input of `height` rows the output's rows `first` … `last` - 1 come."""
        return source_rows(first, last, height, self.weight.shape[2], self.stride, self.padding, self.lead)

    def on_rows(self, x: Tensor, start: int, height: int) -> tuple[Tensor, int]:
        """The layer on the rows `x` of an input of `height` rows, the first of which is row `start`; the output's first row.
        It is right on rows of which `source_rows` are in `x`."""
        return self(x), start // self.stride

    def __getstate__(self) -> dict:
        """For copies, which pack their own weights: a packed one has no memory that Python could copy."""
        return self.__dict__ | {"_packed": None}

    def _geometry(self) -> tuple[list[int], list[int], list[int], int]:
        order = (self.padding, self.stride) if self.fused else (self.stride, self.padding)
        return [order[0]] * 2, [order[1]] * 2, [1, 1], self.groups

    def _weight_for(self, x: Tensor) -> Tensor:
        """The weight as oneDNN wants it for an input of this size; another size may want another order."""
        size = None if self.weight.numel() < SMALL else tuple(x.shape)
        packed = self._packed
        if packed is None or packed[0] != size:
            packed = size, torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self._geometry(), size)
            self._packed = packed
        return packed[1]


def source_rows(first: int, last: int, height: int, kernel: int, stride: int, padding: int, lead: int = 0) -> tuple[int, int]:
    """From which rows of an input of `height` rows the rows `first` … `last` - 1 of a layer's output come, beginning where the
    layer's steps fall on the same rows as on the whole input."""
    start = max(0, first * stride - padding + lead)
    return start - start % stride, min(height, (last - 1) * stride - padding + kernel)


def plain(convolution: nn.Conv2d, dtype: torch.dtype, activation: Activation = "none") -> FusedConvolution:
    """The same convolution, and an activation."""
    stride, padding = convolution.stride[0], convolution.padding[0]
    return FusedConvolution(convolution.weight, convolution.bias, dtype, stride, padding, activation=activation)


class SameConvolution(nn.Module):
    """3x3 convolution with ReLU6 and TensorFlow's SAME padding.

    With stride 2, that pads an even side at its end alone. oneDNN's operators pad both ends; a row or column of zeros before the
    kernel makes up for it without a padded copy of the input.

    Args:
        convolution: 3x3, of stride 1 or 2, with a bias; copied.
        dtype: float32 or bfloat16.
    """

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype):
        super().__init__()
        self.channels, self.stride, self.dtype = convolution.out_channels, convolution.stride[0], dtype
        self.kernels = nn.ModuleList(
            FusedConvolution(
                F.pad(convolution.weight, (right, 0, bottom, 0)), convolution.bias, dtype,
                self.stride, 1, convolution.groups, "relu6", lead=bottom,
            )
            for bottom in range(self.stride)
            for right in range(self.stride)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self._kernel(*x.shape[2:])(x)

    def size(self, height: int, width: int) -> tuple[int, int]:
        return self._kernel(height, width).size(height, width)

    def source_rows(self, first: int, last: int, height: int) -> tuple[int, int]:
        return self._kernel(height, 1).source_rows(first, last, height)

    def on_rows(self, x: Tensor, start: int, height: int) -> tuple[Tensor, int]:
        return self._kernel(height, x.shape[3])(x), start // self.stride

    def _kernel(self, height: int, width: int) -> FusedConvolution:
        """For an input of this size."""
        bottom, right = ((self.stride - 1) * (1 - side % 2) for side in (height, width))
        return self.kernels[bottom * self.stride + right]


def channels_last(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, C, H, W) in another dtype and order of memory."""
    return pixels.to(dtype).contiguous(memory_format=torch.channels_last)


def _activate(x: Tensor, activation: Activation) -> Tensor:
    """In place."""
    if activation == "relu":
        return x.relu_()
    if activation == "leaky":
        return F.leaky_relu_(x, SLOPE)
    return x.clamp_(0, 6) if activation == "relu6" else x
