"""The CPU kernel as PyTorch operators, registered by schema, with their derivatives and shapes.

Nothing here happens on import but the registration. On first use the library is built (`litedetr.ops.library`), loaded,
and compared with the reference once; a library that fails either is never used, and `reason_unavailable()` says why.
"""

import contextlib
import ctypes
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
from litedetr.ops.library import BuildError, build

DTYPES = (torch.float32, torch.bfloat16)
"""What the kernel reads and writes; it computes in float32."""

INSTRUCTIONS = ("auto", "portable", "avx2", "avx512")
"""The kernel's paths; the index is the number it knows them by."""

LARGEST_OFFSET = 2**31 - 1
"""The kernel counts the numbers of one head's map in 32 bits."""


_PLAIN, _SHARED_KEY, _SEPARATE_KEY = range(3)  # LitedetrMode


class _Call(ctypes.Structure):
    """`LitedetrAttention` of ext/attention.h, field by field."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("mode", "batch", "queries", "heads", "channels", "levels", "points")),
        *((name, ctypes.c_int32) for name in ("bfloat16", "threads", "path")),
        *((name, ctypes.c_void_p) for name in ("sizes", "query", "key", "value", "locations", "weights")),
        *((name, ctypes.c_void_p) for name in ("out", "weights_out", "grad_out", "grad_weights_out")),
        *((name, ctypes.c_void_p) for name in ("grad_query", "grad_key", "grad_value")),
        *((name, ctypes.c_void_p) for name in ("grad_locations", "grad_weights")),
    ]


class _State:
    """The library of the path in use, or why there is none; filled in once, under the lock."""

    lock = threading.Lock()
    prepared = False
    in_background = False  # being prepared while the reference runs
    library: ctypes.CDLL | None = None
    file: Path | None = None
    reason: str | None = None
    path = 0
    loaded: ClassVar[dict[int, tuple[ctypes.CDLL, Path]]] = {}  # by path, those used so far


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
    return _State.file if reason_unavailable() is None else None


def instructions() -> str:
    """The instruction set in use: "portable", "avx2" or "avx512"."""
    library()
    return INSTRUCTIONS[_State.path]


def path() -> int:
    """The path in use, as a place in `INSTRUCTIONS`; 0 before the first use."""
    return _State.path


def best_path() -> int:
    """The best of the kernel's paths on this processor, as a place in `INSTRUCTIONS`."""
    return {"AVX512": 3, "AVX2": 2}.get(torch.backends.cpu.get_cpu_capability(), 1)


@contextlib.contextmanager
def use_instructions(name: str) -> Iterator[None]:
    """Runs the kernel with one instruction set, for tests; raises `RuntimeError` where this machine has not got it."""
    if name not in INSTRUCTIONS:
        raise ValueError(f"expected one of {', '.join(INSTRUCTIONS)}; got {name!r}")
    library()
    best = best_path()
    path = INSTRUCTIONS.index(name) or best
    if path > best:
        raise RuntimeError(f"this machine has no {name}; the best it has is {INSTRUCTIONS[best]}")
    before = _State.path, _State.library, _State.file
    try:
        _load(path)
        yield
    finally:
        _State.path, _State.library, _State.file = before


def library() -> ctypes.CDLL:
    """The library in use; raises `RuntimeError` where there is none."""
    reason = reason_unavailable()
    if reason is not None:
        raise RuntimeError(f"the native attention kernel is not available: {reason}")
    return _State.library


def _prepare() -> None:
    try:
        wanted, best = os.environ.get("LITEDETR_INSTRUCTIONS", "auto"), best_path()
        if wanted not in INSTRUCTIONS or INSTRUCTIONS.index(wanted) > best:
            names = ", ".join(INSTRUCTIONS[: best + 1])
            raise BuildError(f"LITEDETR_INSTRUCTIONS: expected one of {names} on this machine, got {wanted!r}")
        _load(INSTRUCTIONS.index(wanted) or best)
    except Exception as error:  # whatever goes wrong here, the reference still works
        _State.reason = str(error) or type(error).__name__
    _State.prepared = True


def _load(path: int) -> None:
    """Makes a path the one in use; builds and checks it the first time."""
    if path not in _State.loaded:
        file = build(path)
        library = ctypes.CDLL(str(file))
        if library.litedetr_attention_struct_size() != ctypes.sizeof(_Call):
            raise BuildError(f"{file} does not fit this version of litedetr; delete it")
        _State.path = path
        passed = file.with_suffix(".checked")
        if not passed.is_file():
            _check_against_reference(library)
            passed.touch()
        _State.loaded[path] = library, file
    _State.path, (_State.library, _State.file) = path, _State.loaded[path]


def _check_against_reference(library: ctypes.CDLL) -> None:
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

    out = _run_plain(library, value, locations, weights, sizes)
    grads = _run_plain_backward(library, cotangent, value, locations, weights, sizes)
    compare([out, *grads], [value, locations, weights], lambda v, p, w: reference.deformable_attention(v, shapes, p, w))

    out, _ = _run_key_aware(library, query, key, value, locations, sizes, False)
    grads = _run_key_aware_backward(library, cotangent, None, query, key, value, locations, sizes)
    kda = reference.key_aware_deformable_attention
    compare([out, *grads], [query, key, value, locations], lambda q, k, v, p: kda(q, k, v, shapes, p)[0])

    out, _ = _run_key_aware(library, query, None, value, locations, sizes, False)
    by_query, _, by_value, by_location = _run_key_aware_backward(library, cotangent, None, query, None, value, locations, sizes)
    compare([out, by_query, by_value, by_location], [query, value, locations], lambda q, v, p: kda(q, v, v, shapes, p)[0])

    rows, skip, weight, bias = query[0, :, 0], cotangent[0, :, :D].contiguous(), key[0, 0, 0], value[0, 0, 0]
    results = [torch.empty(2, Q, D) for _ in range(2)]
    for run, (out, shifted) in zip((partial(norm.by_kernel, library, _State.path), norm.by_torch), results, strict=True):
        run(rows.contiguous(), skip, weight, bias, 1e-5, out, skip, shifted)
    agree(*results)


# ------------------------------------------------------------------------------------------- calling it


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _call(run, value: Tensor, locations: Tensor, sizes: Sequence[int], **tensors: Tensor | None) -> None:
    """Fills in the structure and runs one function of the library; every tensor is contiguous."""
    B, Q, M, L, P, _ = locations.shape
    table = (ctypes.c_int32 * len(sizes))(*sizes)
    # Told by which tensors there are, not by their addresses: an empty tensor has none.
    mode = _PLAIN if "weights" in tensors else _SHARED_KEY if tensors["key"] is None else _SEPARATE_KEY
    call = _Call(
        mode=mode, batch=B, queries=Q, heads=M, channels=value.shape[-1], levels=L, points=P,
        bfloat16=value.dtype == torch.bfloat16, threads=torch.get_num_threads(), path=_State.path,
        sizes=ctypes.addressof(table), value=value.data_ptr(), locations=locations.data_ptr(),
        **{name: _address(tensor) for name, tensor in tensors.items()},
    )  # fmt: skip
    status = run(ctypes.byref(call))
    if status != 0:
        what = {1: "ran out of memory", 2: "was asked for instructions that this machine does not have"}
        raise RuntimeError(f"the native attention kernel {what.get(status, 'failed')}")


def _run_plain(library, value: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[int]) -> Tensor:
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    out = _new_output(value, locations)
    _call(library.litedetr_attention_forward, value, locations, sizes, weights=weights, out=out)
    return out


def _run_plain_backward(library, grad_out, value, locations, weights, sizes) -> tuple[Tensor, Tensor, Tensor]:
    value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
    grads = _like(value), _like(locations), _like(weights)
    _call(
        library.litedetr_attention_backward, value, locations, sizes, weights=weights, grad_out=grad_out.contiguous(),
        grad_value=grads[0], grad_locations=grads[1], grad_weights=grads[2],
    )  # fmt: skip
    return grads


def _run_key_aware(library, query, key, value, locations, sizes, return_weights: bool) -> tuple[Tensor, Tensor]:
    query, value, locations = query.contiguous(), value.contiguous(), locations.contiguous()
    key = None if key is None else key.contiguous()
    out, weights = _new_output(value, locations), _new_weights(locations, return_weights)
    _call(
        library.litedetr_attention_forward, value, locations, sizes, query=query, key=key, out=out,
        weights_out=weights if return_weights else None,
    )  # fmt: skip
    return out, weights


def _run_key_aware_backward(
    library, grad_out, grad_weights, query, key, value, locations, sizes
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    query, value, locations = query.contiguous(), value.contiguous(), locations.contiguous()
    key = None if key is None else key.contiguous()
    grad_weights = None if grad_weights is None else grad_weights.contiguous()
    grads = _like(query), _key_gradient(key, value), _like(value), _like(locations)
    _call(
        library.litedetr_attention_backward, value, locations, sizes, query=query, key=key,
        grad_out=grad_out.contiguous(), grad_weights_out=grad_weights, grad_query=grads[0],
        grad_key=None if key is None else grads[1], grad_value=grads[2], grad_locations=grads[3],
    )  # fmt: skip
    return grads


def _new_output(value: Tensor, locations: Tensor) -> Tensor:
    B, Q, M = locations.shape[:3]
    return value.new_empty(B, Q, M * value.shape[-1])


def _new_weights(locations: Tensor, wanted: bool) -> Tensor:
    return locations.new_empty(locations.shape[:-1] if wanted else 0)


def _like(tensor: Tensor) -> Tensor:
    return tensor.new_empty(tensor.shape)


def _key_gradient(key: Tensor | None, value: Tensor) -> Tensor:
    return value.new_empty(0) if key is None else _like(key)


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

_OPERATORS.impl("deformable_attention", lambda *a: _run_plain(library(), *a), "CPU")
_OPERATORS.impl("deformable_attention_backward", lambda *a: _run_plain_backward(library(), *a), "CPU")
_OPERATORS.impl("key_aware_attention", lambda *a: _run_key_aware(library(), *a), "CPU")
_OPERATORS.impl("key_aware_attention_backward", lambda *a: _run_key_aware_backward(library(), *a), "CPU")


@torch.library.register_fake("litedetr::deformable_attention", lib=_OPERATORS)
def _(value, locations, weights, sizes):
    return _new_output(value, locations)


@torch.library.register_fake("litedetr::deformable_attention_backward", lib=_OPERATORS)
def _(grad_out, value, locations, weights, sizes):
    return _like(value), _like(locations), _like(weights)


@torch.library.register_fake("litedetr::key_aware_attention", lib=_OPERATORS)
def _(query, key, value, locations, sizes, return_weights):
    return _new_output(value, locations), _new_weights(locations, return_weights)


@torch.library.register_fake("litedetr::key_aware_attention_backward", lib=_OPERATORS)
def _(grad_out, grad_weights, query, key, value, locations, sizes):
    return _like(query), _key_gradient(key, value), _like(value), _like(locations)


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
