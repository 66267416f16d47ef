"""Replay: the steps of a traced run made again, when somebody reads them, from the little that was kept of it.

A step's locations, weights, values and keys hold many times the bytes of the tokens that they are made of. A light trace keeps
the tokens, and the layers that made them make the rest again: the same kernels on the same numbers, so that it is equal to what
the run had, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from litedetr.lru import ByteLRU
from litedetr.positions import split_levels
from litedetr.pyramid import FeaturePyramid, Layouts
from litedetr.steps import AttentionStep, stored_bytes
from litedetr.trace import Trace

CACHE_BYTES = 64 * 1024**2
"""Of the steps that a trace made last, where no other cache is given; a quarter of them for the tokens that it does not keep."""


@dataclass(frozen=True)
class StepCache:
    """What is at hand of one light trace or of many.

    Attributes:
        steps: that are looked at now, and the tokens of all scales after them.
        written: what the last runs' steps wrote where traces do not keep it. It takes as long to make again as a step, in a
            twentieth of the bytes, so that steps do not push it out.
    """

    steps: ByteLRU
    written: ByteLRU


def step_cache(limit: int = CACHE_BYTES, least: int = 1, written: int | None = None) -> StepCache:
    """`limit` and `least` of the steps as in `ByteLRU`; bytes of what was written, a quarter of the steps' if None."""
    steps = ByteLRU(limit, lambda made: stored_bytes(made.tensors() if isinstance(made, AttentionStep) else [made]), least)
    return StepCache(steps, ByteLRU(limit // 4 if written is None else written, lambda made: stored_bytes([made]), least=0))


@dataclass(eq=False)
class Replay:
    """What a light trace keeps to make its steps again, and the layers that do it.

    Of the encoder's tokens those after each step are kept, but where all that the step wrote can be had from the step before in
    one go: after a step of all scales always, after a high-level one where the step before it was not kept.

    Attributes:
        encoder, decoder: of the detector that makes the trace, with `attend_again`, and the encoder's `update_again`.
            Their weights must stay as they are.
        layouts: makes the layout of the pyramid again.
        cache: of made steps; several traces may share one.
        threads: of PyTorch in the run: sums are added in another order with another number.
        shapes, padding: of the pyramid; (S,) bool, None where nothing is padding.
        tokens: (S, d) before the encoder.
        written: what each step's queries (Q, d) became, None where that is not kept; encoder steps first, then decoder layers.
        references: (Q, L, 2 or 4) of each decoder layer.
        queries, query_positions: (Q, d) before the decoder; positions None where they are made from the boxes.
    """

    encoder: nn.Module
    decoder: nn.Module
    layouts: Layouts
    cache: StepCache = field(default_factory=step_cache)
    threads: int = field(default_factory=torch.get_num_threads)
    shapes: tuple[tuple[int, int], ...] = ()
    padding: Tensor | None = None
    tokens: Tensor | None = None
    written: list[Tensor | None] = field(default_factory=list)
    references: list[Tensor] = field(default_factory=list)
    queries: Tensor | None = None
    query_positions: Tensor | None = None
    _key: object = field(default_factory=object, repr=False)

    def __post_init__(self) -> None:
        self._weights = _state(self.encoder, self.decoder)

    def step(self, index: int) -> AttentionStep:
        """The step with all its tensors.

        Raises:
            RuntimeError: the detector was trained, or moved, since the run.
        """
        return self.cache.steps.memo((self._key, index), lambda: self._made(index))

    def memory(self, index: int) -> Tensor:
        """(S, d): the tokens after an encoder step, counted from 0; -1 for before the encoder."""
        if index < 0:
            return self.tokens
        written = self.written[index]
        if written is not None and len(written) == len(self.tokens):
            return written
        return self.cache.steps.memo((self._key, "memory", index), lambda: self._memory(index))

    def keeps(self, queries: int) -> bool:
        """Whether the tokens that the next encoder step writes are kept."""
        return queries == len(self.tokens) or (bool(self.written) and self.written[-1] is None)

    def drop(self, written: Tensor) -> None:
        """What the next encoder step wrote (Q, d) is not kept; the cache has it for a while, because most looks come soon."""
        self.cache.written.put((self._key, len(self.written)), written)
        self.written.append(None)

    def _memory(self, index: int) -> Tensor:
        before, written = self.memory(index - 1), self.written[index]
        if written is None:
            written = self.cache.written.get((self._key, index))
        if written is not None:
            return torch.cat((before[: len(before) - len(written)], written))
        with self._as_in_the_run():
            return self.encoder.update_again(index, self._on_device(before), self._layout()).cpu()

    def _made(self, index: int) -> AttentionStep:
        record = Trace(spatial_shapes=self.shapes)
        steps, written = len(self.encoder.steps), self.written[index]
        memory = self.memory(min(index, steps) - 1)
        with self._as_in_the_run():
            if index < steps:
                self.encoder.attend_again(index, self._on_device(memory), self._layout(), record)
            else:
                layer = index - steps
                content = self.queries if layer == 0 else self.written[index - 1]
                inputs = (content, self.query_positions, self.references[layer], memory)
                self.decoder.attend_again(layer, *map(self._on_device, inputs), self._layout(), record)
        (step,) = record.steps
        return replace(step, tokens=self.memory(index)[step.first_query :] if written is None else written)

    def _on_device(self, tensor: Tensor | None) -> Tensor | None:
        """(…) -> (1, …), where the layers are."""
        return None if tensor is None else tensor[None].to(self.layouts.level_embed.device)

    def _layout(self) -> FeaturePyramid:
        masks = None if self.padding is None else split_levels(self._on_device(self.padding), self.shapes)
        return self.layouts(self.shapes, masks=masks)

    @contextmanager
    def _as_in_the_run(self) -> Iterator[None]:
        if _state(self.encoder, self.decoder) != self._weights:
            raise RuntimeError(
                "expected the detector as it was when it made this light trace, got one that was trained, loaded or moved since: "
                "read the steps before that, or trace with predict(photo, trace=True), which keeps all of them"
            )
        threads = torch.get_num_threads()
        try:
            if threads != self.threads:
                torch.set_num_threads(self.threads)
            with torch.inference_mode():
                yield
        finally:
            if threads != self.threads:
                torch.set_num_threads(threads)

    @property
    def layer_bytes(self) -> int:
        """Of the layers' weights, which the replays of one detector share."""
        modules = [*self.encoder.modules(), *self.decoder.modules()]
        held = [vars(m) | m._parameters | m._buffers for m in modules]
        tensors = {id(t): t for values in held for t in values.values() if isinstance(t, Tensor)}
        return sum(t.numel() * t.element_size() for t in tensors.values())


def _state(*parts: nn.Module) -> list[tuple[int, int]]:
    """Another one after any training step, load or move; layers for inference alone have no parameters and never change."""
    return [(weight.data_ptr(), weight._version) for part in parts for weight in part.parameters()]
