"""The CUDA kernels on a machine without a GPU: compiled as C++ and launched through an emulated driver (emulator/driver.cpp)."""

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

import torch

from litedetr.ops import cuda_launch, library

SOURCE = Path(__file__).parent / "emulator" / "driver.cpp"


@functools.cache
def driver_library() -> ctypes.CDLL:
    """Compiles the emulator, once per run of the tests."""
    folder = tempfile.TemporaryDirectory()
    _folders.append(folder)  # gone when the process ends
    file = Path(folder.name) / "driver.so"
    command = [library.compiler(), "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", str(SOURCE), "-o", str(file)]
    done = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(file))


_folders: list[tempfile.TemporaryDirectory] = []


class EmulatedGpu(cuda_launch.Gpu):
    """A GPU whose tensors are on the CPU."""

    def __init__(self, multiprocessors: int = 2):
        driver = cuda_launch.Driver(driver_library())
        super().__init__(driver, torch.device("cpu"), (9, 0), multiprocessors)

    def stream(self) -> int:
        return 0
