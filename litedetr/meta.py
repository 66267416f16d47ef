"""Modules without memory: their shapes are known, their values are not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FACTORIES = (torch.empty, torch.zeros, torch.ones)


class OnMeta(TorchFunctionMode):
    """What modules that are built inside allocate lies on PyTorch's "meta" device, and is given no values.

    ``torch.device("meta")`` would give it values, for many of which PyTorch imports its compiler: a second of a processor.
    """

    def __torch_function__(
        self, function: Callable, types: Iterable[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _FACTORIES:
            return function(*args, **kwargs | {"device": "meta"})
        target = args[0] if args else kwargs.get("tensor")  # as `torch.nn.init` calls it
        in_place = function.__name__.endswith("_") and not function.__name__.endswith("__")
        return target if in_place and isinstance(target, Tensor) and target.is_meta else function(*args, **kwargs)
