"""Times the CPU kernel against the reference, in one run:

    python -m litedetr.ops.benchmark [threads]

The two take turns, and the least of several runs counts, so that other work on the machine disturbs both alike. With one
thread it is processor time, with more it is the clock on the wall.
"""

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from litedetr import ops

Shapes = tuple[tuple[int, int], ...]

CASES: dict[str, tuple[Shapes, int, int, int]] = {
    # name: levels, batch, queries, channels of a head; 8 heads, 4 points
    "training, 320 x 320, batch 8": (((40, 40), (20, 20), (10, 10), (5, 5)), 8, 2125, 16),
    "640 x 640, all queries": (((80, 80), (40, 40), (20, 20), (10, 10)), 1, 8500, 32),
    "640 x 640, coarse queries": (((80, 80), (40, 40), (20, 20), (10, 10)), 1, 2100, 32),
    "640 x 640, 300 queries": (((80, 80), (40, 40), (20, 20), (10, 10)), 1, 300, 32),
}
HEADS, POINTS = 8, 4


def inputs(shapes: Shapes, batch: int, queries: int, channels: int) -> dict[str, Tensor]:
    """Queries at the pixels of the coarsest levels, each sampling around itself, a few pixels away on every level."""
    random = torch.Generator().manual_seed(0)
    centres = [
        torch.cartesian_prod((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width).flip(-1)
        for height, width in shapes
    ]
    points = (batch, queries, HEADS, len(shapes), POINTS)
    sizes = torch.tensor([(width, height) for height, width in shapes]).view(1, 1, 1, -1, 1, 2)
    offsets = 3 * torch.randn(*points, 2, generator=random) / sizes
    tokens = sum(height * width for height, width in shapes)
    return {
        "query": torch.randn(batch, queries, HEADS, channels, generator=random),
        "value": torch.randn(batch, tokens, HEADS, channels, generator=random),
        "locations": torch.cat(centres)[-queries:].view(1, -1, 1, 1, 1, 2) + offsets,
        "weights": torch.rand(points, generator=random).flatten(3).softmax(-1).view(points),
    }


def passes(kind: str, shapes: Shapes, tensors: dict[str, Tensor]) -> tuple[Callable[[], None], Callable[[], None]]:
    """The forward pass alone, and forward and backward, of one kind of attention."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    query, value, locations, weights = leaves.values()

    def attend() -> Tensor:
        if kind == "plain":
            return ops.deformable_attention(value, shapes, locations, weights)
        return ops.key_aware_deformable_attention(query, value, value, shapes, locations)

    used = [value, locations, weights] if kind == "plain" else [query, value, locations]
    with torch.no_grad():
        cotangent = torch.randn_like(attend())

    def forward() -> None:
        with torch.no_grad():
            attend()

    return forward, lambda: torch.autograd.grad(attend(), used, cotangent)


def milliseconds(function: Callable[[], None], clock: Callable[[], float]) -> float:
    """What one run takes."""
    start = clock()
    function()
    return 1e3 * (clock() - start)


def main(threads: int) -> None:
    """Writes one line per case."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    sys.stdout.write("| case | attention | kernel | reference | ratio | kernel, with gradients | reference | ratio |\n")
    for name, (shapes, batch, queries, channels) in CASES.items():
        tensors = inputs(shapes, batch, queries, channels)
        for kind in ("key-aware", "plain"):
            functions = passes(kind, shapes, tensors)
            best = {}
            for turn in range(3):
                for backend, repeats in (("native", 4), ("reference", 1)):
                    with ops.use(backend):
                        for i, function in enumerate(functions):
                            times = [milliseconds(function, clock) for _ in range(repeats)]
                            best[backend, i] = min(times + ([best[backend, i]] if turn else []))
            cells = [name, kind]
            for i in range(2):
                fast, slow = best["native", i], best["reference", i]
                cells += [f"{fast:.1f}", f"{slow:.0f}", f"{slow / fast:.0f}"]
            sys.stdout.write("| " + " | ".join(cells) + " |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
