"""`watch`: what a deformable DETR of another code base looks at, as a `Trace`."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from litedetr.guests.calls import Attention, Call, Site, UnknownModelError, find
from litedetr.steps import AttentionStep
from litedetr.trace import Trace


@contextmanager
def watch(model: nn.Module, item: int = 0) -> Iterator[Trace]:
    """Record where a model samples and how much each point counts, while it runs as ever:

        with litedetr.watch(model) as trace:
            output = model(**inputs)
        trace.step("decoder 3").locations

    Args:
        model: one of `transformers` with deformable attention, or of the published modules; see `litedetr.guests`.
        item: which picture of the batch.

    Yields:
        The trace of the last call of `model` in this block. Its steps are called "encoder 1", "encoder 2", … and "decoder 1", …
        in the order in which they ran, with levels from the finest; it has `boxes` (what each decoder layer began with, and
        the last ones) and `logits` (after each layer, or only after the last one) where the model's output has ``pred_boxes`` and
        ``logits``. Not in it: `tokens`, `queries`, keys, proposals and padding, which the attention does not tell.

    The results do not change by a bit, and nothing of it stays in the model after the block. Blocks may be nested and overlap in
    threads; each one records the calls that are made in the thread that entered it. A step holds the model's own tensors, on
    the CPU and without gradients.

    Raises:
        UnknownModelError: the model has no deformable attention that is known, or was compiled.
        ValueError: there is no such picture in the batch.
        RuntimeError: the model was not called in the block.
    """
    observer = _Observer(item)
    with ExitStack() as undo:
        for site in find(model):
            undo.callback(site.put(partial(observer.around, site)))
            undo.callback(site.module.register_forward_pre_hook(partial(observer.enter, site), with_kwargs=True).remove)
            undo.callback(site.module.register_forward_hook(partial(observer.leave, site)).remove)
            projection = dict(site.module.named_children()).get("output_proj")
            if projection is not None:
                undo.callback(projection.register_forward_hook(observer.projected).remove)
        undo.callback(model.register_forward_pre_hook(observer.begin).remove)
        undo.callback(model.register_forward_hook(observer.end, always_call=True).remove)
        yield observer.trace
        if not observer.called:
            raise RuntimeError("expected the model to be called in the block, in this thread, and it was not: the trace is empty")


class _Observer:
    """What one block saw so far. Everything it is told in other threads than its own it leaves alone."""

    def __init__(self, item: int):
        self.item, self.thread = item, threading.get_ident()
        self.trace = Trace()
        self.called, self.running = False, False
        self.reference: Tensor | None = None
        self.call: Call | None = None
        self.output: Tensor | None = None

    @property
    def off(self) -> bool:
        return threading.get_ident() != self.thread or not self.running

    def begin(self, model: nn.Module, args: Any) -> None:
        if threading.get_ident() == self.thread:
            self.called = self.running = True
            fresh = Trace()
            vars(self.trace).update(vars(fresh))

    def enter(self, site: Site, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if not self.off:
            given = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
            self.reference, self.call, self.output = given.get("reference_points"), None, None

    def around(self, site: Site, inner: Attention) -> Attention:
        def attention(call: Call) -> Tensor:
            output = inner(call)
            if not self.off:
                self.call, self.output = call, output
            return output

        return attention

    def projected(self, projection: nn.Module, args: tuple, output: Tensor) -> None:
        if not self.off:
            self.output = output

    def leave(self, site: Site, module: nn.Module, args: tuple, output: Any) -> None:
        if self.off:
            return
        if self.call is None or self.reference is None:
            missing = "called no attention" if self.call is None else "got none"
            raise UnknownModelError(
                f"expected {type(module).__name__} ({site.name}) to sample around `reference_points`, and it {missing}"
            )
        batch = len(self.call.value)
        if not 0 <= self.item < batch:
            raise ValueError(f"expected item to be one of the batch's {batch} pictures, from 0, got {self.item}")
        kind = _kind(site.name, self.call)
        number = 1 + sum(step.kind == kind for step in self.trace.steps)
        projection = dict(module.named_children()).get("output_proj")
        step = _step(kind, number, self.call, self.reference, self.output, projection, self.item)
        self.trace.steps.append(step)
        self.trace.spatial_shapes = step.spatial_shapes

    def end(self, model: nn.Module, args: Any, output: Any) -> None:
        if self.off:
            return
        self.running = False
        if isinstance(output, Mapping):
            _read_heads(self.trace, output, self.item)


def _kind(name: str, call: Call) -> str:
    """All of an encoder's layers are of kind "all". Where the name does not tell which they are, their queries are all tokens."""
    places = [part for part in name.split(".") if part in ("encoder", "decoder")]
    place = places[-1] if places else ("encoder" if call.weights.shape[1] == call.value.shape[1] else "decoder")
    return "all" if place == "encoder" else "decoder"


def _step(
    kind: str, number: int, call: Call, reference: Tensor, output: Tensor, projection: nn.Linear | None, item: int
) -> AttentionStep:
    """One picture's step, its levels from the finest."""
    shapes, encoder = call.spatial_shapes, kind == "all"
    L = len(shapes)
    locations, weights = (tensor[item] for tensor in call.by_level())
    if call.discrete:
        locations = _centres(locations, shapes)
    value, output, reference = call.value[item], output[item], reference[item]
    reference = reference.expand(-1, L, -1)  # one for all levels, in some models
    order = sorted(range(L), key=lambda level: -shapes[level][0] * shapes[level][1])
    if order != list(range(L)):
        shapes, locations, weights = tuple(shapes[i] for i in order), locations[:, :, order], weights[:, :, order]
        tokens = torch.arange(len(value), device=value.device).split([h * w for h, w in call.spatial_shapes])
        tokens = torch.cat([tokens[level] for level in order])
        value, reference = value[tokens], reference[:, order]
        if encoder:
            locations, weights, output, reference = (tensor[tokens] for tensor in (locations, weights, output, reference))
    width = output.shape[-1]
    return AttentionStep(
        name=f"{'encoder' if encoder else 'decoder'} {number}",
        kind=kind,
        block=number - 1 if encoder else None,
        query_levels=tuple(range(L)) if encoder else (),
        first_query=0,
        spatial_shapes=shapes,
        reference_points=_keep(reference),
        locations=_keep(locations),
        weights=_keep(weights),
        value=_keep(value),
        output=_keep(output),
        output_weight=torch.eye(width) if projection is None else _keep(projection.weight),
        output_bias=torch.zeros(width) if projection is None or projection.bias is None else _keep(projection.bias),
    )


def _centres(locations: Tensor, shapes: tuple[tuple[int, int], ...]) -> Tensor:
    """The centres of the tokens that discrete sampling takes for (Q, M, L, P, 2), by its own rounding."""
    size = locations.new_tensor([(width, height) for height, width in shapes])[:, None]
    token = (locations * size + 0.5).to(torch.int64).clamp(min=0)
    return (token.minimum(size.long() - 1) + 0.5) / size


def _read_heads(trace: Trace, output: Mapping[str, Any], item: int) -> None:
    """Boxes and logits from a detector's output, as far as it has them."""
    layers = trace.decoder_steps
    logits, boxes = output.get("logits"), output.get("pred_boxes")
    if logits is None or boxes is None or boxes.shape[-1] != 4 or not layers:
        return
    between = output.get("intermediate_logits")
    every = between is not None and between.shape[1] == len(layers)
    trace.logits = _keep(between[item] if every else logits[item, None])
    starts = [nn.functional.pad(step.reference_points[:, 0], (0, 4 - step.reference_points.shape[-1])) for step in layers]
    trace.boxes = torch.stack([*starts, _keep(boxes[item])])


def _keep(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()
