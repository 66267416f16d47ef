"""What uploads leave on the disk."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from gradio.utils import get_upload_folder

from app.server import uploads
from app.server.guard import MAX_FILE
from tests.app.faults import until


def files() -> set[Path]:
    return {path for path in Path(get_upload_folder()).rglob("*") if path.is_file()}


def test_an_upload_that_breaks_off_leaves_nothing(url):
    before, place = files(), urlsplit(url)
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {10 * 1024**2}\r\n\r\n"
    )
    for _ in range(3):
        with socket.create_connection((place.hostname, place.port)) as connection:
            connection.sendall(head.encode() + part + bytes(1024**2))
            until(lambda: files() != before)  # it is on its way
    until(lambda: files() == before)


def test_what_is_too_large_or_named_otherwise_leaves_nothing(url):
    before = files()

    def pieces():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
        for _ in range(MAX_FILE // 1024**2 + 2):
            yield bytes(1024**2)
        yield b"\r\n--x--\r\n"

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        assert http.post("/gradio_api/upload", content=pieces(), headers=kind).status_code == 413
        http.post("/gradio_api/upload", files={"other": ("a.jpg", b"x" * 1000)})
        until(lambda: files() == before)
        assert http.get("/static/" + "a" * 5000).status_code == 404


def test_what_a_killed_page_left_goes_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "ALL_UPLOADS", tmp_path)
    for name in ("999999999", str(os.getpid()), str(os.getppid()), "0123abc"):
        (tmp_path / name / "photo").mkdir(parents=True)
        (tmp_path / name / "photo" / "a.jpg").write_bytes(b"x")
    (tmp_path / "tmp1").write_bytes(b"x")
    uploads.forget_the_dead()
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getppid())]
