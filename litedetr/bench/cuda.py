"""Times the CUDA kernels against their floors, the usual kernel's way of working, and PyTorch formulations:

    python -m litedetr.bench.cuda

For use from elsewhere: `times(size, ...)` gives the figures as a list of `CudaRow`. A GPU's own time is measured: many calls
in one CUDA graph, by CUDA events, so that what starting a kernel costs the processor does not count.
"""

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from litedetr import ops
from litedetr.bench.core import PEERS, POINTS, inputs, levels
from litedetr.ops import cuda, cuda_build
from litedetr.ops.cuda_build import KernelVariant
from litedetr.ops.cuda_launch import Gpu, Launch

CALLS = 20
"""In one graph; the maps fit the GPU's cache and stay there, as they do between a model's layers."""

L1_BYTES_A_SECOND, L2_BYTES_A_SECOND = 29.2e12, 5.5e12
"""An H200's: what the floors are reckoned with."""

USUAL_SOURCE = r"""
struct Level { int height, width, start; };
struct Call {
  const void *query, *key; const float* value; const float *locations, *weights; float* out; float* weights_out;
  const void *a, *b, *c, *d, *e; void *f, *g;
  int queries, heads, channels, levels, points, tokens, tile_x, tile_y, tile_heads, batch;
  float scale;
  Level level[16];
};
// A thread for every picture, query, head and channel; each works out every point's corners for itself and reads 4 bytes.
extern "C" __global__ void usual_plain_f32(const __grid_constant__ Call p) {
  const long long index = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= static_cast<long long>(p.batch) * p.queries * p.heads * p.channels) return;
  const int c = index % p.channels, m = index / p.channels % p.heads;
  const long long row = index / p.channels, b = row / p.heads / p.queries;
  float sum = 0.0f;
  for (int l = 0; l < p.levels; l++) {
    const int height = p.level[l].height, width = p.level[l].width;
    const float* map = p.value + ((b * p.tokens + p.level[l].start) * p.heads + m) * p.channels + c;
    for (int i = 0; i < p.points; i++) {
      const long long at = (row * p.levels + l) * p.points + i;
      const float x = p.locations[2 * at] * width - 0.5f, y = p.locations[2 * at + 1] * height - 0.5f;
      if (!(x > -1.0f && y > -1.0f && x < width && y < height)) continue;
      const int left = floorf(x), top = floorf(y);
      const float across = x - left, down = y - top;
      float corner[4] = {};
      for (int k = 0; k < 4; k++) {
        const int column = left + (k & 1), line = top + (k >> 1);
        if (column >= 0 && line >= 0 && column < width && line < height)
          corner[k] = map[static_cast<long long>(line * width + column) * p.heads * p.channels];
      }
      sum += p.weights[at] * ((1 - down) * ((1 - across) * corner[0] + across * corner[1]) +
                              down * ((1 - across) * corner[2] + across * corner[3]));
    }
  }
  p.out[index] = sum;
}
"""


@dataclass(frozen=True)
class CudaRow:
    """One kernel's time.

    Attributes:
        kind: "key-aware" (the key is the value) or "plain".
        size: (height, width) of the photo; levels have the strides 8, 16, 32 and 64.
        queries: "full" (all tokens ask) or "high" (those of the three coarse levels).
        dtype: of query, value and output.
        what: "forward", "forward and backward", or what was measured instead of the kernel as it is.
        microseconds: median over the rounds.
        lowest, highest: of the rounds.
        from_l1, from_l2: what an H200 needs at least to read all corners from its first or second cache, in microseconds.
    """

    kind: str
    size: tuple[int, int]
    queries: str
    dtype: str
    what: str
    microseconds: float
    lowest: float
    highest: float
    from_l1: float
    from_l2: float


def times(
    size: tuple[int, int],
    *,
    kinds: Sequence[str] = ("key-aware", "plain"),
    queries: Sequence[str] = ("full", "high"),
    dtypes: Sequence[torch.dtype] = (torch.float16, torch.bfloat16, torch.float32),
    rounds: int = 9,
) -> Iterator[CudaRow]:
    """The kernels and everything they are compared with, on the current GPU.

    Raises:
        RuntimeError: the kernels cannot run here; the message says why.
    """
    shapes = levels(size)
    for which in queries:
        tensors = {name: tensor.cuda() for name, tensor in inputs(shapes, which, 256, 8, "near").items()}
        gathers = tensors["locations"][..., 0].numel() * 4 * tensors["value"].shape[-1]  # numbers read
        for kind in kinds:
            for dtype in dtypes:
                rounded = {n: t.to(dtype) if n in ("query", "value") else t for n, t in tensors.items()}
                for what, call in _calls(kind, shapes, rounded):
                    measured = _microseconds(call, rounds)
                    size_in_bytes = gathers * dtype.itemsize
                    yield CudaRow(
                        kind, size, which, str(dtype).removeprefix("torch."), what,
                        statistics.median(measured), min(measured), max(measured),
                        1e6 * size_in_bytes / L1_BYTES_A_SECOND, 1e6 * size_in_bytes / L2_BYTES_A_SECOND,
                    )  # fmt: skip


def _calls(kind: str, shapes, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names, and functions that put the work on the current stream."""
    query, value, locations, weights = tensors.values()

    def attend(query: Tensor, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        if kind == "plain":
            return ops.deformable_attention(value, shapes, locations, weights)
        return ops.key_aware_deformable_attention(query, value, value, shapes, locations)

    with ops.use("cuda"):
        out = attend(*tensors.values())
    yield "forward", lambda: attend(*tensors.values())

    leaves = [tensor.clone().requires_grad_() for tensor in tensors.values()]
    wanted = leaves[1:] if kind == "plain" else leaves[:3]
    yield "forward and backward", lambda: torch.autograd.grad(attend(*leaves), wanted, torch.ones_like(out))

    gpu = cuda.gpu(value.device)
    mode = "plain" if kind == "plain" else "shared"
    given = {"weights": weights} if kind == "plain" else {"query": query}
    for lanes, vectors, tile_heads in ((4, 1, 1), (2, 2, 0), (2, 2, 1)):
        variant = KernelVariant(mode, cuda.DTYPES[value.dtype], lanes, vectors, True)
        gpu.load(variant)
        yield (
            f"forward with {lanes} lanes a pair and {2**tile_heads} heads a block",
            lambda variant=variant, tile_heads=tile_heads: gpu.run(
                "forward", variant, shapes, tile_heads, value=value, locations=locations, out=out, **given
            ),
        )
    if value.dtype == torch.float32 and kind == "plain":
        yield "the usual kernel's way", lambda: usual_plain(gpu, value, shapes, locations, weights)
    peer = PEERS[kind]["grid_sample" if kind == "plain" else "published"]
    yield "PyTorch", lambda: peer(query, value, shapes, locations.to(value.dtype), weights.to(value.dtype))


def usual_plain(gpu: Gpu, value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Plain attention in float32 as the usual kernel does it, written for this comparison."""
    if not gpu.has("usual_plain_f32"):
        options = [f"--gpu-architecture=sm_{gpu.capability[0]}{gpu.capability[1]}", "--std=c++17"]
        gpu.load_image(cuda_build.nvrtc().compile(USUAL_SOURCE, options, "CUBIN"), ["usual_plain_f32"])
    B, Q, M, L, P, _ = locations.shape
    S, D = value.shape[1], value.shape[3]
    out = value.new_empty(B, Q, M * D)
    call = Launch(
        queries=Q, heads=M, channels=D, levels=L, points=P, tokens=S, query_level=B,
        value=value.data_ptr(), locations=locations.data_ptr(), weights=weights.data_ptr(), out=out.data_ptr(),
    )  # fmt: skip
    start = 0
    for level, (height, width) in zip(call.level, shapes, strict=False):
        level.height, level.width, level.start = height, width, start
        start += height * width
    gpu.start("usual_plain_f32", (-(-out.numel() // 256), 1, 1), 256, call)
    return out


def _microseconds(call: Callable[[], object], rounds: int) -> list[float]:
    """Of one call, in each round."""
    for _ in range(3):
        call()  # compiles, loads, and lets PyTorch choose
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    graph.replay()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    measured = []
    for _ in range(rounds):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        measured.append(1e3 * start.elapsed_time(end) / CALLS)
    return measured


def main() -> int:
    """Writes all rows as a table; returns 1 where there is no GPU."""
    reason = cuda.reason_unavailable()
    if reason is not None:
        sys.stderr.write(f"nothing was measured: {reason}\n")
        return 1
    sys.stdout.write(f"{torch.cuda.get_device_name()}, {POINTS} points, microseconds\n")
    sys.stdout.write("| photo | queries | attention | dtype | what | µs | lowest | highest | floor L1 | floor L2 |\n")
    for size in ((640, 640), (800, 1066)):
        for row in times(size):
            cells = (
                "{} × {}".format(*row.size), row.queries, row.kind, row.dtype, row.what, f"{row.microseconds:.1f}",
                f"{row.lowest:.1f}", f"{row.highest:.1f}", f"{row.from_l1:.1f}", f"{row.from_l2:.1f}",
            )  # fmt: skip
            sys.stdout.write("| " + " | ".join(cells) + " |\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
