"""Coroutines beside a browser: Playwright's event loop keeps running in the thread that started it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def in_a_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns, called in a thread without an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """`asyncio.run`, whatever runs in this thread."""
    return in_a_thread(asyncio.run, coroutine)


def collected(items: AsyncIterator[Any]) -> list[Any]:
    """All that comes, to the end."""

    async def read() -> list[Any]:
        return [item async for item in items]

    return run(read())
