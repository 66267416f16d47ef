"""The page's server in a process of its own, with a door through which the load script sees what it holds."""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from app.engine.engine import Engine
from app.ui import build, launch_options
from litedetr.fast.allocator import give_back


def counts(engine: Engine, page: Any, folder: Path) -> dict[str, int]:
    """How many of everything that could grow: in this process, in the page, in Gradio."""
    status = Path("/proc/self/status").read_text()
    kilobytes = {name: int(size) for name, size in re.findall(r"(VmRSS|VmHWM):\s+(\d+)", status)}
    queue, sessions = page._queue, page.app.state_holder.session_data
    sizes = [size for path in folder.rglob("*") if (size := _size(path)) is not None]
    return {
        "memory MB": kilobytes["VmRSS"] // 1024,
        "peak memory MB": kilobytes["VmHWM"] // 1024,
        "processor seconds": int(time.process_time()),
        "open files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "system threads": len(os.listdir("/proc/self/task")),
        "temporary files": len(sizes),
        "temporary MB": sum(sizes) // 1024**2,
        "runs kept": len(engine.store),
        "runs kept MB": engine.store.nbytes // 1024**2,
        "visitors remembered": len(engine.jobs._cancelled),
        "Gradio: jobs": len(queue.event_ids_to_events),
        "Gradio: message queues": len(queue.pending_messages_per_session),
        "Gradio: sessions": len(sessions),
        "Gradio: iterators": len(page.app.iterators),
        "Gradio: differences": sum(map(len, page.pending_diff_streams.values())),
        "Gradio: records": len(queue.event_analytics),
    }


def _size(path: Path) -> int | None:
    """Of a file; None for a folder, and for one that has gone since it was listed."""
    with suppress(FileNotFoundError):
        return path.stat().st_size if path.is_file() else None
    return None


def main() -> None:
    """Serve at the port given, until the standard input ends."""
    engine = Engine()
    page = build(engine)
    options = launch_options(engine)
    folder = Path(os.environ["GRADIO_TEMP_DIR"])

    def see(request: Request) -> JSONResponse:
        if "collect" in request.query_params:
            gc.collect()
            give_back()  # as the page does twice a minute
        return JSONResponse(counts(engine, page, folder))

    options["app_kwargs"]["routes"].append(Route("/load/counts", see))
    engine.warm_up()
    page.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), prevent_thread_lock=True, quiet=True, **options)
    print("ready", flush=True)
    sys.stdin.read()
    page.close(verbose=False)


if __name__ == "__main__":
    main()
