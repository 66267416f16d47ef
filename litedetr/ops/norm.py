"""Skip and layer norm in one pass, for inference: by the attention kernels' library, and in PyTorch."""

import ctypes

import torch
from torch import Tensor
from torch.nn import functional as F

from litedetr.ops.kernel import Kernel

LANES, LARGEST = 16, 2048
"""The kernel takes a multiple of so many channels, up to so many."""


class _Call(ctypes.Structure):
    """`LitedetrNorm` of ext/attention.h, field by field."""

    _fields_ = [
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("channels", "bfloat16", "threads", "path")),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("x", "skip", "weight", "bias", "shift", "out", "shifted")),
    ]


def supports(x: Tensor, *others: Tensor) -> bool:
    """Whether the kernel takes these rows: contiguous, of one dtype, float32 or bfloat16, on the CPU."""
    return (
        x.dtype in (torch.float32, torch.bfloat16)
        and x.shape[1] % LANES == 0
        and x.shape[1] <= LARGEST
        and all(t.device.type == "cpu" and t.dtype == x.dtype and t.is_contiguous() for t in (x, *others))
    )


def by_kernel(
    kernel: Kernel,
    x: Tensor,
    skip: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    out: Tensor,
    shift: Tensor | None,
    shifted: Tensor | None,
) -> None:
    """See `litedetr.ops.add_norm`."""
    call = _Call(
        *(len(x), x.shape[1], x.dtype == torch.bfloat16, torch.get_num_threads(), kernel.instructions.path, eps),
        *(tensor.data_ptr() for tensor in (x, skip, weight, bias)),
        *(None if tensor is None else tensor.data_ptr() for tensor in (shift, out, shifted)),
    )
    status = kernel.library.litedetr_add_norm(ctypes.byref(call))
    if status != 0:
        raise RuntimeError(f"the native kernel of skip and norm failed with {status}, for rows of {x.shape[1]} channels")


def by_torch(
    x: Tensor,
    skip: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    out: Tensor,
    shift: Tensor | None,
    shifted: Tensor | None,
) -> None:
    """See `litedetr.ops.add_norm`."""
    normed = F.layer_norm(x.float() + skip.float(), weight.shape, weight, bias, eps)
    out.copy_(normed)
    if shift is not None:
        shifted.copy_(normed.add_(shift))
