"""What one query's sampling points did for the result: run what follows again without some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from litedetr.detector import Detector
from litedetr.encoder import InterleavedEncoder
from litedetr.ops import reference
from litedetr.output import LayerOutput
from litedetr.pyramid import FeaturePyramid
from litedetr.steps import AttentionStep
from litedetr.trace import Trace

BATCH = 12
"""Variants that run together."""


def contributions(step: AttentionStep, row: int) -> Tensor:
    """What every point adds to the attention module's output for one query: (M, L, P, d). They and the output projection's bias
    sum to the output."""
    _, M, L, P = step.weights.shape
    D = step.value.shape[-1]
    samples = reference.sample(step.value[None].float(), step.spatial_shapes, step.locations[None, [row]].float())
    weighted = samples[0, 0] * step.weights[row].float().reshape(M, L * P, 1)  # (M, L*P, D)
    columns = step.output_weight.float().unflatten(1, (M, D))  # (d, M, D)
    return torch.einsum("mpc,dmc->mpd", weighted, columns).unflatten(1, (L, P))


@torch.inference_mode()
def rerun(
    detector: Detector,
    trace: Trace,
    index: int,
    row: int,
    removed: Tensor,
    report: Callable[[float], None] = lambda share: None,
) -> LayerOutput:
    """The last layer's output if one query's attention had lacked something at one step; everything after it is computed again.

    Args:
        detector: the one that made the trace (of one photo without padding), or its plain form where it was optimized.
        index, row: the step among all of the trace's, and the query's row in it.
        removed: (V, d) what each variant takes from the attention module's output for this query.
        report: told the share that is done, in [0, 1], before each batch.

    Returns:
        logits (V, Q, K) and boxes (V, Q, 4) cxcywh in [0, 1].
    """
    if not isinstance(detector.encoder, InterleavedEncoder):
        raise ValueError("expected a plain detector, got one that was optimized for inference; give the one it was made from")
    neck = detector.neck
    pyramid = layout(trace, neck.level_embed, neck.temperature, neck.shift)
    again = _from_encoder if trace.steps[index].kind != "decoder" else _from_decoder
    parts = []
    for start in range(0, len(removed), BATCH):
        report(start / len(removed))
        parts.append(again(detector, trace, index, row, removed[start : start + BATCH], pyramid))
    return LayerOutput(*(torch.cat([getattr(part, name) for part in parts]).float() for name in ("logits", "boxes")))


def layout(trace: Trace, level_embed: Tensor, temperature: float = 20.0, shift: float = 0.0) -> FeaturePyramid:
    """The pyramid that went into the encoder of a traced photo; positions as `FeaturePyramid.from_maps` makes them."""
    maps = [torch.zeros(1, level_embed.shape[1], *shape) for shape in trace.spatial_shapes]
    return FeaturePyramid.from_maps(maps, level_embed, None, temperature, shift).with_tokens(trace.tokens[None].float())


def _from_encoder(
    detector: Detector, trace: Trace, index: int, row: int, removed: Tensor, pyramid: FeaturePyramid
) -> LayerOutput:
    """The token's own update again, which concerns no other token of its step; then later steps, selection and decoder."""
    step, layer = trace.steps[index], detector.encoder.layers[index]
    token = step.first_query + row
    low_tokens = pyramid.first_token(detector.encoder.schedule.low)
    network = layer.low_ffn if layer.low_ffn is not None and token < low_tokens else layer.ffn
    attended = step.output[row].float() - removed  # (V, d)
    before = trace.memory(index - 1)[token].float()
    memory = trace.memory(index).float().expand(len(removed), -1, -1).clone()  # (V, S, d)
    memory[:, token] = network(layer.norm(before + attended))
    if index + 1 < len(detector.encoder.layers):
        memory = detector.encoder.with_steps(detector.encoder.steps[index + 1 :])(_batched(pyramid, memory))
    layouts = _batched(pyramid, memory)
    selected = detector.selection(memory, layouts)
    states, boxes = detector.decoder(
        selected.content, selected.references, memory, layouts, detector.heads.box_heads(), selected.attention_mask, None,
        selected.positions,
    )  # fmt: skip
    return detector.heads(states, boxes)[-1]


def _from_decoder(
    detector: Detector, trace: Trace, index: int, row: int, removed: Tensor, pyramid: FeaturePyramid
) -> LayerOutput:
    """The decoder from this layer on."""
    first = index - len(trace.encoder_steps)
    V, step = len(removed), trace.steps[index]
    memory = trace.memory(len(trace.encoder_steps) - 1)
    memory = memory.expand(V, -1, -1)
    content = trace.queries if first == 0 else trace.steps[index - 1].tokens
    with _without(detector.decoder.layers[first].attention, row, removed):
        states, boxes = detector.decoder(
            content.expand(V, -1, -1),
            step.reference_points[:, 0].logit().expand(V, -1, -1),
            memory,
            _batched(pyramid, memory),
            detector.heads.box_heads()[first:],
            None,
            None,
            None if trace.query_positions is None else trace.query_positions.expand(V, -1, -1),
            first,
        )
    return detector.heads(states, boxes)[-1]


@contextmanager
def _without(attention: nn.Module, row: int, removed: Tensor) -> Iterator[None]:
    """The attention module's output for one query lacks `removed` (V, d)."""

    def lessen(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, row] -= removed
        return output

    hook = attention.register_forward_hook(lessen)
    try:
        yield
    finally:
        hook.remove()


def _batched(pyramid: FeaturePyramid, memory: Tensor) -> FeaturePyramid:
    """The layout of one photo for all variants."""
    V = len(memory)
    many = {name: getattr(pyramid, name).expand(V, *[-1] * (getattr(pyramid, name).ndim - 1)) for name in _PER_PHOTO}
    return FeaturePyramid(tokens=memory, shapes=pyramid.shapes, **many)


_PER_PHOTO = ("positions", "mask", "valid_ratios", "reference_points")
