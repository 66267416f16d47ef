"""Trace: what was sampled, with which weight, on which scale, at which step of one photo's run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from litedetr.image import PhotoGeometry
from litedetr.ops import reference
from litedetr.schedule import EncoderStep, scale_name

if TYPE_CHECKING:
    from litedetr.attention import DeformableAttention, Sampling


@dataclass(frozen=True)
class AttentionStep:
    """One deformable attention call on one photo. M heads, L levels (finest first), P points.

    Attributes:
        name: "B1 high", "B1 all", "decoder 1", …
        kind: "high", "all" or "decoder".
        block: the encoder block from 0, None in the decoder.
        query_levels: levels whose tokens were queries (finest = 0); empty in the decoder, whose queries are objects.
        first_query: index among all S tokens of the first query (encoder); 0 in the decoder.
        spatial_shapes: (height, width) per level.
        reference_points: (Q, L, 2) as x, y or (Q, L, 4) as cx, cy, w, h, in [0, 1] of the padded image.
        locations: (Q, M, L, P, 2) x, y in [0, 1] of the padded image; outside that, outside the image.
        weights: (Q, M, L, P), they sum to 1 per query and head.
        value: (S, M, D) the projected values that were sampled, 0 at padding.
        output: (Q, d) the attention module's own output.
        output_weight, output_bias: its output projection, to rebuild the output from the points.
        query: (Q, M, D) the projected queries, and key: (S, M, D) what they were compared with, by which KDA made the weights
            (logit = query . key / sqrt(D)); None with plain deformable attention.
        tokens: (Q, d) what the queries were when the step was over.
    """

    name: str
    kind: str
    block: int | None
    query_levels: tuple[int, ...]
    first_query: int
    spatial_shapes: tuple[tuple[int, int], ...]
    reference_points: Tensor
    locations: Tensor
    weights: Tensor
    value: Tensor
    output: Tensor
    output_weight: Tensor
    output_bias: Tensor
    query: Tensor | None = None
    key: Tensor | None = None
    tokens: Tensor | None = None

    @property
    def query_scales(self) -> tuple[str, ...]:
        """Names of the scales whose tokens were queries, e.g. ("S3", "S2", "S1")."""
        return tuple(scale_name(level, len(self.spatial_shapes)) for level in self.query_levels)

    @property
    def scales(self) -> tuple[str, ...]:
        """Names of all scales, finest first: ("S4", "S3", "S2", "S1")."""
        return tuple(scale_name(level, len(self.spatial_shapes)) for level in range(len(self.spatial_shapes)))

    def rebuild(self, queries: Tensor | slice | list[int] | None = None) -> Tensor:
        """The module's output made again from locations and weights alone: (Q, d), or its rows for `queries`."""
        rows = slice(None) if queries is None else queries
        core = reference.deformable_attention(
            self.value[None].float(), self.spatial_shapes, self.locations[rows][None].float(), self.weights[rows][None].float()
        )[0]
        return F.linear(core, self.output_weight.float(), self.output_bias.float())

    def rebuild_error(self, queries: Tensor | slice | list[int] | None = None) -> float:
        """Largest absolute difference between `rebuild` and the module's own output."""
        rows = slice(None) if queries is None else queries
        difference = self.rebuild(queries) - self.output[rows].float()
        return float(difference.abs().max()) if difference.numel() else 0.0


@dataclass
class Trace:
    """Every encoder update and decoder layer of one photo.

    Attributes:
        steps: encoder steps in order, then decoder layers.
        geometry: from coordinates of the padded image to the photo's pixels.
        spatial_shapes: (height, width) per level, finest first.
        padding: (S,) bool, True = padding token.
        selected_tokens: (Q,) the encoder tokens that became queries, best first (two-stage models).
        boxes: (layers + 1, Q, 4) the queries' boxes before the decoder and after each layer, cxcywh in [0, 1] of the photo
            (without padding, unlike the points).
        logits: (layers, Q, K) after each decoder layer.
        tokens: (S, d) before the encoder; `memory` gives them after each of its steps.
        queries: (Q, d) the decoder queries' contents before its first layer, and
        query_positions: (Q, d) their positions, None where they are made from the boxes.
        proposal_logits: (S, K) and proposal_boxes: (S, 4) cxcywh in [0, 1], what every token proposed (two-stage models; the box
            is 1, 1, 1, 1 where a token may propose none: in padding and where its box would leave the picture).
        milliseconds: wall-clock of "backbone", "neck", "encoder", "selection", "decoder", and of each step by its name.
    """

    steps: list[AttentionStep] = field(default_factory=list)
    geometry: PhotoGeometry | None = None
    spatial_shapes: tuple[tuple[int, int], ...] = ()
    padding: Tensor | None = None
    selected_tokens: Tensor | None = None
    boxes: Tensor | None = None
    logits: Tensor | None = None
    tokens: Tensor | None = None
    queries: Tensor | None = None
    query_positions: Tensor | None = None
    proposal_logits: Tensor | None = None
    proposal_boxes: Tensor | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def encoder_steps(self) -> list[AttentionStep]:
        return [step for step in self.steps if step.kind != "decoder"]

    @property
    def decoder_steps(self) -> list[AttentionStep]:
        return [step for step in self.steps if step.kind == "decoder"]

    @property
    def nbytes(self) -> int:
        """Bytes held, counting memory that several tensors share once."""
        models = {id(tensor) for step in self.steps for tensor in (step.output_weight, step.output_bias)}
        held = [value for part in (self, *self.steps) for value in vars(part).values() if isinstance(value, Tensor)]
        storages = [t.untyped_storage() for t in held if id(t) not in models]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def rebuild_error(self) -> float:
        """Largest of all steps' `AttentionStep.rebuild_error`."""
        return max((step.rebuild_error() for step in self.steps), default=0.0)

    def memory(self, step: int) -> Tensor:
        """(S, d): the tokens of all scales after encoder step `step`, counted from 0; -1 for before the encoder."""
        tokens = self.tokens
        for done in self.encoder_steps[: step + 1]:
            tokens = torch.cat((tokens[: done.first_query], done.tokens))
        return tokens

    def step(self, name: str) -> AttentionStep:
        """The step called `name`."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(f"expected one of the steps {', '.join(step.name for step in self.steps)}, got {name!r}")

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Measure a stage's wall-clock."""
        start = time.perf_counter()
        yield
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + 1000 * (time.perf_counter() - start)

    def add_encoder_step(
        self,
        step: EncoderStep,
        first_query: int,
        reference_points: Tensor,
        sampling: Sampling,
        output: Tensor,
        attention: DeformableAttention,
    ) -> None:
        self._add(step.name, step.kind, step.block, step.query_levels, first_query, reference_points, sampling, output, attention)

    def add_decoder_layer(
        self, index: int, reference_points: Tensor, sampling: Sampling, output: Tensor, attention: DeformableAttention
    ) -> None:
        self._add(f"decoder {index + 1}", "decoder", None, (), 0, reference_points, sampling, output, attention)

    def _add(self, name, kind, block, query_levels, first_query, reference_points, sampling, output, attention) -> None:
        if output.shape[0] != 1:
            raise ValueError(f"expected one photo to trace, got a batch of {output.shape[0]}: trace photos one at a time")
        self.steps.append(
            AttentionStep(
                name=name,
                kind=kind,
                block=block,
                query_levels=query_levels,
                first_query=first_query,
                spatial_shapes=self.spatial_shapes,
                reference_points=_keep(reference_points[0]),
                locations=_keep(sampling.locations[0]),
                weights=_keep(sampling.weights[0]),
                value=_keep(sampling.value[0]),
                output=_keep(output[0]),
                output_weight=_keep(attention.output_proj.weight),
                output_bias=_keep(attention.output_proj.bias),
                query=None if sampling.query is None else _keep(sampling.query[0]),
                key=None if sampling.key is None else _keep(sampling.key[0]),
            )
        )

    def end_step(self, tokens: Tensor) -> None:
        """What the last step's queries (1, Q, d) became."""
        self.steps[-1] = replace(self.steps[-1], tokens=_keep(tokens[0]))


def _keep(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


def stage(trace: Trace | None, name: str):
    """``with stage(trace, "encoder"):`` measures the stage if there is a trace, and does nothing if not."""
    return nullcontext() if trace is None else trace.timing(name)
