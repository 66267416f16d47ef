"""One process of a group that detects in many photos, as ``torchrun`` would start it; it may be told to kill itself half-way."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from litedetr.batch import detect
from litedetr.cli import main


def start(context: BaseContext, rank: int, port: int, arguments: list[str], killed_after: int | None = None) -> BaseProcess:
    """The process ``rank`` of two, running ``arguments``; killed by SIGKILL in the middle of a line after so many batches."""
    process = context.Process(target=_run, args=(rank, port, arguments, killed_after), daemon=True)
    process.start()
    return process


def _run(rank: int, port: int, arguments: list[str], killed_after: int | None) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    if killed_after is not None:
        _die(killed_after)
    sys.exit(main(arguments))


def _die(batches: int) -> None:
    write = detect._write
    written = []

    def write_and_die(lines, done):
        written.append(done)
        if len(written) > batches:
            lines.write(detect.to_json(done[0])[:25])
            lines.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        write(lines, done)

    detect._write = write_and_die
