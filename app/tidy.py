"""What the server clears away by itself: runs that nobody looked into for long, and uploads beyond what the disk may hold."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr

from app.engine import RunStore

log = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between two rounds."""
UPLOADS_BYTES = int(os.environ.get("LITEDETR_UPLOADS_MB", "1024")) * 1024**2
"""So much of visitors' photos lies on the disk; the oldest go first. None is kept for longer than an hour."""


def photo_box(**options: Any) -> gr.File:
    """An input that gives a function the path of an uploaded photo, without the empty file that `gr.File` leaves behind at every
    call."""
    box = gr.File(visible=False, type="filepath", **options)
    box.preprocess = lambda payload: None if payload is None else payload.path
    return box


def trim_uploads(uploads: set[str], limit: int = UPLOADS_BYTES) -> None:
    """Delete the oldest of these files until the rest holds at most `limit` bytes; what is gone leaves the set."""
    files = []
    for name in list(uploads):
        try:
            about = os.stat(name)
            files.append((about.st_ctime, about.st_size, name))
        except OSError:
            uploads.discard(name)
    held = sum(size for _, size, _ in files)
    for _, size, name in sorted(files):
        if held <= limit:
            break
        with suppress(OSError):
            os.remove(name)
        with suppress(OSError):
            Path(name).parent.rmdir()  # Gradio makes a folder for each
        uploads.discard(name)
        held -= size


def tidy(store: RunStore, uploads: set[str]) -> None:
    """One round."""
    trim_uploads(uploads)
    if store.expire():
        _give_back()


def tidying(store: RunStore) -> Callable[[Any], AbstractAsyncContextManager]:
    """For the web server: a round every `EVERY` seconds while it runs."""

    async def rounds(page: gr.Blocks) -> None:
        while True:
            await asyncio.sleep(EVERY)
            try:
                await asyncio.to_thread(tidy, store, page.upload_file_set)
            except Exception:
                log.exception("Clearing away failed")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(rounds(app.get_blocks()))
        try:
            yield
        finally:
            task.cancel()

    return lifespan


def _give_back() -> None:
    """Memory that is free in here goes back to the system, where the C library can do that."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
