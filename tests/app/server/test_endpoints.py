"""The running page on loopback: the endpoint for programs, and the plain files."""

import json
import urllib.error
import urllib.request

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from app.engine.engine import EXAMPLES
from app.server.routes import PLOTLY
from tests.app import live

CAT = EXAMPLES / "cat.jpg"


@pytest.fixture(scope="module")
def url() -> str:
    return live.address()


@pytest.fixture(scope="module")
def client(url):
    return Client(url, verbose=False)


def fetch(address, data=None):
    request = urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status, answer.headers, answer.read()


def test_detect_through_the_client(client, engine):
    answer = client.predict(handle_file(str(CAT)), 0.0, api_name="/detect")
    assert answer == json.loads(json.dumps(engine.detect(CAT, 0.0).to_dict()))
    assert (answer["width"], answer["height"]) == (451, 300)
    assert set(answer["detections"][0]) == {"name", "label", "score", "box"}


def test_the_threshold_holds(client):
    answer = client.predict(handle_file(str(CAT)), 1.0, api_name="/detect")
    assert answer["detections"] == []


def test_detect_through_rest(url):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="cat.jpg"\r\n\r\n' + CAT.read_bytes() + b"\r\n--x--\r\n"
    )
    upload = urllib.request.Request(f"{url}/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"})
    with urllib.request.urlopen(upload, timeout=60) as answer:
        path = json.load(answer)[0]
    photo = {"path": path, "orig_name": "cat.jpg", "meta": {"_type": "gradio.FileData"}}
    _, _, answer = fetch(f"{url}/gradio_api/call/detect", json.dumps({"data": [photo, 0.0]}).encode())
    _, _, stream = fetch(f"{url}/gradio_api/call/detect/{json.loads(answer)['event_id']}")
    lines = stream.decode().splitlines()
    data = json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))
    assert data[0]["width"] == 451


def test_a_bad_picture_is_a_sentence_for_programs_too(client, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"no picture")
    with pytest.raises(AppError, match="not a picture"):
        client.predict(handle_file(str(path)), 0.3, api_name="/detect")


def test_files_of_the_machine_stay_where_they_are(url):
    photo = {"path": str(CAT.parent.parent.parent / "pyproject.toml"), "meta": {"_type": "gradio.FileData"}}
    _, _, answer = fetch(f"{url}/gradio_api/call/detect", json.dumps({"data": [photo, 0.0]}).encode())
    _, _, stream = fetch(f"{url}/gradio_api/call/detect/{json.loads(answer)['event_id']}")
    assert "event: error" in stream.decode()


def test_the_public_events(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/detect", "/explain"}
    assert client.view_api(return_format="dict")["unnamed_endpoints"] == {}


def test_the_pages_own_files(url):
    for path in ("lite/stage/stage.css", "lite/stage/js/main.js", "lite/examples/cat.jpg"):
        status, headers, _ = fetch(f"{url}/{path}")
        assert status == 200
        assert headers["Cache-Control"] == "no-cache"
    status, headers, script = fetch(f"{url}/{PLOTLY}")
    assert "immutable" in headers["Cache-Control"]
    assert len(script) > 1_000_000


@pytest.mark.parametrize(
    "path", ["lite/stage/../../app.py", "lite/stage/%2e%2e/engine.py", "lite/examples/..%2fweights%2fconfig.json"]
)
def test_nothing_else_is_served(url, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(f"{url}/{path}")
    assert caught.value.code == 404


def test_a_runs_files(url, run, engine):
    engine.store.put(run)
    base = f"{url}/lite/run/{run.id}"
    status, headers, picture = fetch(f"{base}/photo.jpg")
    assert headers["Content-Type"] == "image/jpeg"
    assert picture == run.picture
    _, headers, content = fetch(f"{base}/detections.json?t=0")
    assert headers["Content-Disposition"] == 'attachment; filename="scene-lite-detr.json"'
    assert len(json.loads(content)["annotations"]) == len(run.detections)
    _, _, picture = fetch(f"{base}/detections.png?t=junk")
    assert picture.startswith(b"\x89PNG")
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(f"{url}/lite/run/unknown/photo.jpg")
    assert caught.value.code == 404
