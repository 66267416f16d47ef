"""Times the attention kernels of the CPU against PyTorch formulations of the same thing, in one run:

    python -m litedetr.bench.core

For use from elsewhere: `core_ratios(size, ...)` gives the figures as a list of `CoreRow`, `gradient_ratios(size, ...)` the
same for forward and backward together. Both are free of side effects but for the number of PyTorch's threads, which they
put back.

The two sides take turns, so that other work on the machine disturbs both alike. With one thread it is processor time that
counts, with more it is the clock on the wall.
"""

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from litedetr import ops
from litedetr.ops import native
from litedetr.timing import Contestant, Ratio, take_turns

Shapes = tuple[tuple[int, int], ...]

STRIDES = (8, 16, 32, 64)
POINTS = 4
LIMITS = {
    ("key-aware", "published", "avx512"): 1 / 50,
    ("key-aware", "published", "avx2"): 1 / 30,
    ("plain", "grid_sample", "avx512"): 1 / 20,
}
"""What the kernel may take at most, in parts of the other side's time."""


@dataclass(frozen=True)
class CoreRow:
    """One comparison of a kernel with a PyTorch formulation of the same attention.

    Attributes:
        kind: "key-aware" (the key is the value) or "plain".
        size: (height, width) of the photo; levels have the strides 8, 16, 32 and 64.
        queries: "full" (all tokens ask) or "high" (those of the three coarse levels).
        against: the other side: "published" (key-aware as its authors have it, see `key_aware_as_published`), "reference"
            (`litedetr.ops.reference`, where key and value are sampled once) or "grid_sample" (plain, as transformers has it).
        instructions: the kernel's instruction set: "portable", "avx2" or "avx512".
        dtype: of query, value and output: "float32" or "bfloat16". The other side runs in float32 always.
        locations: "near" (the query's own place and a few pixels around it on every level) or "uniform" (anywhere).
        gradients: forward and backward together, not the forward pass alone.
        threads: PyTorch's.
        milliseconds, peer_milliseconds: medians of the kernel and of the other side.
        ratio: median over the rounds of kernel / other side.
        lowest, highest: of the rounds' ratios.
        limit: what `ratio` may be at most, or None where nothing is asked.
    """

    kind: str
    size: tuple[int, int]
    queries: str
    against: str
    instructions: str
    dtype: str
    locations: str
    gradients: bool
    threads: int
    milliseconds: float
    peer_milliseconds: float
    ratio: float
    lowest: float
    highest: float
    limit: float | None


def core_ratios(
    size: tuple[int, int],
    *,
    kinds: Sequence[str] = ("key-aware", "plain"),
    queries: Sequence[str] = ("full", "high"),
    against: Sequence[str] | None = None,
    instructions: Sequence[str] = ("auto",),
    dtype: torch.dtype = torch.float32,
    locations: str = "near",
    threads: int = 1,
    rounds: int = 5,
    width: int = 256,
    heads: int = 8,
) -> list[CoreRow]:
    """The forward pass of the attention core, the kernel against PyTorch, side by side: one row per combination.

    Everything between the tensors that a model has and the output it wants is counted: reordering of the map, allocation,
    Python. A round is one run of the other side and several of each of the kernel's instruction sets, of which the median
    counts.

    Args:
        size: (height, width) of the photo in pixels.
        kinds: out of "key-aware" and "plain".
        queries: out of "full" and "high".
        against: other sides to measure; None takes "published" for key-aware and "grid_sample" for plain, as the limits do.
            A side that does not exist for a kind is left out.
        instructions: "auto" or the kernel's paths; one that this machine lacks raises `RuntimeError`.
        dtype: of query, value and output on the kernel's side.
        locations: "near" or "uniform".
        threads: PyTorch's threads on both sides.
        rounds: the ratio is a median over so many.
        width, heads: d and M of the attention.

    Raises:
        RuntimeError: the kernel cannot run here; the message says why.
    """
    return list(_rows(size, kinds, queries, against, instructions, dtype, locations, threads, rounds, width, heads, False))


def gradient_ratios(size: tuple[int, int], **options) -> list[CoreRow]:
    """As `core_ratios`, with the same options, for the forward and the backward pass together."""
    defaults = {
        "kinds": ("key-aware", "plain"), "queries": ("full", "high"), "against": None, "instructions": ("auto",),
        "dtype": torch.float32, "locations": "near", "threads": 1, "rounds": 5, "width": 256, "heads": 8,
    }  # fmt: skip
    return list(_rows(size, **(defaults | options), gradients=True))


def _rows(
    size, kinds, queries, against, instructions, dtype, locations, threads, rounds, width, heads, gradients
) -> Iterator[CoreRow]:
    if not native.available():
        raise RuntimeError(f"the native attention kernel is not available: {native.reason_unavailable()}")
    names = [native.instructions() if name == "auto" else name for name in instructions]
    shapes = levels(size)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for kind in kinds:
            for which in queries:
                tensors = inputs(shapes, which, width, heads, locations)
                for peer in against or ("published" if kind == "key-aware" else "grid_sample",):
                    if peer not in PEERS[kind]:
                        continue
                    slow = _runner(PEERS[kind][peer], kind, shapes, tensors, gradients)
                    rounded = {n: t.to(dtype) if n in ("query", "value") else t for n, t in tensors.items()}
                    fast = {name: _on_path(name, _runner(KERNELS[kind], kind, shapes, rounded, gradients)) for name in names}
                    times = take_turns({"peer": slow, **fast}, rounds)
                    for name in names:
                        ratio = Ratio.of(times[name], times["peer"], threads)
                        yield CoreRow(
                            kind, size, which, peer, name, str(dtype).removeprefix("torch."), locations, gradients, threads,
                            milliseconds=statistics.median(times[name].by(threads)),
                            peer_milliseconds=statistics.median(times["peer"].by(threads)),
                            ratio=ratio.value, lowest=ratio.lowest, highest=ratio.highest,
                            limit=None if gradients or dtype != torch.float32 else LIMITS.get((kind, peer, name)),
                        )  # fmt: skip
    finally:
        torch.set_num_threads(before)


def levels(size: tuple[int, int]) -> Shapes:
    """(height, width) of the feature levels of a photo, finest first."""
    return tuple((-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES)


def inputs(shapes: Shapes, queries: str, width: int, heads: int, locations: str, batch: int = 1) -> dict[str, Tensor]:
    """Random query, value, locations and weights of one call.

    Queries sit at the pixels of all levels ("full") or of all but the finest ("high"). "near" locations are theirs and a
    normal offset with a deviation of three pixels of each level.
    """
    random = torch.Generator().manual_seed(0)
    asking = shapes if queries == "full" else shapes[1:]
    Q, S = (sum(height * width for height, width in some) for some in (asking, shapes))
    points = (batch, Q, heads, len(shapes), POINTS)
    if locations == "near":
        centres = [
            torch.cartesian_prod((torch.arange(H) + 0.5) / H, (torch.arange(W) + 0.5) / W).view(-1, 2).flip(-1) for H, W in asking
        ]
        pixels = torch.tensor([(W, H) for H, W in shapes]).view(1, 1, 1, -1, 1, 2)
        places = torch.cat(centres).view(1, Q, 1, 1, 1, 2) + 3 * torch.randn(*points, 2, generator=random) / pixels
    elif locations == "uniform":
        places = torch.rand(*points, 2, generator=random)
    else:
        raise ValueError(f'locations: expected "near" or "uniform", got {locations!r}')
    return {
        "query": torch.randn(batch, Q, heads, width // heads, generator=random),
        "value": torch.randn(batch, S, heads, width // heads, generator=random),
        "locations": places,
        "weights": torch.randn(points, generator=random).flatten(3).softmax(-1).view(points),
    }


# ----------------------------------------------------------------------------------------- the other side


def _sampled(part: Tensor, size: tuple[int, int], grid: Tensor) -> Tensor:
    """(B, H*W, M, D) tokens of a level, (B*M, Q, P, 2) places in -1..1 -> (B*M, D, Q, P) samples."""
    B, _, M, D = part.shape
    image = part.flatten(2).transpose(1, 2).reshape(B * M, D, *size)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _levels_apart(maps: Tensor, shapes: Shapes) -> Sequence[Tensor]:
    return maps.split([H * W for H, W in shapes], dim=1)


def plain_by_grid_sample(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Plain deformable attention as transformers computes it without a kernel: grid_sample, stack, weighted sum."""
    B, Q, M, L, P, _ = locations.shape
    grids = 2 * locations - 1
    samples = [
        _sampled(part, size, grids[:, :, :, level].transpose(1, 2).flatten(0, 1))
        for level, (part, size) in enumerate(zip(_levels_apart(value, shapes), shapes, strict=True))
    ]
    weights = weights.transpose(1, 2).reshape(B * M, 1, Q, L * P)
    out = (torch.stack(samples, dim=-2).flatten(-2) * weights).sum(-1).view(B, -1, Q)
    return out.transpose(1, 2).contiguous()


def key_aware_as_published(query: Tensor, key: Tensor, value: Tensor, shapes: Shapes, locations: Tensor) -> Tensor:
    """Key-aware attention the way its authors published it: on every level one grid_sample of the values and one of the keys,
    also where the key is the value, then products of single rows. Counts of its operations say so, too: 2 x 4 x L x P x d per
    query in grid_sample.

    Args and result as `litedetr.ops.key_aware_deformable_attention` has them.
    """
    B, Q, M, D = query.shape
    grids = 2 * locations - 1
    sampled_keys, sampled_values = [], []
    parts = zip(_levels_apart(key, shapes), _levels_apart(value, shapes), shapes, strict=True)
    for level, (key_part, value_part, size) in enumerate(parts):
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampled_values.append(_sampled(value_part, size, grid))
        sampled_keys.append(_sampled(key_part, size, grid))
    keys, values = (  # (B*M*Q, L*P, D) each
        torch.stack(samples, dim=-2).flatten(-2).permute(0, 2, 3, 1).flatten(0, 1) for samples in (sampled_keys, sampled_values)
    )
    rows = query.permute(0, 2, 1, 3).flatten(0, 2).unsqueeze(-2)
    weights = (torch.matmul(rows, keys.transpose(-2, -1)) / D**0.5).softmax(-1)
    out = torch.matmul(weights, values).view(B, M, Q, D)
    return out.transpose(1, 2).flatten(2)


def _with(backend: str, function: Callable, *arguments) -> Tensor:
    with ops.use(backend):
        return function(*arguments)


# What each takes: query, value, shapes, locations, weights.
KERNELS = {
    "key-aware": lambda q, v, s, p, w: _with("native", ops.key_aware_deformable_attention, q, v, v, s, p),
    "plain": lambda q, v, s, p, w: _with("native", ops.deformable_attention, v, s, p, w),
}
PEERS = {
    "key-aware": {
        "reference": lambda q, v, s, p, w: _with("reference", ops.key_aware_deformable_attention, q, v, v, s, p),
        "published": lambda q, v, s, p, w: key_aware_as_published(q, v, v, s, p),
    },
    "plain": {
        "reference": lambda q, v, s, p, w: _with("reference", ops.deformable_attention, v, s, p, w),
        "grid_sample": lambda q, v, s, p, w: plain_by_grid_sample(v, s, p, w),
    },
}


# ------------------------------------------------------------------------------------------------- timing


def _runner(
    function: Callable[..., Tensor], kind: str, shapes: Shapes, tensors: dict[str, Tensor], gradients: bool
) -> Contestant:
    query, value, locations, weights = (t.detach().requires_grad_() for t in tensors.values())
    if not gradients:

        def forward() -> None:
            with torch.inference_mode():
                function(query, value, shapes, locations, weights)

        return forward
    used = [value, locations, weights] if kind == "plain" else [query, value, locations]
    cotangent = torch.ones_like(value[:, :1]).flatten(2).expand(-1, locations.shape[1], -1).contiguous()
    return lambda: torch.autograd.grad(function(query, value, shapes, locations, weights), used, cotangent)


def _on_path(name: str, run: Contestant) -> Contestant:
    def on_path() -> None:
        with native.use_instructions(name):
            run()

    return on_path


def main() -> None:
    """Writes all rows as a table."""
    paths = native.instructions().all[::-1]
    sys.stdout.write("| photo | queries | attention | locations | path | kernel ms | against | ms | times faster | asked |\n")
    for size in ((640, 640), (800, 1066)):
        rows = core_ratios(size, instructions=paths)
        rows += core_ratios(size, kinds=("key-aware",), against=("reference",))
        rows += core_ratios(size, locations="uniform")
        rows += core_ratios(size, dtype=torch.bfloat16)
        rows += gradient_ratios(size, rounds=3)
        for row in rows:
            path = row.instructions + (" bf16" if row.dtype == "bfloat16" else "")
            kind = row.kind + (", with gradients" if row.gradients else "")
            asked = f"{1 / row.limit:.0f}" if row.limit else ""
            cells = (
                "{} × {}".format(*row.size), row.queries, kind, row.locations, path, f"{row.milliseconds:.1f}", row.against,
                f"{row.peer_milliseconds:.0f}", f"{1 / row.ratio:.0f}", asked,
            )  # fmt: skip
            sys.stdout.write("| " + " | ".join(cells) + " |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
