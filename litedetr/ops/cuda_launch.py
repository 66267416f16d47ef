"""Starting the CUDA kernels: the driver through ctypes, one GPU with its loaded kernels, and how the work is cut into blocks."""

import contextlib
import ctypes
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from litedetr.ops import cuda_build
from litedetr.ops.cuda_build import KernelVariant

LARGEST_LEVELS = 16
LARGEST_BLOCK = 256  # threads
SMALLEST_BLOCK = 32


class CudaError(RuntimeError):
    """The driver refused something; the message has its words."""


class _Level(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("height", "width", "start")]


class Launch(ctypes.Structure):
    """`Attention` of ext/attention.cu, field by field."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "locations", "weights", "out", "weights_out")),
        *((name, ctypes.c_void_p) for name in ("grad_out", "grad_weights_out", "grad_query", "grad_key", "grad_value")),
        *((name, ctypes.c_void_p) for name in ("grad_locations", "grad_weights")),
        *((name, ctypes.c_int32) for name in ("queries", "heads", "channels", "levels", "points", "tokens")),
        *((name, ctypes.c_int32) for name in ("tile_x", "tile_y", "tile_heads", "query_level")),
        ("scale", ctypes.c_float),
        ("level", _Level * LARGEST_LEVELS),
    ]


@dataclass(frozen=True)
class Cut:
    """How a call's queries are cut into blocks of 2^tile_x * 2^tile_y queries and 2^tile_heads heads.

    `blocks` counts tiles of queries, groups of heads, and pictures.
    """

    tile_x: int
    tile_y: int
    tile_heads: int
    query_level: int
    blocks: tuple[int, int, int]
    threads: int


def cut(
    batch: int, queries: int, heads: int, lanes: int, shapes: Sequence[tuple[int, int]], multiprocessors: int, tile_heads: int = 0
) -> Cut:
    """Large blocks, as their queries share what they read; smaller ones where those would leave the GPU idle.

    Queries as many as the pixels of the last levels are taken to be these pixels: neighbours in the picture then lie in one
    block. The result is the same whether they are or not.
    """
    first = len(shapes)
    pixels = 0
    while first > 0 and pixels < queries:
        first -= 1
        pixels += shapes[first][0] * shapes[first][1]
    if pixels != queries:
        first = len(shapes)
    threads = LARGEST_BLOCK
    while True:
        bits = (threads // lanes).bit_length() - 1 - tile_heads
        tile_y = bits // 2
        tile_x = bits - tile_y
        if first < len(shapes):
            tiles = sum(-(-width // 2**tile_x) * -(-height // 2**tile_y) for height, width in shapes[first:])
        else:
            tiles = -(-queries // 2**bits)
        blocks = tiles, -(-heads // 2**tile_heads), batch
        smaller = threads // 2
        if math.prod(blocks) >= 2 * multiprocessors or smaller < SMALLEST_BLOCK or smaller // lanes < 2**tile_heads:
            return Cut(tile_x, tile_y, tile_heads, first, blocks, threads)
        threads = smaller


class Driver:
    """The functions of the CUDA driver that are needed here."""

    def __init__(self, library: ctypes.CDLL):
        self._library = library
        self.expect(library.cuInit(0))

    def expect(self, status: int) -> None:
        """Raises `CudaError` unless the status is success."""
        if status != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            raise CudaError(f"CUDA error {status}: {(text.value or b'unknown').decode()}")

    def context(self, index: int) -> ctypes.c_void_p:
        """The context that PyTorch uses too."""
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.expect(self._library.cuDeviceGet(ctypes.byref(device), index))
        self.expect(self._library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
        return context

    @contextlib.contextmanager
    def within(self, context: ctypes.c_void_p) -> Iterator[None]:
        """Everything inside concerns this context, whichever the thread was in before."""
        self.expect(self._library.cuCtxPushCurrent_v2(context))
        try:
            yield
        finally:
            before = ctypes.c_void_p()
            self.expect(self._library.cuCtxPopCurrent_v2(ctypes.byref(before)))

    def load(self, image: bytes, names: Sequence[str]) -> list[ctypes.c_void_p]:
        """The named functions of a cubin or a PTX text, in the present context."""
        module, functions = ctypes.c_void_p(), [ctypes.c_void_p() for _ in names]
        relaxed = ctypes.c_int(2)  # while a graph is being captured, loading is frowned upon unless one says it is meant
        self.expect(self._library.cuThreadExchangeStreamCaptureMode(ctypes.byref(relaxed)))
        try:
            self.expect(self._library.cuModuleLoadData(ctypes.byref(module), image))
            for name, function in zip(names, functions, strict=True):
                self.expect(self._library.cuModuleGetFunction(ctypes.byref(function), module, name.encode()))
        finally:
            self.expect(self._library.cuThreadExchangeStreamCaptureMode(ctypes.byref(relaxed)))
        return functions

    def launch(self, function: ctypes.c_void_p, blocks: Sequence[int], threads: int, stream: int, call: ctypes.Structure) -> None:
        """Puts one kernel on a stream; the structure is copied at once."""
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(call))
        self.expect(self._library.cuLaunchKernel(function, *blocks, threads, 1, 1, 0, ctypes.c_void_p(stream), parameters, None))


class Gpu:
    """One GPU and the kernels that have been loaded into it.

    Attributes:
        device: where its tensors are.
        capability: its compute capability.
        multiprocessors: how many it has.
    """

    def __init__(self, driver: Driver, device: torch.device, capability: tuple[int, int], multiprocessors: int):
        self.device, self.capability, self.multiprocessors = device, capability, multiprocessors
        self._driver = driver
        self._context = driver.context(device.index or 0)
        self._functions: dict[str, ctypes.c_void_p] = {}

    def load(self, variant: KernelVariant) -> Path:
        """Compiles a variant unless that has been done, and loads it; returns the file that keeps it."""
        image, file = cuda_build.compiled(variant, self.capability)
        self.load_image(image, [variant.kernel(direction) for direction in ("forward", "backward")])
        return file

    def load_image(self, image: bytes, names: Sequence[str]) -> None:
        """Loads the named kernels out of a cubin or a PTX text."""
        with self._driver.within(self._context):
            self._functions.update(zip(names, self._driver.load(image, names), strict=True))

    def has(self, name: str) -> bool:
        """Whether a kernel of this name has been loaded."""
        return name in self._functions

    def drop(self, variant: KernelVariant) -> None:
        """Never runs a variant again."""
        self._functions.pop(variant.kernel("forward"), None)

    def stream(self) -> int:
        """PyTorch's current stream on this GPU."""
        return torch.cuda.current_stream(self.device).cuda_stream

    def run(
        self,
        direction: str,
        variant: KernelVariant,
        shapes: Sequence[tuple[int, int]],
        tile_heads: int = 0,
        **tensors: Tensor | None,
    ) -> None:
        """Starts one kernel; every tensor is contiguous, on this GPU, and begins at a multiple of 16 bytes."""
        value, locations = tensors["value"], tensors["locations"]
        B, Q, M, L, P, _ = locations.shape
        S, D = value.shape[1], value.shape[3]
        work = cut(B, Q, M, variant.lanes, shapes, self.multiprocessors, tile_heads)
        levels, start = (_Level * LARGEST_LEVELS)(), 0
        for level, (height, width) in zip(levels, shapes, strict=False):
            level.height, level.width, level.start = height, width, start
            start += height * width
        call = Launch(
            queries=Q, heads=M, channels=D, levels=L, points=P, tokens=S, scale=D**-0.5, level=levels,
            tile_x=work.tile_x, tile_y=work.tile_y, tile_heads=work.tile_heads, query_level=work.query_level,
            **{name: tensor.data_ptr() for name, tensor in tensors.items() if tensor is not None},
        )  # fmt: skip
        self.start(variant.kernel(direction), work.blocks, work.threads, call)

    def start(self, name: str, blocks: Sequence[int], threads: int, call: ctypes.Structure) -> None:
        """Puts a loaded kernel, which takes one structure, on the current stream."""
        with self._driver.within(self._context):
            self._driver.launch(self._functions[name], blocks, threads, self.stream(), call)
