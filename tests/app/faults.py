"""What goes wrong, made to go wrong on the running page of the tests, and how a visitor leaves it."""

from __future__ import annotations

import asyncio
import ctypes
import resource
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager

import torch

from app.engine.engine import Engine
from tests.load.photos import photo
from tests.load.visitor import Visitor, Waiting

PATIENCE = 120
PHOTO = photo(1, 160)


async def last_event(url: str, **request: str) -> dict:
    """The last event of a photo sent by a visitor of its own."""
    async with Visitor(url) as visitor:
        file = await visitor.upload(PHOTO, "a.jpg")
        return (await Waiting().follow(visitor.analyse(file, **request))).last


def until(true: Callable[[], bool]) -> None:
    """Wait for something."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@contextmanager
def hooked(module: torch.nn.Module, act):
    """`act` is called with a module's input before it runs."""
    hook = module.register_forward_pre_hook(lambda _, given: act(given))
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def half_way(engine: Engine):
    """Stops the next run at the first decoder layer until the event is set; the list tells whether it came to the last one."""
    reached, go, through = threading.Event(), threading.Event(), []

    def stop(given) -> None:
        reached.set()
        assert go.wait(PATIENCE)

    layers = engine.detector.decoder.layers
    with hooked(layers[0], stop), hooked(layers[-1], through.append):
        yield reached, go, through
        until(lambda: len(engine.queue) == 0)


async def there(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, PATIENCE)


async def close_tab(reading: asyncio.Task) -> None:
    """The connection breaks off."""
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


def fail(given) -> None:
    raise RuntimeError("/secret/path")


def kill(given) -> None:
    """As if from outside: this thread ends at its next step."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(SystemExit))


def allocate(given) -> None:
    torch.empty(2**50, dtype=torch.uint8)


def on_the_gpu(given) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@contextmanager
def full_disk(limit: int):
    """No file can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
