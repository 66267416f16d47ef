"""The page's own files, whatever stands before the server."""

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.engine.store import RunStore
from app.server.routes import PLOTLY, routes

FILES = ("lite/stage/js/main.js", "lite/stage/stage.css", "lite/examples/cat.jpg", "lite/alive", PLOTLY)


@pytest.mark.parametrize("root_path", ["", "/demo"])
def test_files_where_a_proxy_takes_a_prefix_off_and_where_none_does(root_path):
    client = TestClient(Starlette(routes=routes(RunStore())), root_path=root_path)
    assert [client.get(f"/{path}").status_code for path in FILES] == [200] * len(FILES)
    first = client.get("/lite/stage/js/main.js")
    assert first.headers["Cache-Control"] == "no-cache"
    assert client.get("/lite/stage/js/main.js", headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    assert client.get("/lite/alive").text == client.get("/lite/alive").text


@pytest.mark.parametrize("path", ["..%2f..%2fui.py", "%2fetc%2fpasswd", "js/../../theme.py", "", "none.js"])
def test_nothing_else_is_served(path):
    client = TestClient(Starlette(routes=routes(RunStore())))
    assert client.get(f"/lite/stage/{path}").status_code == 404
