"""The CPU kernel as PyTorch operators, registered by schema, with their derivatives and shapes.

Nothing here happens on import but the registration. On first use the library is built (`litedetr.ops.library`), loaded,
and compared with the reference once; a library that fails either is never used, and `reason_unavailable()` says why.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from litedetr.ops import norm, reference
from litedetr.ops.constant import constant_when_compiled
from litedetr.ops.instructions import Instructions
from litedetr.ops.kernel import Kernel, new_key_gradient, new_like, new_output, new_weights
from litedetr.ops.library import BuildError

DTYPES = (torch.float32, torch.bfloat16)
"""What the kernel reads and writes; it computes in float32."""

LARGEST_OFFSET = 2**31 - 1
"""The kernel counts the numbers of one head's map in 32 bits."""


class _State:
    """The kernel in use, or why there is none; filled in once, under the lock."""

    lock = threading.Lock()
    prepared = False
    in_background = False  # being prepared while the reference runs
    kernel: Kernel | None = None
    reason: str | None = None
    loaded: ClassVar[dict[Instructions, Kernel]] = {}  # those used so far


# ------------------------------------------------------------------------------------------------ the library


@constant_when_compiled
def available() -> bool:
    """Whether the kernel can be used; builds, loads and checks it the first time."""
    return reason_unavailable() is None


def reason_unavailable() -> str | None:
    """Why the kernel cannot be used, in a sentence that says what to do, or None if it can."""
    if not _State.prepared:
        with _State.lock:
            if not _State.prepared:
                # A thread of its own, because a caller's autocast, inference mode, fake tensors or default device must
                # not reach the check, and all of these belong to the thread.
                worker = threading.Thread(target=_prepare, name="litedetr-kernel-check")
                worker.start()
                worker.join()
    return _State.reason


def prepare_in_background(patience: float = 2.0) -> None:
    """Begin to build, load and check the kernel without keeping anybody waiting: until it is there "auto" runs the reference.

    Args:
        patience: seconds to wait for it all the same, enough for a kernel that was built before.
    """

    def prepare() -> None:
        reason_unavailable()
        _State.in_background = False

    _State.in_background = True
    worker = threading.Thread(target=prepare, name="litedetr-kernel-build", daemon=True)
    worker.start()
    worker.join(patience)


def in_preparation() -> bool:
    """Whether `prepare_in_background` has begun and is not done."""
    return _State.in_background


def library_file() -> Path | None:
    """The library that is in use."""
    return kernel().file if reason_unavailable() is None else None


def instructions() -> Instructions:
    """The instruction set in use."""
    return kernel().instructions


@contextlib.contextmanager
def use_instructions(name: str) -> Iterator[None]:
    """Runs the kernel with one instruction set, by name or "auto", for tests; raises `ValueError` where this machine has not got
    it."""
    before, wanted = kernel(), Instructions.named(name)
    try:
        _State.kernel = _loaded(wanted)
        yield
    finally:
        _State.kernel = before


def kernel() -> Kernel:
    """The kernel in use; raises `RuntimeError` where there is none."""
    reason = reason_unavailable()
    if reason is not None:
        raise RuntimeError(f"the native attention kernel is not available: {reason}")
    return _State.kernel


def _prepare() -> None:
    try:
        try:
            wanted = Instructions.named(os.environ.get("LITEDETR_INSTRUCTIONS", "auto"))
        except ValueError as error:
            raise BuildError(f"LITEDETR_INSTRUCTIONS: {error}") from None
        _State.kernel = _loaded(wanted)
    except Exception as error:  # whatever goes wrong here, the reference still works
        _State.reason = str(error) or type(error).__name__
    _State.prepared = True


def _loaded(instructions: Instructions) -> Kernel:
    """The kernel for an instruction set; builds and checks it the first time."""
    if instructions not in _State.loaded:
        kernel = Kernel.load(instructions)
        passed = kernel.file.with_suffix(".checked")
        if not passed.is_file():
            _check_against_reference(kernel)
            passed.touch()
        _State.loaded[instructions] = kernel
    return _State.loaded[instructions]


def _check_against_reference(kernel: Kernel) -> None:
    """One small forward and backward of each kind; raises `BuildError` if the kernel is wrong on this machine."""
    random = torch.Generator().manual_seed(0)
    shapes = ((5, 7), (3, 4))
    B, Q, M, L, P, D = 1, 9, 2, len(shapes), 3, 16
    S = sum(height * width for height, width in shapes)
    query, cotangent = (torch.randn(B, Q, M, D, generator=random) for _ in range(2))
    key, value = (torch.randn(B, S, M, D, generator=random) for _ in range(2))
    locations = torch.rand(B, Q, M, L, P, 2, generator=random) * 1.4 - 0.2
    weights = torch.rand(B, Q, M, L, P, generator=random)
    sizes = [side for shape in shapes for side in shape]
    cotangent = cotangent.reshape(B, Q, M * D)

    def agree(got: Tensor, expected: Tensor) -> None:
        if not torch.allclose(got.double(), expected.double(), rtol=1e-3, atol=1e-3):
            raise BuildError(
                "the compiled kernel does not agree with the reference on this machine, so it is not used; "
                "please report this with the output of `g++ --version` and `lscpu`"
            )

    def compare(got: Sequence[Tensor], inputs: Sequence[Tensor], function) -> None:
        doubles = [tensor.double().requires_grad_() for tensor in inputs]
        out = function(*doubles)
        for a, b in zip(got, [out, *torch.autograd.grad(out, doubles, cotangent.double())], strict=True):
            agree(a, b)

    out = kernel.plain(value, locations, weights, sizes)
    grads = kernel.plain_backward(cotangent, value, locations, weights, sizes)
    compare([out, *grads], [value, locations, weights], lambda v, p, w: reference.deformable_attention(v, shapes, p, w))

    out, _ = kernel.key_aware(query, key, value, locations, sizes, False)
    grads = kernel.key_aware_backward(cotangent, None, query, key, value, locations, sizes)
    kda = reference.key_aware_deformable_attention
    compare([out, *grads], [query, key, value, locations], lambda q, k, v, p: kda(q, k, v, shapes, p)[0])

    out, _ = kernel.key_aware(query, None, value, locations, sizes, False)
    by_query, _, by_value, by_location = kernel.key_aware_backward(cotangent, None, query, None, value, locations, sizes)
    compare([out, by_query, by_value, by_location], [query, value, locations], lambda q, v, p: kda(q, v, v, shapes, p)[0])

    rows, skip, weight, bias = query[0, :, 0], cotangent[0, :, :D].contiguous(), key[0, 0, 0], value[0, 0, 0]
    results = [torch.empty(2, Q, D) for _ in range(2)]
    for run, (out, shifted) in zip((partial(norm.by_kernel, kernel), norm.by_torch), results, strict=True):
        run(rows.contiguous(), skip, weight, bias, 1e-5, out, skip, shifted)
    agree(*results)


# ---------------------------------------------------------------------------------------- the operators

_OPERATORS = torch.library.Library("litedetr", "FRAGMENT")
_OPERATORS.define("deformable_attention(Tensor value, Tensor locations, Tensor weights, int[] sizes) -> Tensor")
_OPERATORS.define(
    "deformable_attention_backward(Tensor grad_out, Tensor value, Tensor locations, Tensor weights, int[] sizes)"
    " -> (Tensor, Tensor, Tensor)"
)
_OPERATORS.define(
    "key_aware_attention(Tensor query, Tensor? key, Tensor value, Tensor locations, int[] sizes, bool return_weights)"
    " -> (Tensor, Tensor)"
)
_OPERATORS.define(
    "key_aware_attention_backward(Tensor grad_out, Tensor? grad_weights, Tensor query, Tensor? key, Tensor value,"
    " Tensor locations, int[] sizes) -> (Tensor, Tensor, Tensor, Tensor)"
)

_OPERATORS.impl("deformable_attention", lambda *a: kernel().plain(*a), "CPU")
_OPERATORS.impl("deformable_attention_backward", lambda *a: kernel().plain_backward(*a), "CPU")
_OPERATORS.impl("key_aware_attention", lambda *a: kernel().key_aware(*a), "CPU")
_OPERATORS.impl("key_aware_attention_backward", lambda *a: kernel().key_aware_backward(*a), "CPU")


@torch.library.register_fake("litedetr::deformable_attention", lib=_OPERATORS)
def _(value, locations, weights, sizes):
    return new_output(value, locations)


@torch.library.register_fake("litedetr::deformable_attention_backward", lib=_OPERATORS)
def _(grad_out, value, locations, weights, sizes):
    return new_like(value), new_like(locations), new_like(weights)


@torch.library.register_fake("litedetr::key_aware_attention", lib=_OPERATORS)
def _(query, key, value, locations, sizes, return_weights):
    return new_output(value, locations), new_weights(locations, return_weights)


@torch.library.register_fake("litedetr::key_aware_attention_backward", lib=_OPERATORS)
def _(grad_out, grad_weights, query, key, value, locations, sizes):
    return new_like(query), new_key_gradient(key, value), new_like(value), new_like(locations)


def _save_plain(ctx, inputs, output) -> None:
    *tensors, ctx.sizes = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_plain(ctx, grad_out):
    grads = torch.ops.litedetr.deformable_attention_backward(grad_out, *ctx.saved_tensors, ctx.sizes)
    return *grads, None


def _save_key_aware(ctx, inputs, output) -> None:
    *tensors, ctx.sizes, ctx.return_weights = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_key_aware(ctx, grad_out, grad_weights):
    by_query, by_key, by_value, by_locations = torch.ops.litedetr.key_aware_attention_backward(
        grad_out, grad_weights if ctx.return_weights else None, *ctx.saved_tensors, ctx.sizes
    )
    key_given = ctx.saved_tensors[1] is not None
    return by_query, by_key if key_given else None, by_value, by_locations, None, None


torch.library.register_autograd("litedetr::deformable_attention", _differentiate_plain, setup_context=_save_plain, lib=_OPERATORS)
torch.library.register_autograd(
    "litedetr::key_aware_attention", _differentiate_key_aware, setup_context=_save_key_aware, lib=_OPERATORS
)


# ------------------------------------------------------------------------------- what the dispatcher calls


def supports(spatial_shapes: Sequence[tuple[int, int]], channels: int, *tensors: Tensor) -> bool:
    """Whether the kernel takes maps of this size, and tensors of these dtypes and devices."""
    bordered = sum(1 + (height + 3) * (width + 1) for height, width in spatial_shapes)  # as the kernel copies them
    small = bordered * (channels + 15) <= LARGEST_OFFSET
    return small and all(tensor.device.type == "cpu" and tensor.dtype in DTYPES for tensor in tensors)


def deformable_attention(value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """As `litedetr.ops.deformable_attention`, for float32 and bfloat16 on the CPU."""
    sizes = [side for shape in spatial_shapes for side in shape]
    return torch.ops.litedetr.deformable_attention(value, locations.float(), weights.float(), sizes)


def key_aware_deformable_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    return_weights: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `litedetr.ops.key_aware_deformable_attention`, for float32 and bfloat16 on the CPU; weights may be empty."""
    sizes = [side for shape in spatial_shapes for side in shape]
    shared, dtype = key is value, value.dtype
    common = torch.promote_types(torch.promote_types(query.dtype, key.dtype), dtype)
    query, value = query.to(common), value.to(common)
    key = None if shared else key.to(common)
    out, weights = torch.ops.litedetr.key_aware_attention(query, key, value, locations.float(), sizes, return_weights)
    return out.to(dtype), weights
