"""Deformable attention, plain and key-aware: one function each, several implementations behind it.

    from litedetr import ops

    out = ops.deformable_attention(value, spatial_shapes, locations, weights)
    out = ops.key_aware_deformable_attention(query, key, value, spatial_shapes, locations)

    with ops.use("reference"):
        ...

Shapes, with B pictures, S tokens of all levels, M heads of D channels, Q queries, L levels and P points per level:
value and key (B, S, M, D); query (B, Q, M, D); locations (B, Q, M, L, P, 2); weights (B, Q, M, L, P).
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from litedetr.ops import cuda, gather, native, norm, reference
from litedetr.ops.constant import constant_when_compiled

__all__ = ["BACKENDS", "add_norm", "deformable_attention", "in_preparation", "key_aware_deformable_attention", "use"]

BACKENDS = ("auto", "reference", "gather", "native", "cuda")

_backend = "auto"  # a plain global: torch.compile guards on it, and traces nothing finer
_warned: set[str] = set()  # of which kernels it has been said that they are missing


@contextlib.contextmanager
def use(backend: str) -> Iterator[None]:
    """Chooses the implementation for everything that runs during the `with`, in the whole process.

    "auto" takes the fastest that can run; "reference" is plain PyTorch; "gather" is that without `grid_sample`, for exported
    graphs; "native" is the CPU kernel; "cuda" the one for
    NVIDIA's GPUs.

    Raises:
        ValueError: no backend has this name.
        RuntimeError: the backend cannot be used here; the message says why and what to do.
    """
    global _backend
    if backend not in BACKENDS:
        raise ValueError(f"expected a backend out of {', '.join(BACKENDS)}; got {backend!r}")
    reason = {"native": native.reason_unavailable, "cuda": cuda.reason_unavailable}.get(backend, lambda: None)()
    if reason is not None:
        raise RuntimeError(
            f'the "{backend}" backend was asked for but is not available: {reason}; or use "auto", which then runs the reference'
        )
    before, _backend = _backend, backend
    try:
        yield
    finally:
        _backend = before


def in_preparation() -> bool:
    """Whether "auto" runs the reference for want of a kernel that is still being built (`native.prepare_in_background`)."""
    return _backend == "auto" and native.in_preparation()


def deformable_attention(value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Deformable attention: for each query and head, a weighted sum of bilinear samples of `value`.

    Args:
        value: (B, S, M, D), the tokens of all levels one after the other, finest level first, each row by row.
        spatial_shapes: (height, width) of each level, finest first; S is the sum of their products.
        locations: (B, Q, M, L, P, 2), x and y in 0..1 over each level; pixel centres are at (i + 0.5) / size. What lies
            outside is 0, corner by corner, as `grid_sample` does it with `padding_mode="zeros"`, `align_corners=False`.
        weights: (B, Q, M, L, P), used as they are.

    Returns:
        (B, Q, M*D) in the dtype of `value`; differentiable in every tensor.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    shapes = _checked_shapes(value, spatial_shapes, locations)
    _expect("weights", weights, locations.shape[:-1], "(B, Q, M, L, P) as in locations")
    chosen = _choose("plain", shapes, value, locations, weights)
    return chosen.deformable_attention(value, shapes, locations, weights)


def key_aware_deformable_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Key-aware deformable attention: the weights are a softmax over <query, sampled key> / sqrt(D).

    The softmax runs over levels and points jointly. A point outside the map has logit 0 and value 0, and keeps its
    share. Pass the same tensor as `key` and `value` where keys are values: it is then sampled once.

    Args:
        query: (B, Q, M, D).
        key, value: (B, S, M, D); see `deformable_attention`.
        spatial_shapes: (height, width) of each level, finest first.
        locations: (B, Q, M, L, P, 2), x and y in 0..1.
        return_weights: also return the softmax weights.

    Returns:
        (B, Q, M*D) in the dtype of `value`, or that and the weights (B, Q, M, L, P) in float32, or float64 if an input
        is.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    shapes = _checked_shapes(value, spatial_shapes, locations)
    _expect("key", key, value.shape, "(B, S, M, D), the shape of value")
    _expect("query", query, (*locations.shape[:3], value.shape[-1]), "(B, Q, M, D) as in locations and value")
    mode = "shared" if key is value else "separate"
    chosen = _choose(mode, shapes, value, locations, query, key)
    if chosen in (reference, gather):
        out, weights = chosen.key_aware_deformable_attention(query, key, value, shapes, locations)
    else:
        out, weights = chosen.key_aware_deformable_attention(query, key, value, shapes, locations, return_weights)
    return (out, weights) if return_weights else out


def add_norm(
    x: Tensor,
    skip: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    out: Tensor | None = None,
    shift: Tensor | None = None,
    shifted: Tensor | None = None,
) -> Tensor:
    """Layer norm of ``x + skip``, for inference: no gradients.

    Args:
        x, skip: (N, d) of one dtype.
        weight, bias: (d,) of the norm, float32; eps: of the norm.
        out: (N, d) of the same dtype, written over; may be `x` or `skip`. None: a new tensor.
        shift: (N, d); with it, ``out + shift`` is written to `shifted`, (N, d), which must be no other argument.

    Returns:
        `out`, computed in float32 and rounded once.
    """
    out = torch.empty_like(x) if out is None else out
    tensors = (x, skip, out) if shift is None else (x, skip, out, shift, shifted)
    if _backend in ("auto", "native") and not in_preparation() and norm.supports(*tensors) and _available("native"):
        norm.by_kernel(native.kernel(), x, skip, weight, bias, eps, out, shift, shifted)
    else:
        norm.by_torch(x, skip, weight, bias, eps, out, shift, shifted)
    return out


def _choose(mode: str, shapes: Sequence[tuple[int, int]], value: Tensor, locations: Tensor, *others: Tensor):
    """The module that does the work: one place for the choice between implementations."""
    if _backend in ("reference", "gather"):
        return reference if _backend == "reference" else gather
    tensors = (value, locations, *others)
    if value.device.type == "cuda":
        supported = _backend != "native" and cuda.supports(shapes, *tensors)
        dtypes = [tensor.dtype for tensor in (value, *(() if mode == "plain" else others))]
        if supported and _available("cuda", value.device.index, mode, value.shape[-1], *dtypes):
            return cuda
    else:
        supported = _backend != "cuda" and native.supports(shapes, value.shape[-1], *tensors)
        if supported and _backend == "auto" and native.in_preparation():
            return reference
        if supported and _available("native"):
            return native
    if _backend == "auto":
        return reference
    if supported:
        raise RuntimeError(f'the "{_backend}" backend cannot run here, as a warning said; use "auto"')
    takes = {"native": "float32 and bfloat16 on the CPU", "cuda": "float32, float16 and bfloat16 on a GPU"}[_backend]
    got = ", ".join(f"{tensor.dtype} on {tensor.device}" for tensor in tensors)
    raise ValueError(f'the "{_backend}" backend takes {takes}; got {got}; use "auto"')


@constant_when_compiled
def _available(kernels: str, *asked) -> bool:
    reason = native.reason_unavailable() if kernels == "native" else cuda.reason_unavailable(*asked)
    if reason is not None and kernels not in _warned:
        _warned.add(kernels)
        warnings.warn(
            f"the fast attention kernel is not available ({reason}); the reference runs instead: right, but many times slower",
            RuntimeWarning,
            stacklevel=4,
        )
    return reason is None


def _checked_shapes(value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor) -> tuple[tuple[int, int], ...]:
    sizes = spatial_shapes.tolist() if isinstance(spatial_shapes, Tensor) else spatial_shapes
    shapes = tuple((height, width) for height, width in sizes)
    if not shapes or any(height < 1 or width < 1 for height, width in shapes):
        raise ValueError(f"spatial_shapes: expected at least one (height, width), both at least 1; got {list(shapes)}")
    if value.ndim != 4:
        raise ValueError(f"value: expected (B, S, M, D), got {tuple(value.shape)}; split its channels into heads first")
    B, S, M, _ = value.shape
    tokens = sum(height * width for height, width in shapes)
    if tokens != S:
        raise ValueError(
            f"value: expected {tokens} tokens (S) for the levels {list(shapes)}, got {S}; "
            "pass spatial_shapes as (height, width) of every level, finest first"
        )
    L = len(shapes)
    fits = locations.ndim == 6 and tuple(locations.shape[i] for i in (0, 2, 3, 5)) == (B, M, L, 2)
    if not fits:
        raise ValueError(
            f"locations: expected (B, Q, M, L, P, 2) with B={B}, M={M}, L={L}, got {tuple(locations.shape)}; "
            "B and M are those of value, L the number of spatial_shapes"
        )
    return shapes


def _expect(name: str, tensor: Tensor, shape: Sequence[int], meaning: str) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name}: expected {tuple(shape)}, {meaning}; got {tuple(tensor.shape)}")
