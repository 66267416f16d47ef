"""Where a model calls deformable attention, and how something is put around that call.

All code bases end in one function of (value, spatial shapes, locations, weights), under a few names. An attention module is known
by which of them it calls, and each of them by the arguments that it takes: where either changes, `find` says so instead of
reading something else.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from litedetr.attention import DeformableAttention

TRANSFORMERS = "5.23"
"""The version of transformers that this is tested with; others are taken as long as their functions take the same arguments."""

_CORE = ("value", "value_spatial_shapes", "sampling_locations", "attention_weights")
_CORE_V2 = (*_CORE, "num_points_list", "method")
_EXTENSION = (*_CORE[:2], "value_level_start_index", *_CORE[2:], "im2col_step")
_MODULE = (*_CORE[:2], "value_spatial_shapes_list", "level_start_index", *_CORE[2:], "im2col_step")

MODULES = {"MultiScaleDeformableAttention": _MODULE}
"""Modules without weights whose ``forward`` an attention module calls: their class's name, and their arguments."""

FUNCTIONS = {
    "multi_scale_deformable_attention": _CORE,  # transformers
    "multi_scale_deformable_attention_v2": _CORE_V2,
    "ms_deform_attn_core_pytorch": _CORE,  # Deformable DETR, DINO, H-DETR
    "multi_scale_deformable_attn_pytorch": _CORE,  # mmcv, detrex
}
"""Functions that an attention module calls, or holds in an attribute: their name, and their arguments."""

EXTENSIONS = {"MSDeformAttnFunction": _EXTENSION, "MultiScaleDeformableAttnFunction": _EXTENSION}
"""`torch.autograd.Function`s around a compiled extension, whose ``apply`` an attention module calls."""


class UnknownModelError(TypeError):
    """A model that cannot be read; the message says what was expected and what it has instead."""


@dataclass(frozen=True)
class Call:
    """One call of deformable attention. B pictures, S tokens, M heads of D channels, Q queries, L levels.

    Attributes:
        value: (B, S, M, D).
        spatial_shapes: (height, width) per level, in the model's own order.
        locations: (B, Q, M, L, P, 2) x, y in [0, 1]; (B, Q, M, N, 2) if `points`.
        weights: (B, Q, M, L, P); (B, Q, M, N) if `points`.
        points: how many of the N each level has; None where all have P.
        discrete: the nearest token is taken as it is.
    """

    value: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    locations: Tensor
    weights: Tensor
    points: tuple[int, ...] | None = None
    discrete: bool = False

    def by_level(self) -> tuple[Tensor, Tensor]:
        """Locations (B, Q, M, L, P, 2) and weights (B, Q, M, L, P), P as many as the level with the most has: the others repeat
        their last point with weight 0."""
        if self.points is None:
            return self.locations, self.weights
        most = max(self.points)
        shape = (*self.weights.shape[:3], len(self.points), most)
        if min(self.points) == most:
            return self.locations.reshape(*shape, 2), self.weights.reshape(shape)
        starts = [sum(self.points[:level]) for level in range(len(self.points))]
        index = [start + min(p, n - 1) for start, n in zip(starts, self.points, strict=True) for p in range(most)]
        real = [float(p < n) for n in self.points for p in range(most)]
        chosen = torch.tensor(index, device=self.weights.device)
        weights = self.weights.index_select(3, chosen) * self.weights.new_tensor(real)
        return self.locations.index_select(3, chosen).view(*shape, 2), weights.view(shape)


def read(
    value: Tensor,
    value_spatial_shapes: Tensor | Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    value_spatial_shapes_list: Sequence[tuple[int, int]] | None = None,
    num_points_list: Sequence[int] | None = None,
    method: str = "default",
    level_start_index: Tensor | None = None,
    value_level_start_index: Tensor | None = None,
    im2col_step: int | None = None,
) -> Call:
    """The call, from the arguments of any of the functions by the names that they have there."""
    shapes = value_spatial_shapes if value_spatial_shapes_list is None else value_spatial_shapes_list
    if isinstance(shapes, Tensor):
        shapes = shapes.tolist()
    if method not in ("default", "discrete"):
        raise UnknownModelError(f'expected the sampling method "default" or "discrete", got {method!r}, which is not known here')
    return Call(
        value=value,
        spatial_shapes=tuple((height, width) for height, width in shapes),
        locations=sampling_locations,
        weights=attention_weights,
        points=None if num_points_list is None else tuple(num_points_list),
        discrete=method == "discrete",
    )


Attention = Callable[[Call], Tensor]
"""A call -> (B, Q, M * D)."""
Around = Callable[[Attention], Attention]
"""Puts something around an attention, or takes its place."""


@dataclass(frozen=True)
class Target:
    """A function that computes attention, its arguments, and whether it is the ``apply`` of something."""

    name: str
    original: Callable[..., Tensor]
    arguments: tuple[str, ...]
    applied: bool = False

    def inside(self, layers: Sequence[Around]) -> Any:
        """What stands for it with all layers around it, the first one next to it."""

        def call(*args: Any, **kwargs: Any) -> Tensor:
            def attention(_: Call) -> Tensor:
                return self.original(*args, **kwargs)  # bit for bit what the model would have had

            for around in layers:
                attention = around(attention)
            return attention(read(**dict(zip(self.arguments, args, strict=False)), **kwargs))

        return SimpleNamespace(apply=call) if self.applied else call


@dataclass(frozen=True)
class Site:
    """An attention module of a model, and the attribute by which it comes to its attention function.

    Attributes:
        name: of the module in the model.
        module: it has the layers `sampling_offsets` and `attention_weights`.
        owner: whose attribute it is, the module itself or its child.
        attribute: "forward", or where the module holds the function.
        targets: the functions that it may call.
        place: what they are to be -> the attribute's value.
        layers: what is around them now.
    """

    name: str
    module: nn.Module
    owner: nn.Module
    attribute: str
    targets: tuple[Target, ...]
    place: Callable[[list[Any]], Any]
    held: Any = None
    layers: list[Around] = field(default_factory=list)

    def put(self, around: Around, innermost: bool = False) -> Callable[[], None]:
        """Put something around the attention, or `innermost`, below all that is there. Several may be there at once, and be taken
        away in any order.

        Returns:
            What takes it away; a second time, it does nothing.
        """
        with _LOCK:
            self.layers.insert(0 if innermost else len(self.layers), around)
            self._build()
        return partial(self._take, around)

    def _take(self, around: Around) -> None:
        with _LOCK:
            if around in self.layers:
                self.layers.remove(around)
                self._build()

    def _build(self) -> None:
        attributes = vars(self.owner)
        if self.layers:
            attributes[_SITE] = self
            attributes[self.attribute] = self.place([target.inside(tuple(self.layers)) for target in self.targets])
        else:
            del attributes[_SITE], attributes[self.attribute]
            if self.held is not None:
                attributes[self.attribute] = self.held


_SITE = "_litedetr_site"  # among an owner's attributes while something is around its attention
_LOCK = threading.Lock()


def find(model: nn.Module) -> list[Site]:
    """The attention modules of a model, in its own order.

    Raises:
        UnknownModelError: it has none, or one that calls no function which is known here.
    """
    if "_orig_mod" in dict(model.named_children()) or model._compiled_call_impl is not None:
        raise UnknownModelError("expected a model as it was before torch.compile, got a compiled one: give the one before that")
    modules = [(name, module) for name, module in model.named_modules() if _is_attention(module)]
    if not modules:
        raise UnknownModelError(
            f"expected a model with multi-scale deformable attention, got {type(model).__name__}: none of its modules has both "
            "`sampling_offsets` and `attention_weights`"
        )
    return [_site(name, module) for name, module in modules]


def _is_attention(module: nn.Module) -> bool:
    if isinstance(module, DeformableAttention):
        raise UnknownModelError(
            "expected a model of another code base, got one of this project: `Detector.predict(photo, trace=True)` records its "
            "trace, and its attention runs on the kernels as it is"
        )
    return {"sampling_offsets", "attention_weights"} <= dict(module.named_children()).keys()


def _site(name: str, module: nn.Module) -> Site:
    for owner in (module, *module.children()):
        if _SITE in vars(owner):
            return vars(owner)[_SITE]
    for child in module.children():
        if type(child).__name__ in MODULES:
            target = _target(type(child).__name__, child.forward, MODULES, type(child).forward, skip=1)
            return Site(name, module, child, "forward", (target,), _only, held=vars(child).get("forward"))
    for attribute, value in vars(module).items():
        if isinstance(value, FunctionType) and value.__name__ in FUNCTIONS:
            target = _target(value.__name__, value, FUNCTIONS, value)
            return Site(name, module, module, attribute, (target,), _only, held=value)
    forward, known = type(module).forward, [*FUNCTIONS, *EXTENSIONS]
    names = [called for called in known if called in forward.__code__.co_names and called in forward.__globals__]
    if not names:
        raise UnknownModelError(
            f"expected {type(module).__name__} ({name}) to call one of {', '.join([*MODULES, *known])}, and it calls none: "
            f"litedetr knows transformers {TRANSFORMERS}, and the modules that Deformable DETR, mmcv and detrex published"
        )
    if "forward" in vars(module):
        raise UnknownModelError(
            f"expected {type(module).__name__} ({name}) as its class has it, and its `forward` was replaced: give the model as "
            "it was before that"
        )
    targets = tuple(_called(called, forward.__globals__[called]) for called in names)
    return Site(name, module, module, "forward", targets, partial(_rebound, module, forward, names))


def _called(name: str, value: Any) -> Target:
    if name in FUNCTIONS:
        return _target(name, value, FUNCTIONS, value)
    return _target(name, value.apply, EXTENSIONS, value.forward, skip=1, applied=True)


def _target(
    name: str,
    original: Callable[..., Tensor],
    known: dict[str, tuple[str, ...]],
    signature: Callable[..., Any],
    skip: int = 0,
    applied: bool = False,
) -> Target:
    """The function, if it takes what is known of it.

    Args:
        signature: the function whose arguments are looked at, without the first `skip` ones ("self", "ctx").
    """
    got, expected = tuple(inspect.signature(signature).parameters)[skip:], known[name]
    if got != expected:
        raise UnknownModelError(
            f"expected {name}({', '.join(expected)}), got {name}({', '.join(got)}): litedetr does not know this one; it is "
            f"tested with transformers {TRANSFORMERS}"
        )
    return Target(name, original, expected, applied)


def _only(made: list[Any]) -> Any:
    return made[0]


def _rebound(module: nn.Module, forward: FunctionType, names: Sequence[str], made: list[Any]) -> MethodType:
    """The module's own forward, in which some global names mean something else: no other module sees that."""
    # For torch.compile: without a `__name__` it looks names up here and not in the file that the function is from, and what it
    # makes of a code object belongs to one set of names, so that each has its own.
    namespace = {**forward.__globals__, **dict(zip(names, made, strict=True))}
    del namespace["__name__"]
    copy = FunctionType(forward.__code__.replace(), namespace, forward.__name__, forward.__defaults__, forward.__closure__)
    copy.__kwdefaults__ = forward.__kwdefaults__
    return MethodType(copy, module)
