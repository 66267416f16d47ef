"""A small Hub on loopback: the routes that huggingface_hub asks, and the ways in which they go wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_only_for_tests"


@dataclass
class Repo:
    """One model: its files, and what is wrong with it.

    Attributes:
        files: of the newest commit, by name.
        gated: whether only `TOKEN` may read it.
        private: whether others are told that it does not exist.
        dies_after: bytes of a file after which every answer breaks off; None for never.
        gate: what the second half of a file waits for.
        moved: where every answer for a file leads first: "/cdn" is here, and has the file.
        longer: so many bytes come behind each file, of which its length says nothing.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    dies_after: int | None = None
    gate: threading.Event | None = None
    moved: str = ""
    longer: int = 0
    branches: dict[str, str] = field(default_factory=dict)
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self) -> str:
        """Make the present files the newest commit of the main branch."""
        sha = hashlib.sha1(repr(sorted((k, hashlib.sha1(v).hexdigest()) for k, v in self.files.items())).encode()).hexdigest()
        self.history[sha] = dict(self.files)
        self.branches["main"] = sha
        return sha


class Hub:
    """The server; `url` is its address, `asked` every request so far, as "GET /path"."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[str] = []
        self.stored: dict[str, bytes] = {}
        self.broken = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, name: str, files: dict[str, bytes], **ways: object) -> Repo:
        """A model with these files in its main branch."""
        repo = self.repos[name] = Repo(files=dict(files), **ways)
        repo.commit()
        return repo

    def close(self) -> None:
        """Nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        # ---- answers ----

        def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def json(self, data: object, status: int = 200) -> None:
            self.answer(status, json.dumps(data).encode(), Content_Type="application/json")

        def refuse(self, status: int, code: str) -> None:
            self.answer(status, X_Error_Code=code, X_Error_Message=code)

        @property
        def known(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        # ---- reading ----

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if hub.broken:
                self.answer(503)
                return
            if path.startswith("/api/models/"):
                self.about(path.removeprefix("/api/models/").split("/"))
                return
            elsewhere = path.startswith("/cdn/")
            owner, name, _, revision, *rest = path.removeprefix("/cdn")[1:].split("/") + [""] * 3
            self.file(f"{owner}/{name}", revision, "/".join(part for part in rest if part), elsewhere)

        def find(self, name: str, revision: str) -> tuple[Repo, str] | None:
            repo = hub.repos.get(name)
            if repo is None or (repo.private and not self.known):
                self.refuse(404 if self.known else 401, "RepoNotFound")
            elif repo.gated and not self.known:
                self.refuse(401, "GatedRepo")
            else:
                sha = repo.branches.get(revision, revision)
                if sha in repo.history:
                    return repo, sha
                self.refuse(404, "RevisionNotFound")
            return None

        def about(self, parts: list[str]) -> None:
            found = self.find("/".join(parts[:2]), parts[3] if len(parts) > 3 else "main")
            if found is None:
                return
            repo, sha = found
            if parts[2:3] == ["tree"]:
                files = repo.history[sha].items()
                self.json([{"type": "file", "path": name, "size": len(data), "oid": _etag(data)} for name, data in files])
            else:
                name = "/".join(parts[:2])
                siblings = [{"rfilename": file} for file in repo.history[sha]]
                self.json({"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": [], "private": repo.private})

        def file(self, name: str, revision: str, file: str, elsewhere: bool) -> None:
            found = self.find(name, revision)
            if found is None:
                return
            repo, sha = found
            data = repo.history[sha].get(file)
            if data is None:
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
                return
            if repo.moved and not elsewhere:
                place = f"{repo.moved}/{name}/resolve/{sha}/{file}"
                place = hub.url + place if place.startswith("/") else place
                self.answer(302, Location=place, X_Linked_Size=str(len(data)), X_Linked_Etag=_etag(data), X_Repo_Commit=sha)
                return
            if repo.longer and self.command == "GET":
                self.send_response(200)
                for key, value in {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": sha, "Connection": "close"}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)
                for _ in range(repo.longer // 4096):
                    self.wfile.write(bytes(4096))
                self.close_connection = True
                return
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            headers = {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            ordinary = repo.dies_after is None and repo.gate is None
            if ordinary or self.command == "HEAD" or file == "config.json":
                self.answer(206 if start else 200, data[start:], **headers)
                return
            self.send_response(206 if start else 200)
            for key, value in {**headers, "Content-Length": str(len(data) - start)}.items():
                self.send_header(key, value)
            self.end_headers()
            if repo.gate is None:
                self.wfile.write(data[start : repo.dies_after])
            else:
                self.wfile.write(data[start : len(data) // 2])
                repo.gate.wait(60)
                self.wfile.write(data[len(data) // 2 :])
            self.close_connection = True

        # ---- writing ----

        def do_POST(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"POST {path}")
            body = self.body()
            if not self.known:
                self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
            elif path == "/api/repos/create":
                self.create(json.loads(body))
            elif path == "/api/validate-yaml":
                self.json({"errors": [], "warnings": []})
            elif path.endswith("/info/lfs/objects/batch"):
                self.batch(json.loads(body))
            elif "/preupload/" in path:
                kind = {True: "lfs", False: "regular"}
                files = json.loads(body)["files"]
                self.json(
                    {
                        "files": [
                            {"path": f["path"], "uploadMode": kind[f["path"].endswith(".safetensors")], "shouldIgnore": False}
                            for f in files
                        ]
                    }
                )
            elif "/commit/" in path:
                self.commit("/".join(path.split("/")[3:5]), body)
            else:
                self.answer(404)

        def create(self, request: dict) -> None:
            name = f"{request['organization']}/{request['name']}"
            if request["organization"] == "somebody-else":
                self.answer(403)
                return
            if name in hub.repos:
                self.json({"error": "You already created this model repo", "url": f"{hub.url}/{name}"}, 409)
                return
            hub.add(name, {}, private=request.get("visibility") == "private" or bool(request.get("private")))
            self.json({"url": f"{hub.url}/{name}"})

        def batch(self, request: dict) -> None:
            def action(entry: dict) -> dict:
                return {"upload": {"href": f"{hub.url}/upload/{entry['oid']}", "header": {}}}

            objects = [{"oid": o["oid"], "size": o["size"], "actions": action(o)} for o in request["objects"]]
            self.json({"transfer": "basic", "objects": objects})

        def do_PUT(self) -> None:
            hub.asked.append(f"PUT {self.path}")
            hub.stored[self.path.rsplit("/", 1)[-1]] = self.body()
            self.answer(200)

        def commit(self, name: str, body: bytes) -> None:
            repo = hub.repos[name]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    repo.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    repo.files[line["value"]["path"]] = hub.stored[line["value"]["oid"]]
            sha = repo.commit()
            self.json({"commitUrl": f"{hub.url}/{name}/commit/{sha}", "commitOid": sha, "success": True})

    return Handler


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
