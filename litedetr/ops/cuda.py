"""The CUDA kernels as PyTorch operators: the schemas, shapes and derivatives of `litedetr.ops.native`, for tensors on a GPU.

Nothing here touches CUDA on import. On first use a variant of the kernels is compiled (`litedetr.ops.cuda_build`), loaded
into the GPU at hand, and compared with the reference once; one that fails is never used, and `reason_unavailable()` says why.
A process forked before that starts afresh, whatever its parent found. The kernels run on PyTorch's current stream, wait for
nothing, and take their memory from PyTorch: CUDA graphs can record them once they have been loaded.

The backward pass adds up with atomics, so its last bits differ from run to run; `torch.use_deterministic_algorithms(True)`
refuses it, as it does PyTorch's own grid_sample.
"""

import ctypes
import functools
import os
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from litedetr.ops import cuda_launch, reference
from litedetr.ops.cuda_build import LARGEST_CHANNELS, KernelVariant
from litedetr.ops.cuda_launch import Driver, Gpu
from litedetr.ops.library import BuildError
from litedetr.ops.native import deformable_attention, key_aware_deformable_attention

__all__ = ["DTYPES", "deformable_attention", "gpu", "key_aware_deformable_attention", "reason_unavailable", "supports"]

DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
"""What the kernels read and write; they compute in float32."""

_LARGEST = 2**31 - 1  # they count the bytes of one picture's map in 32 bits
_MOST_PICTURES_AND_HEADS = 2**16 - 1  # as many blocks there may be along the second and third side of a grid


class _State:
    """What this process has found and loaded; filled in under the lock."""

    lock: threading.Lock
    gpus: dict[torch.device, Gpu]
    reasons: dict[tuple[torch.device, KernelVariant], str | None]  # for each that was tried: None, or why it cannot be used


def _forget() -> None:
    _State.lock, _State.gpus, _State.reasons = threading.Lock(), {}, {}


_forget()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # a parent without a GPU may have children with one (ZeroGPU)


# ------------------------------------------------------------------------------------------ what there is


def supports(shapes: Sequence[tuple[int, int]], value: Tensor, locations: Tensor, *others: Tensor) -> bool:
    """Whether the kernels take maps of this size, and tensors of these dtypes and devices."""
    B, _, M, L, _, _ = locations.shape
    tensors = (value, locations, *others)
    return (
        all(tensor.device.type == "cuda" and tensor.device == value.device and tensor.dtype in DTYPES for tensor in tensors)
        and torch.version.hip is None
        and value.shape[-1] <= LARGEST_CHANNELS
        and L <= cuda_launch.LARGEST_LEVELS
        and value.shape[1:].numel() * 4 <= _LARGEST
        and max(B, M) <= _MOST_PICTURES_AND_HEADS
    )


def reason_unavailable(index: int | None = None, mode: str = "shared", channels: int = 32, *dtypes: torch.dtype) -> str | None:
    """Why kernels cannot be used, in a sentence that says what to do, or None if they can; prepares them the first time.

    Args:
        index: of the GPU; the current one if None.
        mode: "plain", "shared" or "separate", see `litedetr.ops.cuda_build.MODES`.
        channels: of a head.
        dtypes: of the value, and in key-aware attention of query and key; float32 if there are none.
    """
    if index is None:
        if not torch.cuda.is_available():
            return "PyTorch sees no CUDA device here"
        index = torch.cuda.current_device()
    dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else torch.float32
    return _reason(torch.device("cuda", index), mode, dtype, channels)


def _reason(device: torch.device, mode: str, dtype: torch.dtype, channels: int) -> str | None:
    wanted = device, KernelVariant.of(mode, DTYPES[dtype], channels)
    if wanted not in _State.reasons:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return "it is not loaded yet, and a CUDA graph is being captured; run the model once before that"
        with _State.lock:
            if wanted not in _State.reasons:
                # A thread of its own, because a caller's autocast, inference mode, fake tensors or default device must
                # not reach the check, and all of these belong to the thread.
                worker = threading.Thread(target=_prepare, args=(*wanted, dtype, channels), name="litedetr-kernel-check")
                worker.start()
                worker.join()
    return _State.reasons[wanted]


def gpu(device: torch.device) -> Gpu:
    """The GPU with what has been loaded into it; `reason_unavailable` must have been None for it before."""
    return _State.gpus[device]


def _prepare(device: torch.device, variant: KernelVariant, dtype: torch.dtype, channels: int) -> None:
    reason = None
    try:
        if torch.version.hip is not None:
            raise BuildError("the kernels are for NVIDIA GPUs; this PyTorch is built for AMD's")
        if device not in _State.gpus:
            _State.gpus[device] = _find(device)
        file = _State.gpus[device].load(variant)
        passed = file.with_suffix(".checked")
        if not passed.is_file():
            _check_against_reference(device, variant, dtype, channels)
            passed.touch()
    except Exception as error:  # whatever goes wrong here, the reference still works
        reason = str(error) or type(error).__name__
        if device in _State.gpus:
            _State.gpus[device].drop(variant)
    _State.reasons[device, variant] = reason


def _find(device: torch.device) -> Gpu:
    torch.cuda.init()
    name = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
    properties = torch.cuda.get_device_properties(device)
    return Gpu(Driver(ctypes.CDLL(name)), device, (properties.major, properties.minor), properties.multi_processor_count)


def _check_against_reference(device: torch.device, variant: KernelVariant, dtype: torch.dtype, channels: int) -> None:
    """One small forward and backward; raises `BuildError` if the kernels are wrong on this machine."""
    random = torch.Generator().manual_seed(0)
    shapes = ((5, 7), (3, 4), (1, 1))
    B, Q, M, L, P, D = 2, 9, 2, len(shapes), 3, channels
    S = sum(height * width for height, width in shapes)
    sizes = [side for shape in shapes for side in shape]
    rows = {"query": (B, Q, M, D), "key": (B, S, M, D), "value": (B, S, M, D), "grad_out": (B, Q, M * D)}
    query, key, value, grad_out = (torch.randn(shape, generator=random).to(dtype) for shape in rows.values())
    locations = torch.rand(B, Q, M, L, P, 2, generator=random) * 1.4 - 0.2
    weights = torch.rand(B, Q, M, L, P, generator=random)

    if variant.mode == "plain":
        inputs, names = [value, locations, weights], (0, 1, 2)
    elif variant.mode == "shared":
        inputs, names = [query, value, locations], (0, 2, 3)
    else:
        inputs, names = [query, key, value, locations], (0, 1, 2, 3)
    doubles = [tensor.double().requires_grad_() for tensor in inputs]
    if variant.mode == "plain":
        expected = reference.deformable_attention(doubles[0], shapes, *doubles[1:])
        moved = [tensor.to(device) for tensor in inputs]
        got = [_plain(*moved, sizes), *_plain_backward(grad_out.to(device), *moved, sizes)]
    else:
        q, v, p = doubles[0], doubles[-2], doubles[-1]
        expected, _ = reference.key_aware_deformable_attention(q, v if variant.mode == "shared" else doubles[1], v, shapes, p)
        moved = [tensor.to(device) for tensor in inputs]
        moved = moved if variant.mode == "separate" else [moved[0], None, *moved[1:]]
        grads = _key_aware_backward(grad_out.to(device), None, *moved, sizes)
        got = [_key_aware(*moved, sizes, False)[0], *(grads[i] for i in names)]
    wanted = [expected, *torch.autograd.grad(expected, doubles, grad_out.double())]
    tolerance = 2e-4 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    for a, b in zip(got, wanted, strict=True):
        if not (a.double().cpu() - b).abs().max() <= tolerance * max(1.0, b.abs().max().item()):
            raise BuildError(
                "the compiled kernel does not agree with the reference on this GPU, so it is not used; "
                "please report this with the output of `nvidia-smi` and `python -m torch.utils.collect_env`"
            )


# ------------------------------------------------------------------------------------------- running it


def _run(direction: str, mode: str, sizes: Sequence[int], value: Tensor, locations: Tensor, **tensors: Tensor | None) -> None:
    if value.shape[0] == 0 or locations.shape[1] == 0:
        return
    variant = KernelVariant.of(mode, DTYPES[value.dtype], value.shape[-1])
    gpu = _State.gpus.get(value.device)
    if gpu is None or not gpu.has(variant.kernel("forward")):
        reason = _reason(value.device, mode, value.dtype, value.shape[-1])
        if reason is not None:
            raise RuntimeError(f"the CUDA attention kernel is not available: {reason}")
        gpu = _State.gpus[value.device]
    shapes = list(zip(sizes[::2], sizes[1::2], strict=True))
    gpu.run(direction, variant, shapes, value=value, locations=locations, **tensors)


def _ready(tensor: Tensor) -> Tensor:
    """Contiguous, and at an address that 16 bytes can be read from at once."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _ready_or_none(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else _ready(tensor)


def _new_output(value: Tensor, locations: Tensor) -> Tensor:
    B, Q, M = locations.shape[:3]
    return value.new_empty(B, Q, M * value.shape[-1])


def _sum(tensor: Tensor) -> Tensor:
    """Where the gradient of a map adds up: in float32."""
    return torch.zeros(tensor.shape, dtype=torch.float32, device=tensor.device)


def _plain(value: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[int]) -> Tensor:
    value, locations, weights = _ready(value), _ready(locations), _ready(weights)
    out = _new_output(value, locations)
    _run("forward", "plain", sizes, value, locations, weights=weights, out=out)
    return out


def _plain_backward(
    grad_out: Tensor, value: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    _expect_no_determinism()
    value, locations, weights = _ready(value), _ready(locations), _ready(weights)
    by_value, by_locations, by_weights = _sum(value), torch.empty_like(locations), torch.empty_like(weights)
    _run(
        "backward", "plain", sizes, value, locations, weights=weights, grad_out=_ready(grad_out.to(value.dtype)),
        grad_value=by_value, grad_locations=by_locations, grad_weights=by_weights,
    )  # fmt: skip
    return by_value.to(value.dtype), by_locations, by_weights


def _key_aware(
    query: Tensor, key: Tensor | None, value: Tensor, locations: Tensor, sizes: Sequence[int], return_weights: bool
) -> tuple[Tensor, Tensor]:
    query, key, value, locations = _ready(query), _ready_or_none(key), _ready(value), _ready(locations)
    out = _new_output(value, locations)
    weights = locations.new_empty(locations.shape[:-1] if return_weights else 0)
    mode = "shared" if key is None else "separate"
    wanted = weights if return_weights else None
    _run("forward", mode, sizes, value, locations, query=query, key=key, out=out, weights_out=wanted)
    return out, weights


def _key_aware_backward(
    grad_out: Tensor,
    grad_weights: Tensor | None,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    locations: Tensor,
    sizes: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _expect_no_determinism()
    query, key, value, locations = _ready(query), _ready_or_none(key), _ready(value), _ready(locations)
    by_query, by_value, by_locations = torch.empty_like(query), _sum(value), torch.empty_like(locations)
    by_key = None if key is None else _sum(key)
    _run(
        "backward", "shared" if key is None else "separate", sizes, value, locations, query=query, key=key,
        grad_out=_ready(grad_out.to(value.dtype)), grad_weights_out=_ready_or_none(grad_weights),
        grad_query=by_query, grad_key=by_key, grad_value=by_value, grad_locations=by_locations,
    )  # fmt: skip
    by_key = value.new_empty(0) if by_key is None else by_key.to(value.dtype)
    return by_query, by_key, by_value.to(value.dtype), by_locations


def _expect_no_determinism() -> None:
    if torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled():
        raise RuntimeError(
            "the CUDA attention kernel has no deterministic backward pass: it adds up with atomics; "
            "train on the CPU, or leave torch.use_deterministic_algorithms off"
        )


_OPERATORS = torch.library.Library("litedetr", "IMPL", "CUDA")
_OPERATORS.impl("deformable_attention", _plain)
_OPERATORS.impl("deformable_attention_backward", _plain_backward)
_OPERATORS.impl("key_aware_attention", _key_aware)
_OPERATORS.impl("key_aware_attention_backward", _key_aware_backward)
