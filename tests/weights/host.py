"""A file server on loopback that stands in for a release page, with what such servers do wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One path.

    Attributes:
        content: what is there; kind: its type.
        status: of the answer; leads_to: another path, or address, of a redirect.
        ranges: whether a part may be asked for.
        dies_after: bytes after which an answer breaks off, each used once, in order.
        length: told instead of the true one.
        gate: what the second half waits for.
    """

    content: bytes = b""
    kind: str = "application/octet-stream"
    status: int = 200
    leads_to: str | None = None
    ranges: bool = True
    dies_after: list[int] = field(default_factory=list)
    length: int | None = None
    gate: threading.Event | None = None


class Host:
    """The server: `url` is its address, `asked` every request so far, as (path, Range)."""

    def __init__(self) -> None:
        self.paths: dict[str, Served] = {}
        self.asked: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, path: str, content: bytes = b"", **ways: object) -> Served:
        """What is at a path from now on."""
        self.paths[path] = Served(content, **ways)
        return self.paths[path]

    def close(self) -> None:
        """Nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()


def serving() -> Iterator[Host]:
    """A server for a fixture."""
    host = Host()
    yield host
    host.close()


def _handler(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            host.asked.append((self.path, asked))
            served = host.paths.get(self.path)
            if served is None:
                self.send_error(404)
                return
            if served.leads_to is not None:
                self.send_response(302)
                self.send_header("Location", served.leads_to)
                self.end_headers()
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and served.ranges else 0
            if start and start >= len(served.content):
                self.send_error(416)
                return
            rest = served.content[start:]
            self.send_response(206 if start else served.status)
            self.send_header("Content-Type", served.kind)
            self.send_header("Content-Length", str(len(rest) if served.length is None else served.length))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}")
            self.end_headers()
            if served.dies_after:
                self.wfile.write(rest[: served.dies_after.pop(0)])
            elif served.gate is not None:
                self.wfile.write(rest[: len(rest) // 2])
                self.wfile.flush()
                served.gate.wait(60)
                self.wfile.write(rest[len(rest) // 2 :])
            else:
                self.wfile.write(rest)

    return Handler
