"""Photos of strangers, decoded in a process of their own: it has so much time and memory, and can be ended at any moment."""

from __future__ import annotations

import json
import logging
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from litedetr.photos import decode
from litedetr.photos.decode import Encoded, Opened, PhotoError

log = logging.getLogger(__name__)

REQUEST = struct.Struct("=ddd")
"""Processor seconds for any photo, and more for a megapixel; megabytes."""
ANSWER = struct.Struct("=q")
"""The process that decodes, before what it says."""
BEAT = 0.5
"""Seconds between two questions whether anybody still waits."""
TOO_MUCH = (
    "Opening this picture takes longer, or more memory, than a picture of its size should: save it again as a JPEG and send the "
    "new copy."
)


@dataclass(frozen=True)
class PhotoLimits:
    """What decoding one photo may take.

    Attributes:
        seconds: of processor time for any photo; seconds_per_megapixel: and for its size.
        megabytes: of memory, beyond what the process begins with.
        patience: times the processor time that it may take on a busy machine.
    """

    seconds: float = 3.0
    seconds_per_megapixel: float = 0.1
    megabytes: float = 1500.0
    patience: float = 4.0


class PhotoProcess:
    """`litedetr.image.open_small` for encoded pictures, elsewhere. Any number of threads may ask at once.

    Where processes cannot be forked (Windows) the photo is decoded here.
    """

    def __init__(self, limits: PhotoLimits | None = None):
        self.limits = limits or PhotoLimits()
        self._control: socket.socket | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the process before its first photo; it ends when this one does."""
        with self._lock:
            if self._control is None and hasattr(os, "fork"):
                self._control = _start()
                weakref.finalize(self, self._control.close)

    def open(self, photo: Encoded, poll: Callable[[], object] = lambda: None) -> Opened:
        """The photo as a detector takes it.

        Args:
            photo: a path, encoded bytes or a file object.
            poll: called every `BEAT` seconds; what it raises ends the decoding, and is raised.

        Raises:
            PhotoError: as `open_small`, and where the limits were passed.
        """
        source = decode.source(photo)
        if not hasattr(os, "fork"):
            return decode.open_small(photo)
        try:
            file = source.open("rb") if isinstance(source, Path) else _anonymous(source.getvalue())
        except PermissionError:
            raise PhotoError(decode.NOT_ALLOWED) from None
        with file, _anonymous() as pixels:
            answer = self._wait(self._ask(file.fileno(), pixels.fileno()), poll)
            if answer is None:
                raise PhotoError(TOO_MUCH)
            if "error" in answer:
                raise PhotoError(answer["error"])
            for text in answer["warnings"]:
                warnings.warn(text, stacklevel=2)
            with mmap.mmap(pixels.fileno(), 0) as content:
                return Opened(np.frombuffer(content, np.uint8).reshape(answer["shape"]).copy(), tuple(answer["size"]))

    def _ask(self, photo: int, pixels: int) -> socket.socket:
        """Hand the files over; the socket on which the answer comes. A process that has gone is started again, once."""
        for attempt in (1, 2):
            self.start()
            ours, theirs = socket.socketpair()
            request = REQUEST.pack(self.limits.seconds, self.limits.seconds_per_megapixel, self.limits.megabytes)
            try:
                with theirs, self._lock:
                    socket.send_fds(self._control, [request], [photo, pixels, theirs.fileno()])
                return ours
            except OSError:
                ours.close()
                log.warning("The process that decodes photos has gone, and is started again")
                self._control = None
                if attempt == 2:
                    raise
        raise AssertionError

    def _wait(self, channel: socket.socket, poll: Callable[[], object]) -> dict | None:
        """The answer; None where the process ended without one, or had to be ended."""
        limits = self.limits
        longest = limits.patience * (limits.seconds + limits.seconds_per_megapixel * decode.MAX_PIXELS / 1e6)
        end, content = time.monotonic() + longest, b""
        with channel:
            try:
                while time.monotonic() < end:
                    if not select.select([channel], [], [], BEAT)[0]:
                        poll()
                    elif more := channel.recv(65536):
                        content += more
                    else:
                        break
                else:
                    _kill(content)
            except BaseException:
                _kill(content)
                raise
        return json.loads(content[ANSWER.size :]) if len(content) > ANSWER.size else None


def _kill(answer: bytes) -> None:
    """End the process that an answer begins with."""
    if len(answer) >= ANSWER.size:
        with suppress(ProcessLookupError):
            os.kill(ANSWER.unpack_from(answer)[0], signal.SIGKILL)


def _anonymous(content: bytes = b"") -> IO[bytes]:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("photo"), "wb+")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115, its user closes it
    file.write(content)
    file.flush()
    return file


def _start() -> socket.socket:
    """The process, and the socket through which it is asked; none of this machine's secrets are in its environment."""
    ours, theirs = socket.socketpair()
    kept = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
    # A fork begins without memory of its own: glibc asks for it in large pages where the system has them.
    own = {"OPENBLAS_NUM_THREADS": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    environment = {name: os.environ[name] for name in kept if name in os.environ} | own
    with theirs:
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), str(theirs.fileno())],
            pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    return ours
