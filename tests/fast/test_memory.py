"""What a run frees stays with the process, unless somebody set it otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from litedetr.fast.memory import keep_freed_memory

PAGES = """
import ctypes, resource
from litedetr.fast.memory import keep_freed_memory
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
