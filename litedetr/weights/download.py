"""One large file from an address: resumed after a break, over https alone, never larger than allowed, told apart from a web page.

``LITEDETR_MIRROR=https://host/prefix`` puts another host before every address: ``https://github.com/a/b`` is then asked for as
``https://host/prefix/github.com/a/b``. Plain http is for this machine alone.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from litedetr.weights.errors import WeightsError, is_full
from litedetr.weights.limits import Progress

LARGEST = 3_000_000_000
"""Bytes of a file that nobody said the size of; the published ones have up to 600 MB, with their optimizer."""
ATTEMPTS = 4
"""Connections in a row that bring nothing more before it is given up."""
PATIENCE = 20.0
"""Seconds without a byte."""
_REDIRECTS = 8
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def download(url: str, file: Path, progress: Progress, size: int | None = None, largest: int = LARGEST) -> Path:
    """Download `url` to `file`; what an earlier attempt left in `file`.part is gone on with.

    Args:
        progress: told (bytes done, bytes in all); what it raises ends the download, which goes on there the next time.
        size: in bytes, where it is known.
        largest: in bytes, where it is not.

    Raises:
        WeightsError: says what came instead of the file, and what to do.
    """
    part = file.with_name(f"{file.name}.part")
    address, failures = mirrored(url), 0
    with httpx.Client(timeout=httpx.Timeout(PATIENCE), headers={"Accept-Encoding": "identity"}) as client:
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                total = _receive(client, address, part, progress, size, largest)
                break
            except httpx.TransportError as error:
                now = part.stat().st_size if part.exists() else 0
                failures = 0 if now > before else failures + 1
                if failures == ATTEMPTS or (now == 0 and isinstance(error, httpx.ConnectError)):
                    raise WeightsError(_broken(address, now, error)) from error
            except OSError as error:
                if not is_full(error):
                    raise
                raise WeightsError(f"There is no room for {file} on the disk: make some and run it again.") from error
    got = part.stat().st_size
    if got != (wanted := size or total or got):
        part.unlink()
        raise WeightsError(f"expected {wanted:,} bytes from {url}, got {got:,}: it is not the file that was published.")
    part.replace(file)
    return file


def sha256(file: Path) -> str:
    """Of the file's content, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def mirrored(url: str) -> str:
    """The address that is asked for `url`.

    Raises:
        WeightsError: it is neither https nor on this machine.
    """
    mirror = os.environ.get("LITEDETR_MIRROR", "").strip().rstrip("/")
    address = f"{mirror}/{url.split('://', 1)[-1]}" if mirror else url
    parts = urlsplit(address)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        where = "LITEDETR_MIRROR" if mirror else "an address"
        raise WeightsError(f"expected {where} that begins with https://, got {address[:200]!r}: others may change what comes.")
    return address


def _receive(
    client: httpx.Client, address: str, part: Path, progress: Progress, size: int | None, largest: int
) -> int | None:
    """One connection: appends to `part`; the bytes in all, None where the server does not say."""
    start = part.stat().st_size if part.exists() else 0
    if start and start == size:
        return size
    for _ in range(_REDIRECTS):
        with client.stream("GET", address, headers={"Range": f"bytes={start}-"} if start else {}) as answer:
            if answer.is_redirect:
                address = _next(address, answer.headers.get("Location", ""))
                continue
            if answer.status_code == 416 and start:  # what is there is not a beginning of the file
                part.unlink()
                return _receive(client, address, part, progress, size, largest)
            _check(answer, address)
            resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            start = start if resumed else 0
            length = answer.headers.get("Content-Length")
            total = start + int(length) if length and length.isdigit() else None
            most = size or largest
            if (total or 0) > most or (size and total and total != size):
                part.unlink(missing_ok=True)
                raise WeightsError(
                    f"expected {'' if size else 'at most '}{most:,} bytes from {address}, got {total:,}: it is not the file "
                    "that was published."
                )
            with part.open("ab" if resumed else "wb") as written:
                for piece in answer.iter_raw():
                    start += len(piece)
                    if start > most:
                        raise WeightsError(f"expected at most {most:,} bytes from {address}, got more: the download was stopped.")
                    written.write(piece)
                    progress(start, total or most)
            return total
    raise WeightsError(f"expected a file at {address}, got {_REDIRECTS} redirects in a row: try again in a while.")


def _next(address: str, location: str) -> str:
    """Where a redirect leads."""
    target = urljoin(address, location)
    here, there = urlsplit(address), urlsplit(target)
    local = here.scheme == "http" and there.scheme == "http" and there.hostname in _LOOPBACK
    if there.scheme != "https" and not local:
        raise WeightsError(f"expected {address} to lead to another https address, got {target[:200]!r}: it was not followed.")
    return target


def _check(answer: httpx.Response, address: str) -> None:
    code, kind = answer.status_code, answer.headers.get("Content-Type", "")
    if code == 404:
        raise WeightsError(f"There is no file at {address} (error 404): it was moved or removed; see the authors' page.")
    if code not in (200, 206):
        raise WeightsError(f"The server of {address} answered with the error {code}: try again in a while.")
    if kind.startswith("text/html"):
        raise WeightsError(
            f"expected a file at {address}, got a web page: a login or a firewall is in between; download the file in a browser "
            'and give its path to "python -m litedetr convert".'
        )


def _broken(address: str, done: int, error: Exception) -> str:
    if done:
        return (
            f"The download from {address} broke off after {done:,} bytes ({type(error).__name__}): run it again, and it goes on "
            "from there."
        )
    return (
        f"{urlsplit(address).netloc} cannot be reached ({type(error).__name__}): check the connection, name another host with "
        'LITEDETR_MIRROR, or download the file elsewhere and give its path to "python -m litedetr convert".'
    )
