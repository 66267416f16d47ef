"""Stand-ins with the interfaces under which deformable attention was published, written afresh, and a model of each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litedetr.ops import reference
from tests.guests.zoo import Guest

SHAPES = ((6, 8), (3, 4))
WIDTH, HEADS, POINTS = 32, 4, 3


class MSDeformAttnFunction(torch.autograd.Function):
    """As the compiled extension of Deformable DETR is called; without it there is no backward pass."""

    @staticmethod
    def forward(
        ctx, value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights, im2col_step
    ) -> Tensor:
        return reference.deformable_attention(value, value_spatial_shapes.tolist(), sampling_locations, attention_weights)


def multi_scale_deformable_attn_pytorch(value, value_spatial_shapes, sampling_locations, attention_weights) -> Tensor:
    """As mmcv calls what it has for CPUs."""
    return reference.deformable_attention(value, value_spatial_shapes.tolist(), sampling_locations, attention_weights)


MultiScaleDeformableAttnFunction = MSDeformAttnFunction


class _Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.sampling_offsets = nn.Linear(WIDTH, HEADS * len(SHAPES) * POINTS * 2)
        self.attention_weights = nn.Linear(WIDTH, HEADS * len(SHAPES) * POINTS)
        self.value_proj = nn.Linear(WIDTH, WIDTH)
        self.output_proj = nn.Linear(WIDTH, WIDTH)

    def sampled(self, query: Tensor, reference_points: Tensor, memory: Tensor, shapes: Tensor, padding: Tensor | None):
        B, Q, _ = query.shape
        value = self.value_proj(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        offsets = self.sampling_offsets(query).view(B, Q, HEADS, len(SHAPES), POINTS, 2)
        weights = self.attention_weights(query).view(B, Q, HEADS, -1).softmax(-1).view(B, Q, HEADS, len(SHAPES), POINTS)
        locations = reference_points[:, :, None, :, None] + offsets / shapes.flip(-1)[:, None]
        return value.view(B, -1, HEADS, WIDTH // HEADS), locations, weights


class MSDeformAttn(_Layers):
    """The interface of Deformable DETR, DINO and H-DETR."""

    def forward(
        self, query, reference_points, input_flatten, input_spatial_shapes, input_level_start_index, input_padding_mask=None
    ):
        value, locations, weights = self.sampled(query, reference_points, input_flatten, input_spatial_shapes, input_padding_mask)
        return self.output_proj(
            MSDeformAttnFunction.apply(value, input_spatial_shapes, input_level_start_index, locations, weights, 64)
        )


class MultiScaleDeformableAttention(_Layers):
    """The interface of mmcv and detrex: queries come first, and the result is added to them."""

    def forward(
        self, query, key=None, value=None, identity=None, query_pos=None, key_padding_mask=None, reference_points=None,
        spatial_shapes=None, level_start_index=None, **kwargs,
    ):  # fmt: skip
        sampled = self.sampled(
            query.transpose(0, 1), reference_points, value.transpose(0, 1), spatial_shapes, key_padding_mask
        )  # fmt: skip
        if sampled[0].is_cuda:
            output = MultiScaleDeformableAttnFunction.apply(
                sampled[0], spatial_shapes, level_start_index, sampled[1], sampled[2], 64
            )  # fmt: skip
        else:
            output = multi_scale_deformable_attn_pytorch(sampled[0], spatial_shapes, sampled[1], sampled[2])
        return self.output_proj(output).transpose(0, 1) + query


class Layer(nn.Module):
    def __init__(self, attention: nn.Module, name: str):
        super().__init__()
        self.add_module(name, attention)


class Transformer(nn.Module):
    """One encoder's layer and one decoder's, as DETRs are built of them."""

    def __init__(self, attention: type):
        super().__init__()
        self.encoder = Layer(attention(), "self_attn")
        self.decoder = Layer(attention(), "cross_attn")
        self.queries = nn.Embedding(5, WIDTH)
        self.places = nn.Embedding(5, 2)

    def forward(self, memory: Tensor, padding: Tensor) -> dict[str, Tensor]:
        B, S, _ = memory.shape
        shapes = torch.tensor(SHAPES)
        starts = torch.tensor([0, SHAPES[0][0] * SHAPES[0][1]])
        middles = torch.cat([_middles(*shape) for shape in SHAPES]).expand(B, S, 2)
        places = self.places.weight.sigmoid().expand(B, 5, 2)
        memory = self.attend(self.encoder.self_attn, memory, middles, memory, shapes, starts, padding)
        queries = self.queries.weight.expand(B, 5, WIDTH)
        return {"out": self.attend(self.decoder.cross_attn, queries, places, memory, shapes, starts, padding)}

    def attend(self, attention, query, reference_points, memory, shapes, starts, padding) -> Tensor:
        reference_points = reference_points[:, :, None].expand(-1, -1, len(SHAPES), -1)
        if isinstance(attention, MSDeformAttn):
            return attention(query, reference_points, memory, shapes, starts, padding)
        query, memory = query.transpose(0, 1), memory.transpose(0, 1)
        return attention(
            query, value=memory, reference_points=reference_points, spatial_shapes=shapes, level_start_index=starts,
            key_padding_mask=padding,
        ).transpose(0, 1)  # fmt: skip


def _middles(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack((x, y), -1).view(-1, 2)


def make(kind: str) -> Guest:
    """A model of the interface "MSDeformAttn" or "MultiScaleDeformableAttention", on two pictures, of which one has padding."""
    torch.manual_seed(0)
    model = Transformer({"MSDeformAttn": MSDeformAttn, "mmcv": MultiScaleDeformableAttention}[kind])
    tokens = sum(height * width for height, width in SHAPES)
    padding = torch.zeros(2, tokens, dtype=torch.bool)
    padding[1, 40:48] = True
    return Guest(model.eval(), {"memory": torch.randn(2, tokens, WIDTH), "padding": padding})


KINDS = ("MSDeformAttn", "mmcv")
