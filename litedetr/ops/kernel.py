"""The CPU kernel's functions: tensors in, tensors out. Whether it is there and right is for `litedetr.ops.native` to say."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from litedetr.ops.instructions import Instructions
from litedetr.ops.library import BuildError, build

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


@dataclass(frozen=True)
class Kernel:
    """A library that was built and loaded, for one instruction set. Shapes are those of `litedetr.ops`; sizes: height and width
    of every level, one after the other."""

    library: ctypes.CDLL
    instructions: Instructions
    file: Path

    @classmethod
    def load(cls, instructions: Instructions) -> Kernel:
        """Builds it if need be.

        Raises:
            BuildError: it cannot be built, or is another version's.
        """
        file = build(instructions.path)
        library = ctypes.CDLL(str(file))
        if library.litedetr_attention_struct_size() != ctypes.sizeof(_Call):
            raise BuildError(f"{file} does not fit this version of litedetr; delete it")
        return cls(library, instructions, file)

    def plain(self, value: Tensor, locations: Tensor, weights: Tensor, sizes: Sequence[int]) -> Tensor:
        """The output."""
        value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
        out = new_output(value, locations)
        self._call(self.library.litedetr_attention_forward, value, locations, sizes, weights=weights, out=out)
        return out

    def plain_backward(self, grad_out, value, locations, weights, sizes) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of value, locations and weights."""
        value, locations, weights = value.contiguous(), locations.contiguous(), weights.contiguous()
        grads = new_like(value), new_like(locations), new_like(weights)
        self._call(
            self.library.litedetr_attention_backward, value, locations, sizes, weights=weights, grad_out=grad_out.contiguous(),
            grad_value=grads[0], grad_locations=grads[1], grad_weights=grads[2],
        )  # fmt: skip
        return grads

    def key_aware(self, query, key, value, locations, sizes, return_weights: bool) -> tuple[Tensor, Tensor]:
        """The output, and the weights, which are empty unless they are wanted; no key where it is the value."""
        query, value, locations = query.contiguous(), value.contiguous(), locations.contiguous()
        key = None if key is None else key.contiguous()
        out, weights = new_output(value, locations), new_weights(locations, return_weights)
        self._call(
            self.library.litedetr_attention_forward, value, locations, sizes, query=query, key=key, out=out,
            weights_out=weights if return_weights else None,
        )  # fmt: skip
        return out, weights

    def key_aware_backward(
        self, grad_out, grad_weights, query, key, value, locations, sizes
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of query, key (empty where there is none), value and locations."""
        query, value, locations = query.contiguous(), value.contiguous(), locations.contiguous()
        key = None if key is None else key.contiguous()
        grad_weights = None if grad_weights is None else grad_weights.contiguous()
        grads = new_like(query), new_key_gradient(key, value), new_like(value), new_like(locations)
        self._call(
            self.library.litedetr_attention_backward, value, locations, sizes, query=query, key=key,
            grad_out=grad_out.contiguous(), grad_weights_out=grad_weights, grad_query=grads[0],
            grad_key=None if key is None else grads[1], grad_value=grads[2], grad_locations=grads[3],
        )  # fmt: skip
        return grads

    def _call(self, run, value: Tensor, locations: Tensor, sizes: Sequence[int], **tensors: Tensor | None) -> None:
        """Fills in the structure and runs one function of the library; every tensor is contiguous."""
        B, Q, M, L, P, _ = locations.shape
        table = (ctypes.c_int32 * len(sizes))(*sizes)
        # Told by which tensors there are, not by their addresses: an empty tensor has none.
        mode = _PLAIN if "weights" in tensors else _SHARED_KEY if tensors["key"] is None else _SEPARATE_KEY
        call = _Call(
            mode=mode, batch=B, queries=Q, heads=M, channels=value.shape[-1], levels=L, points=P,
            bfloat16=value.dtype == torch.bfloat16, threads=torch.get_num_threads(), path=self.instructions.path,
            sizes=ctypes.addressof(table), value=value.data_ptr(), locations=locations.data_ptr(),
            **{name: None if tensor is None else tensor.data_ptr() for name, tensor in tensors.items()},
        )  # fmt: skip
        status = run(ctypes.byref(call))
        if status != 0:
            what = {1: "ran out of memory", 2: "was asked for instructions that this machine does not have"}
            raise RuntimeError(f"the native attention kernel {what.get(status, 'failed')}")


def new_output(value: Tensor, locations: Tensor) -> Tensor:
    """(B, Q, M * D), not filled in, as those that follow."""
    B, Q, M = locations.shape[:3]
    return value.new_empty(B, Q, M * value.shape[-1])


def new_weights(locations: Tensor, wanted: bool) -> Tensor:
    """(B, Q, M, L, P), or nothing."""
    return locations.new_empty(locations.shape[:-1] if wanted else 0)


def new_like(tensor: Tensor) -> Tensor:
    """Of the same shape."""
    return tensor.new_empty(tensor.shape)


def new_key_gradient(key: Tensor | None, value: Tensor) -> Tensor:
    """Of the key's shape, or nothing."""
    return value.new_empty(0) if key is None else new_like(key)
