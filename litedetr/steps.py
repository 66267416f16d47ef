"""The steps of a trace: one deformable attention call each, whole or made again when it is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from litedetr.ops import reference
from litedetr.schedule import scale_name


@dataclass(frozen=True)
class StepOutline:
    """What is known of a step without its tensors.

    Attributes:
        name: "B1 high", "B1 all", "decoder 1", …
        kind: "high", "all" or "decoder".
        block: the encoder block from 0, None in the decoder.
        query_levels: levels whose tokens were queries (finest = 0); empty in the decoder, whose queries are objects.
        first_query: index among all S tokens of the first query (encoder); 0 in the decoder.
        spatial_shapes: (height, width) per level.
        reference_points: (Q, L, 2) as x, y or (Q, L, 4) as cx, cy, w, h, in [0, 1] of the padded image.
    """

    name: str
    kind: str
    block: int | None
    query_levels: tuple[int, ...]
    first_query: int
    spatial_shapes: tuple[tuple[int, int], ...]
    reference_points: Tensor

    @property
    def queries(self) -> int:
        """Q, how many queries the step has."""
        return len(self.reference_points)

    @property
    def query_scales(self) -> tuple[str, ...]:
        """Names of the scales whose tokens were queries, e.g. ("S3", "S2", "S1")."""
        return tuple(scale_name(level, len(self.spatial_shapes)) for level in self.query_levels)

    @property
    def scales(self) -> tuple[str, ...]:
        """Names of all scales, finest first: ("S4", "S3", "S2", "S1")."""
        return tuple(scale_name(level, len(self.spatial_shapes)) for level in range(len(self.spatial_shapes)))


@dataclass(frozen=True)
class AttentionStep(StepOutline):
    """One deformable attention call on one photo. M heads, L levels (finest first), P points.

    Attributes:
        name, kind, block, query_levels, first_query, spatial_shapes, reference_points: as in `StepOutline`.
        locations: (Q, M, L, P, 2) x, y in [0, 1] of the padded image; outside that, outside the image.
        weights: (Q, M, L, P), they sum to 1 per query and head.
        value: (S, M, D) the projected values that were sampled, 0 at padding.
        output: (Q, d) the attention module's own output.
        output_weight, output_bias: its output projection, to rebuild the output from the points.
        query: (Q, M, D) the projected queries, and key: (S, M, D) what they were compared with, by which KDA made the weights
            (logit = query . key / sqrt(D)); None with plain deformable attention.
        tokens: (Q, d) what the queries were when the step was over.
    """

    locations: Tensor
    weights: Tensor
    value: Tensor
    output: Tensor
    output_weight: Tensor
    output_bias: Tensor
    query: Tensor | None = None
    key: Tensor | None = None
    tokens: Tensor | None = None

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

    @property
    def whole(self) -> AttentionStep:
        """Itself; see `LightStep`."""
        return self

    def tensors(self) -> list[Tensor]:
        """What it holds, without the layer's weights, which are the model's."""
        model = ("output_weight", "output_bias")
        return [value for name, value in vars(self).items() if isinstance(value, Tensor) and name not in model]


class StepMaker(Protocol):
    """What a light trace keeps to make its steps again, and makes them: `litedetr.replay.Replay`, where the attributes are
    described."""

    shapes: tuple[tuple[int, int], ...]
    padding: Tensor | None
    tokens: Tensor | None
    written: list[Tensor | None]
    references: list[Tensor]
    queries: Tensor | None
    query_positions: Tensor | None

    def step(self, index: int) -> AttentionStep: ...

    def memory(self, index: int) -> Tensor: ...

    def keeps(self, queries: int) -> bool: ...

    def drop(self, written: Tensor) -> None: ...


@dataclass(frozen=True, eq=False)
class LightStep(StepOutline):
    """An `AttentionStep` of a light trace: it has the same attributes, and those that are no outline are made when they are read.

    Attributes:
        name, kind, block, query_levels, first_query, spatial_shapes, reference_points: as in `StepOutline`.
        index: among the trace's steps.
        replay: makes it.
    """

    index: int
    replay: StepMaker = field(repr=False)

    @property
    def whole(self) -> AttentionStep:
        """All of it."""
        return self.replay.step(self.index)

    locations, weights, value, output, output_weight, output_bias, query, key = (
        property(attrgetter(f"whole.{name}"))
        for name in ("locations", "weights", "value", "output", "output_weight", "output_bias", "query", "key")
    )

    @property
    def tokens(self) -> Tensor:
        written = self.replay.written[self.index]
        return self.replay.memory(self.index)[self.first_query :] if written is None else written

    def rebuild(self, queries: Tensor | slice | list[int] | None = None) -> Tensor:
        return self.whole.rebuild(queries)

    def rebuild_error(self, queries: Tensor | slice | list[int] | None = None) -> float:
        return self.whole.rebuild_error(queries)

    def tensors(self) -> list[Tensor]:
        written = self.replay.written[self.index]
        return [self.reference_points] if written is None else [self.reference_points, written]


def stored_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors hold, counting memory that several share once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
