"""Visitors' photos on the disk: where they lie, how a function of the page gets one, and that nothing of them stays behind."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio import route_utils
from starlette.datastructures import FormData, UploadFile

from app.engine.queue import Client
from app.settings import ALL_UPLOADS, UPLOADS

ARRIVAL = 3.0
"""Seconds that an uploaded photo may take to its place."""


def photo_box(**options: Any) -> gr.File:
    """An input that gives a function the path of an uploaded photo, without the empty file that `gr.File` leaves behind at every
    call."""
    box = gr.File(visible=False, type="filepath", **options)
    box.preprocess = lambda payload: None if payload is None else payload.path
    return box


LEAST = 64 * 1024
"""Bytes that a file counts at least: very many small ones keep the page busy."""


class PhotoGone(Exception):
    """The uploaded photo is not on the disk any more: it was kept for long enough, or others needed the room."""


def arrived(path: str, client: Client) -> str:
    """The same path, once the photo is there: Gradio brings an upload to its place after it has told its visitor where.

    Args:
        client: whose photo it is from now on.

    Raises:
        PhotoGone: it is not there.
    """
    until = time.monotonic() + ARRIVAL
    while not os.path.exists(path):
        if time.monotonic() > until:
            raise PhotoGone
        time.sleep(0.02)
    with suppress(OSError):
        owners.of[os.stat(path).st_ino] = client
    return path


class Owners:
    """Whose the photos on the disk are: the address that sent each, and the session that named it in a job."""

    def __init__(self) -> None:
        self.of: dict[int, Client] = {}  # by inode: Gradio gives the files other names

    def first_to_go(self, files: Iterable[Stored]) -> Stored:
        """Of the address that has most on the disk, and of its session that has most: the oldest."""
        owned = [(self.of.get(file.inode, Client()), file) for file in files]
        addresses, clients = Counter[str](), Counter[Client]()
        for client, file in owned:
            addresses[client.address] += file.size
            clients[client] += file.size
        return min(owned, key=lambda each: (-addresses[each[0].address], -clients[each[0]], each[1].changed))[1]

    def forget_all_but(self, inodes: set[int]) -> None:
        """Files of other inodes are no more."""
        for inode in set(self.of) - inodes:
            self.of.pop(inode, None)


class Stored(NamedTuple):
    """A file of the folder: ``size`` in bytes, `LEAST` where it has fewer; ``changed`` is when it was last written or renamed,
    in seconds."""

    name: str
    inode: int
    size: int
    changed: float


owners = Owners()
sender: ContextVar[str] = ContextVar("sender", default="")
"""The address whose request is served now."""


class UploadParser(route_utils.GradioMultiPartParser):
    """Gradio's, which notes whose files they are, and leaves nothing on the disk of an upload that breaks off or is too large,
    nor of files that are called otherwise than the page calls them."""

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        for file in self._files_to_close_on_error[-1:]:
            owners.of[os.stat(file.name).st_ino] = Client(sender.get())

    async def parse(self) -> FormData:
        kept: set[str] = set()
        try:
            form = await super().parse()
            kept = {value.file.name for key, value in form.multi_items() if key == "files" and isinstance(value, UploadFile)}
            return form
        finally:
            for file in self._files_to_close_on_error:
                if file.name not in kept:
                    file.close()
                    Path(file.name).unlink(missing_ok=True)


route_utils.GradioMultiPartParser = UploadParser  # where Gradio's upload route looks for it


def keeps_photos() -> bool:
    """Whether photos lie in the page's own folder: another one may hold what is not the page's."""
    return os.environ["GRADIO_TEMP_DIR"] == str(UPLOADS)


def forget_photos() -> None:
    """Delete all of this process' photos."""
    if keeps_photos():
        shutil.rmtree(UPLOADS, ignore_errors=True)


def forget_the_dead() -> None:
    """Delete the photos of processes that were killed, and those of one that had this one's number."""
    for folder in ALL_UPLOADS.iterdir():
        if folder.name == str(os.getpid()) or not _lives(folder.name):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
            else:
                folder.unlink(missing_ok=True)


def _lives(number: str) -> bool:
    """Whether there is a process of this number."""
    if not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def own_folder(folder: Path) -> None:
    """Make the folder for uploads, which no other user of this machine may read.

    Raises:
        RuntimeError: it is somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
        raise RuntimeError(f"expected {folder} to be a folder of yours, got somebody else's: set GRADIO_TEMP_DIR.")
    folder.chmod(0o700)
