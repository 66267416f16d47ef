"""The CUDA kernel's own time, without what starting it costs: many calls in one CUDA graph, timed by CUDA events."""

from __future__ import annotations

import torch

from litedetr import ops
from litedetr.ops.benchmark import inputs, levels

CALLS = 20
"""In one graph; the maps fit the GPU's cache and stay there, as they do between a model's layers."""


def microseconds(size: tuple[int, int], width: int, heads: int, rounds: int) -> tuple[float, ...]:
    """Key-aware attention (the key is the value) in float16, forward, every token asks: microseconds of a call, each round's.

    Raises:
        RuntimeError: the kernel cannot run here; the message says why.
    """
    shapes = levels(size)
    tensors = {name: tensor.cuda() for name, tensor in inputs(shapes, "full", width, heads, "near").items()}
    query, value, locations = tensors["query"].half(), tensors["value"].half(), tensors["locations"]
    with torch.inference_mode(), ops.use("cuda"):
        ops.key_aware_deformable_attention(query, value, value, shapes, locations)  # compiles
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(CALLS):
                ops.key_aware_deformable_attention(query, value, value, shapes, locations)
        graph.replay()
        return tuple(_replay(graph) for _ in range(rounds))


def _replay(graph: torch.cuda.CUDAGraph) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return 1e3 * start.elapsed_time(end) / CALLS
