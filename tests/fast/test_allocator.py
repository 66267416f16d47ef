"""What a run frees stays with the process, unless somebody set it otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from litedetr.fast.allocator import give_back, keep_freed_memory, one_arena

PAGES = """
import ctypes, resource
from litedetr.fast.allocator import keep_freed_memory
print(keep_freed_memory())
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(ctypes.c_size_t(8 << 20))
    ctypes.memset(block, 1, 8 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(touch())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
@pytest.mark.parametrize(("environment", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "65536"}, False)])
def test_pages_are_fetched_once(environment, kept):
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", PAGES], env=own | environment, capture_output=True, text=True, check=True)
    said, faults = done.stdout.split()
    assert said == str(kept)
    if kept:
        assert int(faults) < 16, "8 MB are 2,048 pages"


def test_without_glibc_nothing_happens(monkeypatch):
    class Other:
        def __init__(self, name): ...

    monkeypatch.setattr("ctypes.CDLL", Other)
    assert keep_freed_memory() is False
    one_arena()
    give_back()


SMALL = """
import ctypes
from litedetr.fast.allocator import give_back
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(ctypes.c_size_t(65536)) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 65536)
for block in blocks[:-1]:  # the last one holds the heap's end where it is
    libc.free(block)
before = resident()
give_back()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_free_memory_goes_back():
    done = subprocess.run([sys.executable, "-c", SMALL], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 32 << 20, "64 MB were free"
