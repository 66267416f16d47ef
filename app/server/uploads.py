"""Visitors' photos on the disk: where they lie, and how a function of the page gets one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gradio as gr

ARRIVAL = 3.0
"""Seconds that an uploaded photo may take to its place."""


def photo_box(**options: Any) -> gr.File:
    """An input that gives a function the path of an uploaded photo, without the empty file that `gr.File` leaves behind at every
    call."""
    box = gr.File(visible=False, type="filepath", **options)
    box.preprocess = lambda payload: None if payload is None else payload.path
    return box


def arrived(path: str) -> str:
    """The same path, once the photo is there: Gradio brings an upload to its place after it has told its visitor where."""
    until = time.monotonic() + ARRIVAL
    while not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.02)
    return path


def own_folder(folder: Path) -> None:
    """Make the folder for uploads, which no other user of this machine may read.

    Raises:
        RuntimeError: it is somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
        raise RuntimeError(f"expected {folder} to be a folder of yours, got somebody else's: set GRADIO_TEMP_DIR.")
    folder.chmod(0o700)
