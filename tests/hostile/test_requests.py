"""The running page and what strangers send it: each request gets a sentence and a status, and the page works after."""

import json
import re
from dataclasses import replace

import httpx
import numpy as np
import pytest

from app.figure import standalone
from app.run.state import ViewState
from app.server.exports import coco_json
from app.server.lookups import Lookups
from app.server.routes import _plain
from app.views import VIEWS
from litedetr.image import PhotoError, open_photo
from tests.apart import run as run_apart
from tests.app import live
from tests.hostile import pictures
from tests.load.visitor import Visitor

MARKUP = "</script><img src=x onerror=alert(1)>{{7*7}}${7*7}"
SMALL = pictures.encoded(pictures.quarters())


@pytest.fixture(scope="module")
def url() -> str:
    return live.address()


@pytest.fixture(scope="module")
def engine():
    return live.engine()


@pytest.fixture(scope="module")
def http(url):
    limits = httpx.Limits(keepalive_expiry=3)  # the server closes what is idle for five seconds
    with httpx.Client(base_url=url, timeout=300, trust_env=False, limits=limits) as client:
        yield client


@pytest.fixture(scope="module", autouse=True)
def works_after(http):
    """Whatever these tests send, the next visitor's photo is seen."""
    yield
    answer = call(http, "detect", [uploaded(http, "photo.png", SMALL), 0.0])
    assert answer[0]["width"] == 40


@pytest.fixture(scope="module")
def run(engine):
    return engine.run(SMALL, MARKUP)


def uploaded(http, name: str, content: bytes) -> dict:
    path = http.post("/gradio_api/upload", files={"files": (name, content)}).raise_for_status().json()[0]
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def call(http, name: str, data, text: str | None = None):
    """The answer's data, or its sentence."""
    body = json.dumps({"data": data}) if text is None else text
    job = http.post(f"/gradio_api/call/{name}", content=body, headers={"Content-Type": "application/json"}).raise_for_status()
    stream = http.get(f"/gradio_api/call/{name}/{job.json()['event_id']}").raise_for_status().text
    harmless(stream)
    event, value = re.search(r"event: (complete|error)\ndata: (.*)", stream).groups()
    return json.loads(value) if event == "complete" else json.loads(value)["error"]


def harmless(text: str) -> None:
    """Neither a traceback nor a place on this machine's disk."""
    assert "Traceback" not in text
    assert not re.search(r'/(tmp|opt|usr|home|root)/|\.py"', text)


def sentence_of(content: bytes) -> str:
    with pytest.raises(PhotoError) as error:
        open_photo(content)
    return str(error.value)


@pytest.mark.parametrize("name", pictures.refused())
def test_a_hostile_picture_for_a_program(http, name):
    content = pictures.refused()[name][0]
    assert call(http, "detect", [uploaded(http, name, content), 0.5]) == sentence_of(content)


def test_hostile_pictures_on_the_page(url):
    async def send() -> dict[str, dict]:
        async with Visitor(url) as visitor:
            last = {}
            for name, (content, _) in pictures.refused().items():
                async for event in visitor.analyse(await visitor.upload(content, name)):
                    last[name] = event
            return last

    last = run_apart(send())
    assert {name: event.get("error") for name, event in last.items()} == {
        name: sentence_of(content) for name, (content, _) in pictures.refused().items()
    }


@pytest.mark.parametrize("name", ["one.png", "tall.png", "wide.png"])
def test_an_odd_picture_runs(engine, name):
    content, size = pictures.taken()[name]
    seen = engine.run(content, name, keep=False)
    assert seen.size == size
    assert 0 < len(seen.detections) <= engine.detector.config.top_k
    assert np.isfinite(seen.detections.boxes).all()


def test_names_of_files(http):
    """A name becomes part of no path but its last one, and is quoted in no header."""
    for name in pictures.NAMES:
        path = uploaded(http, name, SMALL)["path"]
        assert re.fullmatch(r".*/[0-9a-f]{64}/[^/]+", path)
        assert re.fullmatch(r"[A-Za-z0-9_ -]+-lite-detr", _plain(name))
    assert (
        call(http, "detect", [{"path": path, "orig_name": MARKUP, "meta": {"_type": "gradio.FileData"}}, 1.0])[0]["width"] == 40
    )


def test_names_with_markup_stay_words(engine, run):
    """In what is taken away; in the page they are text nodes."""
    named = replace(run.detections, class_names=(MARKUP,) * len(run.config.names))
    config = replace(run.config, class_names=named.class_names)
    marked = replace(run, detections=named, config=config)
    for view in ("detections", "points", "lookers", "onion", "missed", "leak"):  # those that name classes
        page = standalone(marked, ViewState(view=view, threshold=0.0))
        assert page.count("</script>") == page.count("<script")
        assert "<img src=x" not in page
    assert json.loads(coco_json(marked, 0.0))["categories"][0]["name"] == MARKUP


NUMBERS = ("NaN", "Infinity", "-1", "1e308", "-1e-300", '"abc"', '"0.5"', "[0.5]", "{}", "9" * 400)


@pytest.mark.parametrize("number", NUMBERS, ids=[text[:9] for text in NUMBERS])
def test_a_threshold_that_is_none(http, number):
    photo = uploaded(http, "photo.png", SMALL)
    assert "expected " in (said := call(http, "detect", None, f'{{"data": [{json.dumps(photo)}, {number}]}}'))
    assert len(said) < 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ('"left", 1, null, "auto", "auto"', "expected x as a number, got 'left'"),
        ("NaN, 1, null, null, null", "expected x from 0 to 40 and y from 0 to 20, the photo's pixels, got nan, 1"),
        ("1e308, -1e308, null, null, null", "expected x from 0 to 40"),
        ("null, null, NaN, null, null", "expected a detection from 0 to"),
        ("null, null, 1e300, null, null", "expected a detection from 0 to"),
        ('null, null, null, "{{x}}", null', 'expected the step "auto" or one of '),
        ('null, null, null, null, {"S1": 1}', 'expected the scale "auto" or one of '),
        ('1, 1, 0, "auto", "auto"', "expected a point or a detection, got both"),
    ],
)
def test_arguments_of_explain(http, arguments, words):
    photo = json.dumps(uploaded(http, "photo.png", SMALL))
    assert words in call(http, "explain", None, f'{{"data": [{photo}, {arguments}]}}')


PHOTOS = {
    "a path": "/etc/passwd",
    "a file of the machine": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
    "an address": {"path": "http://127.0.0.1:9/x.png", "meta": {"_type": "gradio.FileData"}},
    "a public address": {"path": " HTTPS://example.com/x.png", "meta": {"_type": "gradio.FileData"}},
    "a number": 5,
    "a list": [[]],
    "a null byte": {"path": "/tmp/x\0.png", "meta": {"_type": "gradio.FileData"}},
    "a long path": {"path": "x" * 9000, "meta": {"_type": "gradio.FileData"}},
}


@pytest.mark.parametrize("photo", PHOTOS.values(), ids=PHOTOS)
def test_a_photo_that_was_not_uploaded(http, photo):
    said = call(http, "detect", [photo, 0.5])
    linked = isinstance(photo, dict) and "http" in photo["path"].lower()
    assert said.startswith("Links are not opened here" if linked else "Expected the arguments that this endpoint names")


def test_bodies_that_are_no_order(http):
    assert "Expected the arguments" in call(http, "detect", [])
    assert "No photo came" in call(http, "detect", [None, 0.5])
    for body in (b"", b"{", b"[]", b"null", b'{"data": 1}', b'{"data": ' + b"[" * 100_000, b"\xff\xfe"):
        answer = http.post("/gradio_api/call/detect", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422)
        harmless(answer.text)
        assert len(answer.json()["detail"]) > 0
    for address in ("/gradio_api/call/nothing", "/gradio_api/run/nothing"):
        answer = http.post(address, json={"data": []})
        assert answer.status_code == 404
        assert answer.json()["detail"].startswith("There is no endpoint of this name")
    unknown = {"session_hash": "x", "component_id": 10**9, "fn_name": "look", "data": {}}
    # On a connection of its own: the server closes it after such an answer.
    answer = httpx.post(f"{live.address()}/gradio_api/component_server", json=unknown, trust_env=False, timeout=300)
    assert answer.status_code == 500
    assert answer.json()["detail"] == "This request could not be answered: check what it sends, or load the page again."


def test_oversize_bodies(http):
    def pieces(count: int):
        yield b'{"data": ["'
        for _ in range(count):
            yield b"x" * 2**16
        yield b'"]}'

    kind = {"Content-Type": "application/json"}
    declared = http.post("/gradio_api/call/detect", content=b"".join(pieces(20)), headers=kind)
    in_pieces = http.post("/gradio_api/queue/join", content=pieces(40), headers=kind)
    looked = http.post("/gradio_api/component_server", content=pieces(40), headers=kind)
    for answer in (declared, in_pieces, looked):
        assert answer.status_code == 413
        assert answer.json()["detail"] == "Expected at most 1 MB, got more: send less."
    for count in (1, 3):  # one large photo, and several that are large together
        files = [("files", (f"{number}.png", bytes(21 * 2**20 // count))) for number in range(count)]
        answer = http.post("/gradio_api/upload", files=files)
        assert answer.status_code == 413
        assert answer.json()["detail"] == "Expected at most 20 MB, got more: send a smaller photo."


def test_runs_of_others_cannot_be_guessed(engine, http, run):
    engine.store.put(run)
    other = engine.run(SMALL, "mine.png")
    assert run.id != other.id
    assert re.fullmatch(r"[\w-]{24}", run.id)  # 144 bits of chance
    lookups = Lookups(engine.store)
    nearly = run.id[:-1] + ("A" if run.id[-1] != "A" else "B")
    others = ("", "*", "x" * 10_000, None, 0, True, [], {}, [run.id], float("nan"))
    for wrong in (nearly, run.id.swapcase(), run.id[:10], run.id + "\n", *others):
        for ask in (lookups.open, lookups.look):
            answer = ask({"run": wrong})
            assert answer.pop("expired")
            assert answer.pop("seq") is None
            assert list(answer) == ["error"]
    for address in (nearly, "%00", "..", "..%2f..", "*", run.id[:10], "x" * 4000):
        for file in ("photo.jpg", "detections.json", "detections.png", "figure.html"):
            answer = http.get(f"/lite/run/{address}/{file}")
            assert answer.status_code == 404
            harmless(answer.text)
    assert http.get("/lite/run").status_code == http.get("/lite/run/").status_code == 404


JUNK = [
    None, 1, "", "x", [], {}, {"run": {}}, {"state": 5}, {"pick": "here"}, {"pick": [float("nan")] * 2}, {"pick": [1e308, 0]},
    {"move": [float("inf"), 0]}, {"pick": [[], {}]}, {"state": {"view": ["points"]}}, {"seq": {"a": [1]}},
]  # fmt: skip


def test_junk_for_look_ups(engine, run, caplog):
    engine.store.put(run)
    lookups = Lookups(engine.store)
    for junk in JUNK:
        for ask in (lookups.open, lookups.look):
            assert "error" in ask(junk)
            answer = ask({**junk, "run": run.id}) if isinstance(junk, dict) else {}
            assert "error" not in answer or answer.get("expired")
    assert caplog.records == []


STATES = [
    {"t": "NaN", "q": "99999", "step": "decoder 99", "head": "1000", "n": "100000", "cls": "9999"},
    {"at": "0,0", "scale": "S9", "step": "B1 all", "hide": "S1,S2,S3,S4", "mute": "S1,S2,S3,S4,step,h99.S9.99"},
    {"q": "0", "box": "0,0,1,1", "plan": "H9L9-(99+1)x99", "other": "../etc", "film": "change", "tour": "99"},
    {"at": "1,1", "box": "0.9,0.9,0.9006,0.9006", "plan": "H1L3-(36+1)x1", "heat": "1", "t": "1", "lang": "ko"},
    {"q": "-1", "at": "nan,inf", "box": "1e999,0,0,0", "plan": "H4L0-(1+1)x36", "mute": "," * 3000},
]


@pytest.mark.parametrize("view", VIEWS)
def test_crafted_states(engine, run, view, caplog):
    """Every view draws something for them, and nothing is logged."""
    engine.store.put(run)
    lookups = Lookups(engine.store)
    for number, state in enumerate(STATES):
        request = {"run": run.id, "state": {"view": view, **state}, "pick": [0.99, 0.0] if number % 2 else None}
        answer = lookups.look(request)
        assert "error" not in answer
        assert answer["view"] in VIEWS
        assert json.loads(answer["figure"], parse_constant=pytest.fail)["data"] is not None
    assert caplog.records == []


def test_crafted_links(http):
    queries = ("view=<script>alert(1)</script>&t=NaN", "plan=" + "9" * 5000, "a=%00%ff&at=1e999,nan", "model=../../etc&other=%0a")
    for query in queries:
        answer = http.get(f"/?{query}")
        assert answer.status_code == 200
        assert "alert(1)" not in answer.text


def test_files_of_the_machine(http):
    for path in ("/etc/passwd", "..%2f..%2fapp.py", "app.py", "%2e%2e/%2e%2e/etc/passwd", "%00"):
        answer = http.get(f"/gradio_api/file={path}")
        assert answer.status_code in (403, 404)
        assert "Traceback" not in answer.text
