"""Large files over connections that break, servers that err, and addresses that lead elsewhere."""

import hashlib
import random
import threading
from pathlib import Path

import pytest

from litedetr.weights import WeightsError
from litedetr.weights.download import download, sha256

DATA = random.Random(3).randbytes(700_000)
URL = "https://example.org/some/file.pth"
PATH = "/example.org/some/file.pth"


def fetch(folder, told=None, **options):
    return download(URL, folder / "file.pth", _teller(told), **options)


def _teller(told):
    return lambda done, total: None if told is None else told.append((done, total))


def refusal(folder, **options) -> str:
    with pytest.raises(WeightsError) as error:
        fetch(folder, **options)
    assert not (folder / "file.pth").exists()
    return str(error.value)


def test_a_file_through_a_redirect(host, tmp_path):
    host.add(PATH, leads_to="/elsewhere?signed=1")
    host.add("/elsewhere?signed=1", DATA)
    told = []
    assert fetch(tmp_path, told).read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert sorted(told) == told
    assert sha256(tmp_path / "file.pth") == hashlib.sha256(DATA).hexdigest()
    assert [path for path, _ in host.asked] == [PATH, "/elsewhere?signed=1"]
    assert {file.name for file in tmp_path.glob("file*")} == {"file.pth"}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_break_in_the_middle_is_gone_on_with(host, tmp_path, ranges):
    host.add(PATH, DATA, ranges=ranges, dies_after=[300_000, 200_000] if ranges else [300_000])
    assert fetch(tmp_path).read_bytes() == DATA
    assert [part for _, part in host.asked] == (["", "bytes=300000-", "bytes=500000-"] if ranges else ["", "bytes=300000-"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_disk_without_room(host, tmp_path):
    host.add(PATH, DATA)
    (tmp_path / "file.pth.part").symlink_to("/dev/full")
    assert refusal(tmp_path) == f"There is no room for {tmp_path / 'file.pth'} on the disk: make some and run it again."


def test_a_stop_is_gone_on_with_the_next_time(host, tmp_path):
    host.add(PATH, DATA)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(URL, tmp_path / "file.pth", stop)
    done = (tmp_path / "file.pth.part").stat().st_size
    assert 0 < done < len(DATA)
    assert fetch(tmp_path).read_bytes() == DATA
    assert host.asked[-1] == (PATH, f"bytes={done}-")


def test_a_beginning_that_is_longer_than_the_file(host, tmp_path):
    host.add(PATH, DATA)
    (tmp_path / "file.pth.part").write_bytes(DATA + b"more")
    assert fetch(tmp_path).read_bytes() == DATA


def test_nobody_goes_on(host, tmp_path):
    host.add(PATH, DATA, dies_after=[1000] + [0] * 10)
    message = refusal(tmp_path)
    assert message.startswith(f"The download from {host.url}{PATH} broke off after 1,000 bytes (")
    assert message.endswith("): run it again, and it goes on from there.")
    host.add(PATH, DATA)
    assert fetch(tmp_path).read_bytes() == DATA


def test_what_is_not_the_file(host, tmp_path):
    address = host.url + PATH
    assert refusal(tmp_path) == (
        f"There is no file at {address} (error 404): it was moved or removed; see the authors' page."
    )
    host.add(PATH, b"<html>", kind="text/html; charset=utf-8")
    assert refusal(tmp_path).startswith(f"expected a file at {address}, got a web page: a login or a firewall is in between;")
    host.add(PATH, b"", status=503)
    assert refusal(tmp_path) == f"The server of {address} answered with the error 503: try again in a while."
    host.add(PATH, DATA)
    assert refusal(tmp_path, size=5_000) == (
        f"expected 5,000 bytes from {address}, got 700,000: it is not the file that was published."
    )
    assert refusal(tmp_path, largest=5_000).startswith("expected at most 5,000 bytes from")
    host.add(PATH, DATA, length=900_000)
    assert "broke off after 700,000 bytes" in refusal(tmp_path)
    host.add(PATH, leads_to=PATH)
    assert refusal(tmp_path) == f"expected a file at {address}, got 8 redirects in a row: try again in a while."


def test_https_alone(host, tmp_path, monkeypatch):
    host.add(PATH, leads_to="http://example.org/file")
    assert refusal(tmp_path) == (
        f"expected {host.url}{PATH} to lead to another https address, got 'http://example.org/file': it was not followed."
    )
    monkeypatch.setenv("LITEDETR_MIRROR", "http://example.org")
    assert refusal(tmp_path).startswith("expected LITEDETR_MIRROR that begins with https://, got 'http://example.org/example.org/")
    monkeypatch.delenv("LITEDETR_MIRROR")
    with pytest.raises(WeightsError, match="expected an address that begins with https://"):
        download("http://example.org/file", tmp_path / "file", _teller(None))


def test_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("LITEDETR_MIRROR", "http://127.0.0.1:9")
    assert refusal(tmp_path) == (
        "127.0.0.1:9 cannot be reached (ConnectError): check the connection, name another host with LITEDETR_MIRROR, or download "
        'the file elsewhere and give its path to "python -m litedetr convert".'
    )


def test_a_slow_server_is_waited_for(host, tmp_path):
    gate = threading.Event()
    host.add(PATH, DATA, gate=gate)
    told = []
    worker = threading.Thread(target=fetch, args=(tmp_path, told))
    worker.start()
    while not told:
        gate.wait(0.01)
    assert told[-1][0] < len(DATA)
    gate.set()
    worker.join(60)
    assert (tmp_path / "file.pth").read_bytes() == DATA
