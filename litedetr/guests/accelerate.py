"""`accelerate`: deformable DETRs of other code bases on this project's kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from litedetr import ops
from litedetr.guests.calls import Attention, Call, Site, find
from litedetr.ops import cuda, native


class Accelerated:
    """A model whose attention runs on the kernels, until `undo`, or until the end of a ``with`` block."""

    def __init__(self, takes: list[Callable[[], None]]):
        self._takes = takes

    def undo(self) -> None:
        """Give the model its own attention back."""
        for take in self._takes:
            take()

    def __enter__(self) -> Accelerated:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()


def accelerate(model: nn.Module) -> Accelerated:
    """Run a model's deformable attention on this project's kernels, on the CPU or on an NVIDIA GPU, with gradients:

        litedetr.accelerate(model)      # until `undo` of what it returns
        with litedetr.accelerate(model):
            model(**inputs)

    Args:
        model: one of `transformers` with deformable attention, or of the published modules; see `litedetr.guests`. Weights,
            outputs and everything else of it stay; it may be compiled afterwards.

    Returns:
        A handle with `undo`, which is a context manager too. A model that was accelerated before stays so until the first
        handle's `undo`.

    Raises:
        UnknownModelError: the model has no deformable attention that is known, or was compiled already.
        RuntimeError: it would not be faster here, or not be equal; the message says why, and the model stays as it was.
    """
    sites = find(model)
    for site in sites:
        _check(site)
    return Accelerated([site.put(by_kernel, innermost=True) for site in sites if by_kernel not in site.layers])


def by_kernel(inner: Attention) -> Attention:
    """Attention by `litedetr.ops`, in place of another one."""

    def attention(call: Call) -> Tensor:
        locations, weights = call.by_level()
        value = _PlanesBackward.apply(call.value) if torch.is_grad_enabled() else call.value
        return ops.deformable_attention(value, call.spatial_shapes, locations, weights)

    return attention


class _PlanesBackward(torch.autograd.Function):
    """The same tensor, whose gradient lies in memory as grid_sample's does, channel by channel.

    The kernel's lies token by token, and where a model samples its feature maps without a projection (D-FINE, DEIMv2), that order
    reaches the backward pass of a frozen batch norm, which is wrong for it in PyTorch 2.13 on CPUs: for a gradient of one
    picture with the strides (C, 1, W * C, C) and a contiguous input.
    """

    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def _check(site: Site) -> None:
    """Refuse what would not be equal, or not faster."""
    kind, settings = type(site.module).__name__, vars(site.module)
    if "discrete" in (settings.get("decoder_method"), settings.get("method")):
        raise RuntimeError(
            f'expected attention that interpolates, and {kind} ({site.name}) has the method "discrete", which takes the nearest '
            "token: no kernel here does that, and it has no need of one"
        )
    weight = next(site.module.parameters())
    if weight.device.type not in ("cpu", "cuda"):
        raise RuntimeError(f"expected a model on the CPU or an NVIDIA GPU, got one on {weight.device}: no kernel runs there")
    reason = cuda.reason_unavailable(weight.device.index) if weight.device.type == "cuda" else native.reason_unavailable()
    if reason is not None:
        raise RuntimeError(f"the attention kernel is not available here, and the model would not be faster: {reason}")
    dtypes = native.DTYPES if weight.device.type == "cpu" else cuda.DTYPES
    if weight.dtype not in dtypes:
        takes = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise RuntimeError(
            f"expected {kind} ({site.name}) in {takes} on {weight.device.type}, got {str(weight.dtype).removeprefix('torch.')}: "
            "the kernel does not take that, and the model would not be faster"
        )
