"""Deformable attention for inference, of one photo at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litedetr import ops
from litedetr.attention import DeformableAttention, KeyAwareDeformableAttention, Sampling, per_point
from litedetr.fast.dense import Dense
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

    def locations(self, offsets: Tensor) -> Tensor:
        """(Q, M, L * P * 2) offsets, which are overwritten if they are float32 -> alike."""
        offsets = offsets.to(self.centres.dtype)
        return torch.addcmul(self.centres[:, None], offsets, self.units[:, None], out=offsets)


class FastAttention(nn.Module):
    """`DeformableAttention` or `KeyAwareDeformableAttention` of one photo.

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
        query: Tensor,
        places: Places,
        memory: Tensor,
        shapes: Shapes,
        padding: Tensor | None,
        return_sampling: bool = False,
    ) -> tuple[Tensor, Sampling | None]:
        """Attend from Q queries to S tokens.

        Args:
            query: (Q, d), positions already added; places: of the queries.
            memory: (S, d) of the module's dtype.
            padding: (S,) bool, True = padding; None where nothing is.

        Returns:
            (Q, d), and what was sampled, if asked for.
        """
        M, L, P = self.heads, self.levels, self.points
        Q, d = query.shape
        offsets = self.sampling_offsets(query).view(Q, M, -1)
        locations = places.locations(offsets.repeat(1, 1, self.repeats) if self.repeats > 1 else offsets).view(1, Q, M, L, P, 2)
        asked = self.asking(query).view(1, Q, M, -1)
        value = self.project(self.value_proj, memory, padding)
        if self.key_aware:
            key = value if self.key_proj is None else self.project(self.key_proj, memory, padding)
            found = ops.key_aware_deformable_attention(asked, key, value, shapes, locations, return_weights=return_sampling)
            core, weights = found if return_sampling else (found, None)
            sampling = Sampling(locations, weights, value, asked, key)
        else:
            weights = asked.softmax(-1, dtype=torch.float32).view(1, Q, M, L, P)
            core = ops.deformable_attention(value, shapes, locations, weights)
            sampling = Sampling(locations, weights, value)
        return self.output_proj(core[0]), sampling if return_sampling else None

    def project(self, projection: Dense, memory: Tensor, padding: Tensor | None) -> Tensor:
        """(S, d) memory -> (1, S, M, D) values or keys, 0 at padding."""
        projected = projection(memory)
        if padding is not None:
            projected.masked_fill_(padding[:, None], 0.0)
        return projected.view(1, len(memory), self.heads, -1)
