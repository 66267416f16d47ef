"""Deformable attention for inference, of one photo at a time: what lies between the layers stays in the cache, and the large
tensors are made once for all steps, because the system takes its time to hand out memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litedetr import ops
from litedetr.attention import DeformableAttention, KeyAwareDeformableAttention, Sampling, per_point
from litedetr.fast.dense import ROWS, Dense
from litedetr.positions import Shapes


@dataclass(frozen=True)
class Places:
    """Reference points as the locations are made of them, one row per query: location = centre + offset * unit.

    Attributes:
        centres: (Q, L * P * 2), and
        units: (Q or 1, L * P * 2), x and y in turn, float32.
    """

    centres: Tensor
    units: Tensor

    @classmethod
    def of(cls, reference_points: Tensor, shapes: Shapes, points: int) -> Places:
        """(Q, L, 2) points, whose offsets count in pixels of each level, or (Q, L, 4) boxes, whose offsets count in halves of the
        box; `points` per level."""
        centres = reference_points[..., :2]
        if reference_points.shape[-1] == 2:
            units = centres.new_tensor([(1 / W, 1 / H) for H, W in shapes])[None]
        else:
            units = reference_points[..., 2:] * (0.5 / points)
        return cls(per_point(centres, points), per_point(units, points))

    def __getitem__(self, rows: slice) -> Places:
        return Places(self.centres[rows], self.units if len(self.units) == 1 else self.units[rows])

    def locations(self, offsets: Tensor, out: Tensor) -> None:
        """(Q, M, L * P * 2) offsets -> `out`, alike."""
        torch.addcmul(self.centres[:, None], offsets.to(out.dtype), self.units[:, None], out=out)


class Workspace:
    """Memory for the large tensors of one attention call after the other, of one photo.

    Args:
        keep: give each call memory of its own, because a trace keeps what lies there.
    """

    def __init__(self, keep: bool = False):
        self.keep = keep
        self._held: dict[str, Tensor] = {}

    def take(self, name: str, like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised tensor; what was taken by this name before is overwritten unless it is kept."""
        size = torch.Size(shape).numel()
        held = self._held.get(name)
        if self.keep or held is None or held.numel() < size:
            held = self._held[name] = like.new_empty(size, dtype=dtype or like.dtype)
        return held[:size].view(shape)


class FastAttention(nn.Module):
    """`DeformableAttention` or `KeyAwareDeformableAttention` of one photo, up to the output projection.

    Args:
        attention: it stays as it is.
        dtype: float32 or bfloat16, of weights, values and outputs; locations are float32.
    """

    def __init__(self, attention: DeformableAttention, dtype: torch.dtype):
        super().__init__()
        self.heads, self.levels, self.points = attention.heads, attention.levels, attention.points
        self.key_aware = isinstance(attention, KeyAwareDeformableAttention)
        self.sampling_offsets = Dense(attention.sampling_offsets, dtype)
        self.repeats = attention.levels if attention.same_loc else 1
        self.asking = Dense(attention.query_proj if self.key_aware else attention.attention_weights, dtype)
        self.value_proj = Dense(attention.value_proj, dtype)
        self.key_proj = Dense(attention.key_proj, dtype) if self.key_aware and attention.proj_key else None
        self.output_proj = Dense(attention.output_proj, dtype, keep=True)  # a trace reads the weight

    def forward(
        self,
        content: Tensor,
        positions: Tensor,
        places: Places,
        memory: Tensor,
        shapes: Shapes,
        padding: Tensor | None,
        space: Workspace,
        return_sampling: bool = False,
    ) -> tuple[Tensor, Sampling | None]:
        """Attend from Q queries to S tokens.

        Args:
            content, positions: (Q, d), whose sum asks.
            places: of the queries.
            memory: (S, d) of the module's dtype.
            padding: (S,) bool, True = padding; None where nothing is.

        Returns:
            (Q, d) before `output_proj`; what was sampled, if asked for, which stays as it is if `space` keeps.
        """
        M, L, P = self.heads, self.levels, self.points
        Q, d = content.shape
        value = self.project(self.value_proj, memory, padding, space, "value")
        key = value if self.key_proj is None else self.project(self.key_proj, memory, padding, space, "key")
        locations = space.take("locations", places.centres, Q, M, L * P * 2)
        asked = space.take("asked", memory, Q, self.asking.outputs)
        for start in range(0, Q, ROWS):
            rows = slice(start, start + ROWS)
            query = content[rows] + positions[rows]
            offsets = self.sampling_offsets(query).view(len(query), M, -1)
            places[rows].locations(offsets.repeat(1, 1, self.repeats) if self.repeats > 1 else offsets, locations[rows])
            asked[rows] = self.asking(query)
        points = locations.view(1, Q, M, L, P, 2)
        if self.key_aware:
            query = asked.view(1, Q, M, d // M)
            found = ops.key_aware_deformable_attention(query, key, value, shapes, points, return_weights=return_sampling)
            core, weights = found if return_sampling else (found, None)
            return core[0], Sampling(points, weights, value, query, key) if return_sampling else None
        weights = asked.view(1, Q, M, L * P).softmax(-1, dtype=torch.float32).view(1, Q, M, L, P)
        core = ops.deformable_attention(value, shapes, points, weights)
        return core[0], Sampling(points, weights, value) if return_sampling else None

    def project(self, projection: Dense, memory: Tensor, padding: Tensor | None, space: Workspace, name: str) -> Tensor:
        """(S, d) memory -> (1, S, M, D) values or keys, 0 at padding."""
        projected = space.take(name, memory, *memory.shape)
        for start in range(0, len(memory), ROWS):
            projected[start : start + ROWS] = projection(memory[start : start + ROWS])
        if padding is not None:
            projected.masked_fill_(padding[:, None], 0.0)
        return projected.view(1, len(memory), self.heads, -1)
