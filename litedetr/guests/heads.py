"""What a model of `transformers` would have said after each of its decoder layers, by its own heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from litedetr.trace import Trace

Heads = Callable[[Any, Trace], tuple[Tensor, Tensor]]
"""A forward pass's output and its trace -> logits (layers, Q, K) and boxes (layers + 1, Q, 4) cxcywh in [0, 1]."""


@contextmanager
def every_layer(model: nn.Module) -> Iterator[Heads]:
    """While the model runs: what its heads need to know. Afterwards: logits and boxes of all layers of the first picture."""
    kind = model.config.model_type
    if kind in ("d_fine", "deimv2"):
        corners: list[Tensor] = []
        with ExitStack() as undo:
            for head in set(model.model.decoder.bbox_embed):
                undo.callback(head.register_forward_hook(lambda _, args, output: corners.append(output)).remove)
            yield lambda output, trace: (_by_corners(model, output, corners), trace.boxes)
    elif kind in ("rf_detr", "lw_detr"):
        yield lambda output, trace: _from_one_reference(model, output)
    else:
        yield lambda output, trace: (output.intermediate_logits[0].detach().cpu(), trace.boxes)


def _by_corners(model: nn.Module, output: Any, corners: list[Tensor]) -> Tensor:
    """D-FINE's scores: those of a layer's queries, corrected by how sure the distances to the box's sides are, which add up from
    layer to layer. In evaluation the model computes the last layer's alone."""
    decoder, layers, so_far = model.model.decoder, [], torch.zeros(())
    for index, (states, change) in enumerate(zip(output.intermediate_hidden_states, corners, strict=True)):
        so_far = change + so_far.to(change.device)
        layers.append(decoder.lqe_layers[index](decoder.class_embed[index](states), so_far)[0])
    return torch.stack(layers).detach().cpu()


def _from_one_reference(model: nn.Module, output: Any) -> tuple[Tensor, Tensor]:
    """RF-DETR's and LW-DETR's: one head for all layers, and boxes relative to the box that all layers begin with."""
    states, start = output.intermediate_hidden_states[:, 0], output.init_reference_points[0]
    change = model.bbox_embed(states)
    boxes = torch.cat((change[..., :2] * start[:, 2:] + start[:, :2], change[..., 2:].exp() * start[:, 2:]), -1)
    return model.class_embed(states).detach().cpu(), torch.cat((start[None], boxes)).detach().cpu()
