"""The process that `litedetr.photos.process` starts: it forks for each photo, and the fork decodes under limits of its own.

Run as a script. It has one thread, and nothing but NumPy and Pillow, so that a fork is safe and costs milliseconds.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import socket
import sys
import types
import warnings
from pathlib import Path

if __name__ == "__main__":
    # The package's own __init__ would load PyTorch.
    package = types.ModuleType("litedetr")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["litedetr"] = package

import numpy as np
from PIL import Image

from litedetr.photos.decode import PhotoError, open_small
from litedetr.photos.process import ANSWER, REQUEST


def serve(control: socket.socket) -> None:
    """Fork for every request: the photo's file, the file for its pixels, and a socket for the answer; until the page has gone."""
    Image.init()  # all of Pillow's readers, before there are forks
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        request, files, _, _ = socket.recv_fds(control, REQUEST.size, 3)
        if not request:
            return
        photo, pixels, answer = files
        if not os.fork():
            try:
                control.close()
                channel = socket.socket(fileno=answer)
                channel.sendall(ANSWER.pack(os.getpid()))  # by itself, so that nothing comes before it
                _decode(photo, pixels, channel, *REQUEST.unpack(request))
            except (OSError, MemoryError):
                pass  # nobody waits any more, or the answer is that there is none
            finally:
                os._exit(0)
        for file in files:
            os.close(file)


def _decode(photo: int, pixels: int, answer: socket.socket, seconds: float, more: float, megabytes: float) -> None:
    """In the fork: the photo's pixels into their file, and their shape, or the sentence for its sender, as the answer."""
    _limit(resource.RLIMIT_CPU, math.ceil(seconds))
    content = os.pread(photo, os.fstat(photo).st_size, 0)
    if os.path.exists("/proc/self/statm"):
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _limit(resource.RLIMIT_AS, held + int(megabytes * 1e6))
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, 0)  # it has what it needs, and opens nothing
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            found = open_small(
                content, lambda size: _limit(resource.RLIMIT_CPU, math.ceil(seconds + more * math.prod(size) / 1e6))
            )
        rest = np.ascontiguousarray(found.pixels).data.cast("B")
        while rest:
            rest = rest[os.write(pixels, rest) :]
        texts = [str(one.message) for one in said if one.category is UserWarning]
        given = {"shape": found.pixels.shape, "size": found.size, "warnings": texts}
    except PhotoError as error:
        given = {"error": str(error)}
    answer.sendall(json.dumps(given).encode())


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
