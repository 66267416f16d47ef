"""What the server clears away by itself: runs that nobody looked into for long, uploads as old as that, and uploads beyond what
the disk may hold."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr

from app.engine.store import RunStore
from app.server.uploads import LEAST, Stored, forget_photos, forget_the_dead, keeps_photos, own_folder, owners
from app.settings import ALL_UPLOADS, UPLOADS, number
from litedetr.fast.allocator import give_back

log = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between two rounds."""
UPLOADS_BYTES = int(number("UPLOADS_MB", 1024) * 1024**2)
"""So much of visitors' photos lies on the disk; the oldest of who has most go first."""


def trim_uploads(uploads: set[str], limit: int = UPLOADS_BYTES) -> None:
    """Delete files until the rest holds at most `limit` bytes, the oldest of who has most first; what is gone leaves the set."""
    files = _stored(uploads)
    uploads.intersection_update(files)
    while files and sum(file.size for file in files.values()) > limit:
        name = owners.first_to_go(files.values()).name
        with suppress(OSError):
            os.remove(name)
        with suppress(OSError):
            Path(name).parent.rmdir()  # Gradio makes a folder for each
        uploads.discard(name)
        del files[name]


def _stored(names: set[str]) -> dict[str, Stored]:
    """Those that are there, by name."""
    files = {}
    for name in list(names):
        with suppress(OSError):
            about = os.stat(name)
            files[name] = Stored(name, about.st_ino, max(about.st_size, LEAST), about.st_ctime)
    return files


def make_room(uploads: set[str] | None = None) -> None:
    """Keep the bound on the disk: of all that lies in the page's own folder, whether its upload came to an end or not;
    elsewhere of these uploads."""
    trim_uploads((uploads or set()) | _on_the_disk())


def _on_the_disk() -> set[str]:
    """The files in the page's own folder."""
    return {str(path) for path in UPLOADS.rglob("*") if path.is_file()} if keeps_photos() else set()


def sweep(folder: Path, age: float) -> None:
    """Delete the files in a folder that are older than `age` seconds, and then the folders that this leaves empty.

    Gradio's own cleaning knows only the files of this process, and not those that come as ``data:`` over MCP.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # what lies in a folder comes before it
        with suppress(OSError):
            if abs(time.time() - path.lstat().st_ctime) > age:  # a clock that was set back keeps nothing for longer
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def clean_up(store: RunStore, files: list[set[str]]) -> None:
    """One round.

    Args:
        files: what Gradio knows of: those uploaded, then those of each component.
    """
    make_room(files[0])
    if keeps_photos():
        sweep(UPLOADS, store.keep)
    for names in files:
        names -= {name for name in list(names) if not os.path.exists(name)}
    owners.forget_all_but({file.inode for file in _stored(files[0] | _on_the_disk()).values()})
    store.expire()
    give_back()  # what lies free between the runs that are kept: 10 to 25 ms


def cleanup(store: RunStore) -> Callable[[Any], AbstractAsyncContextManager]:
    """For the web server: a round every `EVERY` seconds while it runs."""

    async def rounds(page: gr.Blocks) -> None:
        while True:
            await asyncio.sleep(min(EVERY, store.keep))
            try:
                await asyncio.to_thread(clean_up, store, page.temp_file_sets)
            except Exception:
                log.exception("Clearing away failed")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        if keeps_photos():
            own_folder(ALL_UPLOADS)
            forget_the_dead()
        own_folder(Path(os.environ["GRADIO_TEMP_DIR"]))
        task = asyncio.create_task(rounds(app.get_blocks()))
        try:
            yield
        finally:
            task.cancel()
            forget_photos()

    return lifespan
