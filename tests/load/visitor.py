"""A visitor's browser without the browser: the requests that the page makes, over real HTTP."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
from gradio_client.utils import apply_diff

PATIENCE = 600.0
"""Seconds that a visitor waits for an answer."""


class Visitor:
    """One tab of the page. Close it with `close`, or use it in an ``async with``.

    Args:
        url: of the running page.
        address: of this machine, that it comes from, like "127.0.0.2"; "" for any.
    """

    def __init__(self, url: str, address: str = ""):
        # The server closes what is idle for five seconds: no request may go out on such a connection.
        limits = httpx.Limits(keepalive_expiry=3)
        transport = httpx.AsyncHTTPTransport(local_address=address or None, limits=limits)
        self.http = httpx.AsyncClient(base_url=url, timeout=PATIENCE, transport=transport, trust_env=False)
        self.session, self.name = secrets.token_hex(6), secrets.token_hex(12)
        self.ticket = 0
        self._events: dict[str, tuple[int, int]] = {}
        self._page = 0

    async def __aenter__(self) -> Visitor:
        config = (await self.http.get("/config")).raise_for_status().json()
        for number, event in enumerate(config["dependencies"]):
            for component, name in event["targets"]:
                self._events[name] = event.get("id", number), component
        self._page = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "lite-detr")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def upload(self, photo: bytes, name: str) -> dict[str, Any]:
        """Send a photo; the description of the file that a job names it by."""
        answer = await self.http.post("/gradio_api/upload", files={"files": (name, photo)})
        path = answer.raise_for_status().json()[0]
        return {"path": path, "orig_name": name, "size": len(photo), "meta": {"_type": "gradio.FileData"}}

    def analyse(self, file: dict[str, Any] | None = None, **request: str) -> AsyncIterator[dict[str, Any]]:
        """Ask for a run of an uploaded file or, with ``example="cat"``, of an example; the job's events as they come."""
        self.ticket += 1
        return self._job("analyse", "run_event", [file, {"ticket": self.ticket, "visitor": self.name, "lang": "en", **request}])

    def work(self, run: str, state: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
        """Ask for what a state needs the model for; the job's events as they come."""
        self.ticket += 1
        return self._job("work", "work_event", [{"ticket": self.ticket, "visitor": self.name, "run": run, "state": state}])

    async def ask(self, name: str, **request: Any) -> dict[str, Any]:
        """Ask one of the page's own functions: open_run, look or cancel."""
        body = {"session_hash": self.session, "component_id": self._page, "fn_name": name, "data": request}
        return (await self.http.post("/gradio_api/component_server", json=body)).raise_for_status().json()

    async def _job(self, event: str, prop: str, data: list[Any]) -> AsyncIterator[dict[str, Any]]:
        number, component = self._events[event]
        body = {"data": data, "fn_index": number, "session_hash": self.session, "trigger_id": component, "event_data": None}
        joined = await self.http.post("/gradio_api/queue/join", json=body)
        if joined.is_error:
            yield {"error": joined.json().get("detail", joined.reason_phrase)}
            return
        job, value = joined.json()["event_id"], None
        async with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            async for line in stream.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message.get("event_id") not in (None, job):
                    continue
                if message["msg"] == "process_generating":
                    diff = message["output"]["data"][0]
                    value = diff if value is None else apply_diff(value, diff)
                    yield value["props"][prop]
                elif message["msg"] == "process_completed":
                    if not message["success"]:
                        yield {"error": str(message["output"].get("error"))}
                    return
                elif message["msg"] in ("unexpected_error", "server_stopped"):
                    yield {"error": message.get("message") or message["msg"]}
                    return


class Waiting:
    """How long a job waited for its turn, and what it was told of its place.

    Attributes:
        queued, ran: seconds from the request to the model's first stage, and from there to the end.
        places: how many were before it, as told.
        last: the last event.
    """

    def __init__(self) -> None:
        self.begun, self.started = time.monotonic(), None
        self.queued = self.ran = 0.0
        self.places: list[int] = []
        self.last: dict[str, Any] = {}

    async def follow(self, events: AsyncIterator[dict[str, Any]]) -> Waiting:
        """Read a job's events to the end."""
        async for event in events:
            self.last = event
            if "waiting" in event:
                self.places.append(event["waiting"])
            elif self.started is None and "stage" in event:
                self.started = time.monotonic()
                self.queued = self.started - self.begun
        self.ran = time.monotonic() - (self.started or self.begun)
        return self
