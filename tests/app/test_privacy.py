"""Photos of visitors: where they lie, for how long, and that nobody else hears of them."""

import os
import socket
import stat
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from app.deploy import contents
from app.server import cleanup
from app.server.cleanup import sweep
from app.server.uploads import own_folder
from app.ui import build
from tests.app import own_process

NAME = "a-name-that-nobody-may-read.png"


def until(true, seconds: float = 60.0) -> bool:
    """Wait for something, not for longer than that."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.1)
    return true()


def status(server, path: str = "/", **headers: str) -> int:
    try:
        server.get(path, **headers)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def hosts_and_origins(server) -> None:
    """The names that the host gave are answered to and no others; no page elsewhere may read what one on localhost says."""
    port = server.url.rpartition(":")[2]
    for host, expected in (("page.example.org", 200), ("127.0.0.1", 200), ("evil.example", 400), ("page.example.org.evil", 400)):
        assert status(server, Host=f"{host}:{port}") == expected
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        request = urllib.request.Request(server.url + "/config", headers={"Origin": origin})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] is None
    for path in ("/static/", "/gradio_api/file=", "/lite/run/", "/lite/stage/", "/"):
        assert status(server, path + 5000 * "a") in (403, 404)


def broken_off(server, count: int) -> None:
    """Uploads that end in their midst."""
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        'Content-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\nabc'
    )
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
            connection.sendall(head.encode())


def test_the_space_starts_alone_and_offline_and_forgets_photos(tmp_path):
    """What app.deploy uploads, in a folder that holds nothing else. Every connection that does not end on this machine is noted,
    and there is none; a photo is gone from the disk after its lifetime, here of six seconds, and the log never names it."""
    for name, file in contents().items():
        (tmp_path / "space" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "space" / name).write_bytes(file if isinstance(file, bytes) else file.read_bytes())
    Image.new("RGB", (90, 60), "red").save(tmp_path / NAME)
    environment = {
        "LITEDETR_KEEP_MINUTES": "0.1", "GRADIO_ANALYTICS_ENABLED": "True", "LITEDETR_HOSTS": "127.0.0.1,page.example.org",
        "GRADIO_ROOT_PATH": "/demo",
    }  # fmt: skip
    with own_process.started(tmp_path / "space", tmp_path, one_processor=True, **environment) as server:
        assert "Lite DETR, live" in server.get("/").decode()
        assert server.get("/lite/stage/js/main.js")
        answers = []

        def answered() -> bool:
            with suppress(AssertionError):  # a busy machine may take longer than the photo lives
                answers.append(server.ask("explain", tmp_path / NAME))
            return bool(answers)

        assert until(answered, 180)
        assert (answers[0]["width"], answers[0]["height"]) == (90, 60)
        before = time.time()
        path = server.upload(tmp_path / NAME)
        assert Path(path) in server.uploads()
        folder = next(tmp_path.glob("litedetr-uploads-*"))
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert until(lambda: not server.uploads())
        assert time.time() - before > 5.9
        with pytest.raises(urllib.error.HTTPError):
            server.get(f"/gradio_api/file={path}")
        assert server.outside() == []
        hosts_and_origins(server)
        # Below a path that a proxy takes off, or keeps.
        for path in ("/", "/config", "/lite/stage/js/main.js", "/lite/alive", "/gradio_api/info"):
            assert status(server, path) == status(server, f"/demo{path}") == 200
        broken_off(server, 40)
        assert until(lambda: not server.uploads())
        server.upload(tmp_path / NAME)
        assert server.uploads()
    assert server.uploads() == []  # it was told to end
    log = server.log()
    assert "nobody-may-read" not in log
    assert str(tmp_path) not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("jump", [-7200, 7200])
def test_a_clock_that_is_set_keeps_no_photo_for_longer(tmp_path, monkeypatch, jump):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    sweep(tmp_path, 3600)
    assert (tmp_path / "photo.jpg").exists()
    now = time.time()
    monkeypatch.setattr(cleanup, "time", SimpleNamespace(time=lambda: now + jump))
    sweep(tmp_path, 3600)
    assert not (tmp_path / "photo.jpg").exists()


def test_what_is_swept(tmp_path):
    for name in ("old/photo.jpg", "new/photo.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "old" / "link").symlink_to("/etc")
    time.sleep(0.3)
    (tmp_path / "new" / "photo.jpg").touch()
    sweep(tmp_path, 0.2)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [tmp_path / "new" / "photo.jpg"]
    time.sleep(0.3)
    sweep(tmp_path, 0.2)
    time.sleep(0.3)
    sweep(tmp_path, 0.2)
    assert list(tmp_path.iterdir()) == []
    assert os.path.exists("/etc")


def test_the_folder_of_photos_is_this_users_own(tmp_path):
    (tmp_path / "open").mkdir(mode=0o777)
    own_folder(tmp_path / "open")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(RuntimeError, match="to be a folder of yours, got somebody else's: set GRADIO_TEMP_DIR"):
        own_folder(tmp_path / "link")


def test_analytics_are_off_whatever_the_environment_says(engine, monkeypatch):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    assert build(engine).analytics_enabled is False
