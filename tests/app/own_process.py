"""app.py in a process of its own, as a host starts it, and plain HTTP to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NOTE_CONNECTIONS = """
import os, sys
open(os.environ["OUTSIDE"], "w").close()
def note(event, given):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = given[1][0] if event == "socket.connect" and isinstance(given[1], tuple) else given[0]
        if isinstance(host, str) and host not in ("127.0.0.1", "::1", "localhost", "0.0.0.0"):
            with open(os.environ["OUTSIDE"], "a") as file:
                file.write(f"{host}\\n")
sys.addaudithook(note)
"""


@dataclass
class Server:
    """A running page; `seconds` from the start of its process to its first answer."""

    url: str
    folder: Path
    process: subprocess.Popen
    seconds: float = 0.0

    def get(self, path: str, data: bytes | None = None, **headers: str) -> bytes:
        """Fetch; underscores in headers' names stand for hyphens."""
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, names), timeout=120) as answer:
            return answer.read()

    def upload(self, photo: Path) -> str:
        """Where the server put a photo."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{photo.name}"\r\n\r\n'
        body = head.encode() + photo.read_bytes() + b"\r\n--x--\r\n"
        return json.loads(self.get("/gradio_api/upload", body, Content_Type="multipart/form-data; boundary=x"))[0]

    def ask(self, endpoint: str, photo: Path, **options: Any) -> dict[str, Any]:
        """Upload a photo, call an endpoint, wait for its answer."""
        request = {"photo": {"path": self.upload(photo), "meta": {"_type": "gradio.FileData"}}, **options}
        made = self.get(f"/gradio_api/call/v2/{endpoint}", json.dumps(request).encode(), Content_Type="application/json")
        lines = self.get(f"/gradio_api/call/{endpoint}/{json.loads(made)['event_id']}").decode().splitlines()
        if "event: complete" not in lines:
            raise AssertionError(f"{endpoint} answered {lines}")
        return json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))[0]

    def uploads(self) -> list[Path]:
        """Visitors' photos on the disk."""
        return [path for path in self.folder.glob("litedetr-uploads-*/**/*") if path.is_file()]

    def log(self) -> str:
        """All that the process has printed."""
        return (self.folder / "log").read_text(encoding="utf-8")

    def outside(self) -> list[str]:
        """Hosts other than this machine that it wanted to reach."""
        return (self.folder / "outside").read_text().splitlines()


@contextmanager
def started(
    root: Path, folder: Path, program: str = "app.py", one_processor: bool = False, **environment: str
) -> Iterator[Server]:
    """The page of the project in `root`, until the body ends; its uploads and its log go into `folder`."""
    (folder / "noted").mkdir()
    (folder / "noted" / "sitecustomize.py").write_text(_NOTE_CONNECTIONS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"},
        "PYTHONPATH": str(folder / "noted"),
        "OUTSIDE": str(folder / "outside"),
        "HF_HUB_OFFLINE": "1",
        "GRADIO_SERVER_PORT": str(port),
        "TMPDIR": str(folder),
        **environment,
    }
    begun = time.perf_counter()
    with open(folder / "log", "wb") as log:
        command = [sys.executable, program]
        bound = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if one_processor and shutil.which("taskset") else []
        process = subprocess.Popen([*bound, *command], cwd=root, env=environment, stdout=log, stderr=log, start_new_session=True)
    server = Server(f"http://127.0.0.1:{port}", folder, process)
    try:
        while True:
            try:
                server.get("/")
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - begun > 300:
                    raise AssertionError(f"the page did not start: {server.log()[-2000:]}") from None
                time.sleep(0.2)
        server.seconds = time.perf_counter() - begun
        yield server
    finally:
        process.terminate()
        process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it forked
