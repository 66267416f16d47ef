"""What strangers send to the server: bodies that are not too large, and a sentence for what no function of the page takes."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr
from gradio.route_utils import FnIndexInferError
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.engine.queue import Client
from app.server.cleanup import make_room
from app.server.uploads import sender
from litedetr.weights.errors import is_full

log = logging.getLogger(__name__)

HOSTS = [host.strip() for host in os.environ.get("LITEDETR_HOSTS", "").split(",") if host.strip()]
"""The names that this page answers to, like "page.example.org" or "*.hf.space"; any where none is given."""

MAX_FILE = 20 * 1024**2
"""Bytes of a photo."""
MAX_BODY = 1024**2
"""Bytes of any other request."""
UPLOADS_AT_ONCE = 8
"""Of one address."""
SILENCE = 60.0
"""Seconds without a byte of a body, after which it has broken off."""
_DRAINED = 4 * MAX_FILE
_GONE: Message = {"type": "http.disconnect"}
_NO_ROOM = "There is no room for it on this machine now: try again in a minute."
LONGEST_NAME = 255
"""Bytes between two strokes of an address; no file system has longer names."""
_ARGUMENTS = (
    "Expected the arguments that this endpoint names, and as the photo a file that was uploaded here before, got something else: "
    "/gradio_api/info tells them."
)
_LINKS = "Links are not opened here: upload the photo and name the file that the upload gave, or send a data: URI over MCP."


class Page(gr.Blocks):
    """`gr.Blocks` that says so where what came is not what an event takes; Gradio would say nothing, and log a traceback.

    It opens no links either: Gradio would fetch whatever they lead to, however large.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *arguments: Any, **options: Any) -> Any:
        if any(isinstance(value, dict) and str(value.get("path")).strip().lower().startswith("http") for value in inputs):
            raise gr.Error(_LINKS, print_exception=False)
        try:
            return await super().preprocess_data(block_fn, inputs, *arguments, **options)
        except gr.Error:
            raise
        except Exception as error:
            log.info("Refused arguments: %s", type(error).__name__)
            raise gr.Error(_ARGUMENTS, print_exception=False) from None


class Bodies:
    """Refuses a request whose body is too large, by what it says or by what comes, and reads a few uploads of an address at a
    time: the others wait where they are."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self._places: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if max(map(len, scope["path"].encode().split(b"/"))) > LONGEST_NAME:
            await JSONResponse({"detail": "There is nothing of so long a name."}, 404)(scope, receive, send)
            return
        address = scope["client"][0] if scope["client"] else ""
        sender.set(address)
        if not _is_upload(scope["path"]):
            await self._bounded(scope, receive, send)
            return
        async with self._places.setdefault(address, asyncio.Semaphore(UPLOADS_AT_ONCE)):
            await asyncio.to_thread(make_room)
            await self._bounded(scope, receive, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive, _limit(scope["path"]), _declared(scope))
        begun = full = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if body.too_large and not begun:
                return  # what the page makes of half a body
            begun = True
            if message["type"] == "http.response.start" and _is_stream(message):
                message["headers"] = [*message["headers"], (b"x-accel-buffering", b"no")]  # nginx would hold events back
            await send(message)

        if not body.too_large:
            try:
                await self.app(scope, body.receive, answer)
            except ClientDisconnect:
                if not body.too_large:
                    log.info("An upload broke off")
            except Exception as error:
                full = is_full(error) and not begun
                if not (full or body.too_large):
                    raise
        if begun or not (full or body.too_large):
            return
        await body.drop()
        status, sentence = (413, body.limit_told) if body.too_large else (507, _NO_ROOM)
        refusal = JSONResponse({"detail": sentence, "error": sentence}, status, {"connection": "close"})
        await refusal(scope, receive, send)


class _Body:
    """A request's body as it comes: what was said of its size, how much has come, and whether its end has."""

    def __init__(self, receive: Receive, limit: int, declared: int):
        self._receive, self.limit, self.declared = receive, limit, declared
        self.come, self.ended = 0, False

    @property
    def too_large(self) -> bool:
        return max(self.come, self.declared) > self.limit

    @property
    def limit_told(self) -> str:
        what = "less" if self.limit == MAX_BODY else "a smaller photo"
        return f"Expected at most {self.limit / 1024**2:.0f} MB, got more: send {what}."

    async def receive(self) -> Message:
        """The next message; that its sender is gone where nothing comes any more, or too much has come."""
        try:  # what comes after the body is that its sender has left, at any time
            message = await asyncio.wait_for(self._receive(), None if self.ended else SILENCE)
        except TimeoutError:
            message = _GONE
        self.come += len(message.get("body", b""))
        self.ended = not message.get("more_body")
        return _GONE if self.too_large else message

    async def drop(self) -> None:
        """Read the rest, up to a limit of its own: who still sends does not listen."""
        while not self.ended and self.come <= _DRAINED:
            await self.receive()


def client_of(request: gr.Request | None) -> Client:
    """Who asks: its address, which is the one that a proxy names where uvicorn's FORWARDED_ALLOW_IPS trusts the proxy, and its
    session with Gradio."""
    if request is None:
        return Client()
    return Client(request.client.host if request.client else "", str(request.session_hash or "")[:64])


def _is_upload(path: str) -> bool:
    return path.rstrip("/").endswith("/upload")


def _is_stream(message: Message) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in message["headers"])


def _limit(path: str) -> int:
    """Bytes that a request to this address may have."""
    if _is_upload(path):
        return MAX_FILE + 4096  # what stands around the file in a form
    return 2 * MAX_FILE if "/mcp" in path else MAX_BODY


def _declared(scope: Scope) -> int:
    value = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(value) if value.isdigit() else 0


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "There is no endpoint of this name: /gradio_api/info tells those that there are."}, 404)


async def _inside(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "This request could not be answered: check what it sends, or load the page again."}, 500)


def guards() -> dict[str, Any]:
    """For the web server that Gradio starts."""
    middleware = [Middleware(Bodies)]
    if HOSTS:
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False))
    return {"middleware": middleware, "exception_handlers": {FnIndexInferError: _unknown, Exception: _inside}}
