"""The examples of docs/api.md run as they stand, against a running page."""

import contextlib
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from app.server.endpoints import MCP
from tests.apart import in_a_thread
from tests.apart import run as run_apart
from tests.app import live

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def example(heading: str) -> str:
    """The code below a heading, asking the page of the tests."""
    code = re.search(rf"^## {heading}\n.*?^```\w+\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)[1]
    assert "http://127.0.0.1:7860" in code
    return code.replace("http://127.0.0.1:7860", live.address())


def run(code: str, monkeypatch) -> dict:
    monkeypatch.chdir(ROOT)
    defined: dict = {"__name__": "example"}
    in_a_thread(exec, compile(code, "docs/api.md", "exec"), defined)
    return defined


def test_python(monkeypatch, capsys):
    code = example("Python")
    capsys.readouterr()  # the page says something where this test is the first to start it
    names = run(code, monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(names["best"]["name"])
    assert [line[:2] for line in lines[1:]] == ["S1", "S2", "S3", "S4"]
    assert names["points"].shape == (8, 4, 2)
    assert names["answer"]["step"] == "B1 all"


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl():
    done = subprocess.run(["bash", "-euc", example("curl")], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    lines = done.stdout.splitlines()
    answer = json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))[0]
    assert answer["step"] == "B1 all"
    assert answer["kind"] == "token"


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")
def test_javascript():
    command = ["node", "--input-type=module", "--eval", example("JavaScript")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    step, share = done.stdout.rsplit(maxsplit=1)
    assert step == "decoder 3"
    assert 0 < float(share) < 1


def test_every_key_of_the_answers_is_described(engine):
    from app.server.explain import explain

    photo = ROOT / "assets" / "examples" / "cat.jpg"
    answers = engine.detect(photo, 0.0).to_dict(), explain(engine.run(photo, keep=False))
    for key in {*answers[0], *answers[0]["detections"][0], *answers[1], *answers[1]["scales"]["S1"]}:
        assert re.search(rf"`{key}`", TEXT), key


def test_the_schema_names_both_endpoints_and_no_other():
    with urllib.request.urlopen(f"{live.address()}/gradio_api/openapi.json", timeout=60) as answer:
        paths = json.load(answer)["paths"]
    assert {path.split("/")[4] for path in paths if path.startswith("/gradio_api/call/v2/")} == {"detect", "explain"}
    body = paths["/gradio_api/call/v2/explain"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {"photo", "x", "y", "detection", "step", "scale"}


@pytest.mark.skipif(not MCP, reason="needs gradio[mcp]")
def test_mcp(monkeypatch, capsys):
    names = run(example("MCP"), monkeypatch)
    assert 0 < float(capsys.readouterr().out) < 1
    asked = run_apart(names["explain"]("assets/examples/cat.jpg", x=120, y=80, step="B1 all"))
    assert asked["kind"] == "token"
    assert asked["rebuild_error"] < 1e-4

    async def tools():
        opened = names["streamablehttp_client"](f"{live.address()}/gradio_api/mcp/")
        async with opened as (read, write, _), names["ClientSession"](read, write) as session:
            await session.initialize()
            return {tool.name: tool for tool in (await session.list_tools()).tools}

    listed = run_apart(tools())
    assert set(listed) == {"detect", "explain"}
    assert set(listed["explain"].inputSchema["properties"]) == {"photo", "x", "y", "detection", "step", "scale"}
    assert "sampling points" in listed["explain"].description


def test_an_mcp_server_only_where_its_packages_are():
    found = set()
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{live.address()}/gradio_api/mcp/schema") as answer:
        found = {tool["name"] for tool in json.load(answer)}
    assert found == ({"detect", "explain"} if MCP else set())
