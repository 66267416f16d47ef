"""Compiles the CUDA kernels: by themselves on first use, or ahead of time, also on a machine without a GPU:

    python -m litedetr.ops.cuda_build 90 --channels 32 --types f16 f32
    python -m litedetr.ops.cuda_build --ptx ext/attention.ptx

The compiler is NVRTC, a library that PyTorch's CUDA builds bring with them; no nvcc is needed. Machine code lands in
`$LITEDETR_CACHE` (default: ~/.cache/litedetr) under a name made of a hash of everything it depends on. The second command
writes code for every GPU since compute capability 7.5, which the driver translates: it is used where NVRTC is missing.
"""

import argparse
import ctypes
import functools
import hashlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from litedetr.ops.library import BuildError, cache_folder, intact, keep, source_folder

MODES = ("plain", "shared", "separate")
"""Plain attention; key-aware with the value as key; key-aware with a key of its own."""

TYPES = ("f32", "f16", "bf16")

OLDEST = (7, 5)
"""The compute capability of the oldest GPUs that the kernels are for."""

LARGEST_CHANNELS = 512

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KernelVariant:
    """One pair of kernels, forward and backward, as compiled: `lanes` threads a query and head, 8 * `vectors` channels each."""

    mode: str
    type: str
    lanes: int
    vectors: int
    whole: bool

    @classmethod
    def of(cls, mode: str, type: str, channels: int) -> "KernelVariant":
        """The variant for heads of so many channels, at most `LARGEST_CHANNELS`."""
        eights = -(-channels // 8)
        lanes = 1
        while lanes < min(eights, 32):
            lanes *= 2
        return cls(mode, type, lanes, -(-eights // lanes), channels % 8 == 0)

    def kernel(self, direction: str) -> str:
        """The name of the "forward" or "backward" kernel."""
        return f"attention_{direction}_{self.mode}_{self.type}_{self.lanes}_{self.vectors}_{str(self.whole).lower()}"

    def options(self) -> list[str]:
        """What tells the source to hold this variant alone."""
        values = (str(value).lower() for value in astuple(self))
        return [
            f"-DONE_{name}={value}" for name, value in zip(("MODE", "TYPE", "LANES", "VECTORS", "WHOLE"), values, strict=True)
        ]


@functools.cache
def source() -> str:
    """The kernels' source, in one text."""
    text = (source_folder() / "attention.cu").read_text()
    return re.sub(r'#include "(\w+\.cuh)"', lambda match: (source_folder() / match[1]).read_text(), text)


class Nvrtc:
    """NVIDIA's run-time compiler."""

    def __init__(self, library: ctypes.CDLL):
        self._library = library
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._expect(library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = (major.value, minor.value)
        self._expect(library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        numbers = (ctypes.c_int * count.value)()
        self._expect(library.nvrtcGetSupportedArchs(numbers))
        self.capabilities = sorted(divmod(number, 10) for number in numbers)

    def _expect(self, status: int) -> None:
        if status != 0:
            self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
            raise BuildError(f"NVRTC failed: {self._library.nvrtcGetErrorString(status).decode()}")

    def compile(self, source: str, options: Sequence[str], result: str) -> bytes:
        """Compiles to "CUBIN" (for an `sm_` architecture) or to "PTX".

        Raises:
            BuildError: with the compiler's own complaint.
        """
        library, program = self._library, ctypes.c_void_p()
        self._expect(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"attention.cu", 0, None, None))
        try:
            arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if library.nvrtcCompileProgram(program, len(options), arguments) != 0:
                raise BuildError(f"NVRTC could not compile attention.cu: {self._get(program, 'ProgramLog').decode()[-2000:]}")
            return self._get(program, result)
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    def _get(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._expect(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self._expect(getattr(self._library, f"nvrtcGet{what}")(program, text))
        return text.raw


def nvrtc() -> Nvrtc:
    """The compiler that PyTorch brought, or the one of an installed CUDA toolkit.

    Raises:
        BuildError: there is none.
    """
    for name in _nvrtc_names():
        try:
            for part in sorted(Path(name).parent.glob("libnvrtc-builtins.so.*")) if "/" in name else ():
                ctypes.CDLL(str(part))  # it looks for this by name, and not always beside itself
            return Nvrtc(ctypes.CDLL(name))
        except OSError:
            continue
    raise BuildError("NVRTC was not found; install a CUDA build of PyTorch, or pip install nvidia-cuda-nvrtc")


def _nvrtc_names() -> list[str]:
    import torch

    major = (torch.version.cuda or "13").split(".")[0]
    names = [f"libnvrtc.so.{major}"]  # loaded with PyTorch, or where the system looks
    for folder in sys.path:
        names += sorted(map(str, Path(folder or ".").glob(f"nvidia/*/lib/libnvrtc.so.{major}")))
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            names.append(str(Path(os.environ[variable]) / "lib64" / f"libnvrtc.so.{major}"))
    return [*names, f"/usr/local/cuda/lib64/libnvrtc.so.{major}", "libnvrtc.so"]


def options(variant: KernelVariant, architecture: str) -> list[str]:
    """What NVRTC is told."""
    return [f"--gpu-architecture={architecture}", "--std=c++17", "-DTHREADS=256", *variant.options()]


def compiled(variant: KernelVariant, capability: tuple[int, int]) -> tuple[bytes, Path]:
    """The code of a variant for a GPU, and the file that keeps it; compiles in seconds unless that has been done.

    Raises:
        BuildError: no compiler and no prepared PTX, no source, or the compiler's own complaint.
    """
    if capability < OLDEST:
        raise BuildError(f"the kernels need compute capability {_dotted(OLDEST)}; this GPU has {_dotted(capability)}")
    try:
        compiler = nvrtc()
    except BuildError as error:
        prepared = source_folder() / "attention.ptx"
        if not prepared.is_file() or variant.kernel("forward").encode() not in prepared.read_bytes():
            raise BuildError(f"{error}; {prepared} does not hold {variant.kernel('forward')} either") from error
        text = prepared.read_bytes() + b"\0"
        return text, cache_folder() / f"attention-{hashlib.sha256(text).hexdigest()[:20]}-{variant.kernel('any')}.ptx"
    exact = capability in compiler.capabilities
    if not exact:  # a GPU newer than the compiler: the driver translates
        capability = max(known for known in compiler.capabilities if known < capability)
    name = f"{'sm' if exact else 'compute'}_{capability[0]}{capability[1]}"
    result = "CUBIN" if exact else "PTX"
    told = options(variant, name)
    digest = hashlib.sha256("\0".join((source(), *told, str(compiler.version))).encode()).hexdigest()[:20]
    file = cache_folder() / f"attention-{digest}.{result.lower()}"
    if not intact(file):
        _log.info("compiling %s for %s; this happens once and takes seconds", variant.kernel("*"), name)
        _write(file, compiler.compile(source(), told, result))
    return file.read_bytes(), file


def prepare_ptx(file: Path) -> None:
    """Writes code of the usual variants (heads of 16, 24, 32 and up to 64 channels) for GPUs since capability 7.5."""
    told = [f"--gpu-architecture=compute_{OLDEST[0]}{OLDEST[1]}", "--std=c++17", "-DTHREADS=256"]
    file.write_bytes(nvrtc().compile(source(), told, "PTX").rstrip(b"\0"))


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all: other processes may do the same at this moment."""
    handle, partial = tempfile.mkstemp(prefix=".building-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        keep(Path(partial), file)
    finally:
        Path(partial).unlink(missing_ok=True)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: returns 0, or 1 with a sentence that says what is missing."""
    parser = argparse.ArgumentParser(prog="python -m litedetr.ops.cuda_build", description=__doc__.split("\n")[0])
    parser.add_argument("capability", nargs="*", help="of the GPUs to compile for, such as 75 or 90")
    parser.add_argument("--channels", type=int, nargs="+", default=[32], help="of a head")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--ptx", type=Path, help="write PTX for all GPUs into this file")
    told = parser.parse_args(arguments)
    try:
        if told.ptx:
            prepare_ptx(told.ptx)
            sys.stdout.write(f"{told.ptx}: written\n")
        variants = {KernelVariant.of(mode, type, n) for mode in told.modes for type in told.types for n in told.channels}
        for capability in told.capability:
            for variant in sorted(variants, key=astuple):
                _, file = compiled(variant, divmod(int(capability), 10))
                sys.stdout.write(f"{file}: {variant.kernel('*')} for {capability}\n")
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
