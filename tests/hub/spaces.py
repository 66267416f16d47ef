"""The small Hub on loopback, as it treats Spaces."""

from __future__ import annotations

import json

from tests.hub.server import Hub


class SpaceHub(Hub):
    """`Hub` for Spaces; `made` holds the requests to make one, `hardware` what was asked for,
    and `variables` what was set, by name.

    Its routes for Spaces differ from those for models by a word in the path.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[dict] = []
        self.hardware: dict[str, str] = {}
        self.variables: dict[str, dict[str, str]] = {}
        hub = self

        class Handler(self._server.RequestHandlerClass):
            def do_GET(self) -> None:
                self.path = self.path.replace("/api/spaces/", "/api/models/", 1)
                super().do_GET()

            def do_POST(self) -> None:
                self.path = self.path.replace("/api/spaces/", "/api/models/", 1)
                if self.path.endswith("/variables"):
                    given = json.loads(self.body())
                    hub.variables["/".join(self.path.split("/")[3:5])] = {given["key"]: given["value"]}
                    self.json({given["key"]: {"value": given["value"]}})
                    return
                if not self.path.endswith("/hardware"):
                    super().do_POST()
                    return
                flavor = json.loads(self.body())["flavor"]
                if flavor == "too-dear":
                    self.answer(402, X_Error_Message="Payment required")
                    return
                hub.hardware["/".join(self.path.split("/")[3:5])] = flavor
                self.json({"stage": "BUILDING", "hardware": {"current": None, "requested": flavor}, "storage": None})

            def create(self, request: dict) -> None:
                hub.made.append(request)
                name = f"{request['organization']}/{request['name']}"
                if request["organization"] == "somebody-else":
                    self.answer(403)
                elif name in hub.repos:
                    self.json({"error": "You already created this space repo", "url": f"{hub.url}/spaces/{name}"}, 409)
                else:
                    hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
                    self.json({"url": f"{hub.url}/spaces/{name}"})

            def commit(self, name: str, body: bytes) -> None:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "deletedFile":
                        del hub.repos[name].files[line["value"]["path"]]
                super().commit(name, body)

        self._server.RequestHandlerClass = Handler
