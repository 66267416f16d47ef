"""What the authors published: a catalogue, and each checkpoint downloaded and converted once, into a cache.

The cache is ``LITEDETR_DOWNLOADS``, else ``~/.cache/litedetr/published``. It keeps the converted form and the SHA-256 of the
file; one that has another the next time is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from tqdm import tqdm

from litedetr.config import presets
from litedetr.weights.download import LARGEST, download, sha256
from litedetr.weights.errors import WeightsError
from litedetr.weights.folder import convert_file
from litedetr.weights.limits import Progress

CATALOGUE = Path(__file__).with_suffix(".json")
FILES = ("README.md", "model.safetensors", "config.json")
"""Of the converted form, the one that says that it is complete last."""


@dataclass(frozen=True)
class Published:
    """One checkpoint that somebody published.

    Attributes:
        name: what it is called here; preset: the architecture.
        url: of the file; or repo: "owner/name" on the Hub, in transformers' format.
        bytes, sha256: of the file, None where nobody has checked.
        schedule, heads: what the file does not tell, None where it does.
        ap: on COCO val2017, in the authors' words; gmacs: of a photo of 800 x 1066; megabytes: once converted.
        authors, licence, source: whose it is, and the page that says so.
        checked: whether somebody has run ``verify --published`` on it; note: what is to be known.
    """

    name: str
    preset: str = ""
    url: str | None = None
    repo: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    schedule: str | None = None
    heads: int | None = None
    ap: float | None = None
    gmacs: float | None = None
    megabytes: int | None = None
    authors: str = ""
    licence: str = ""
    source: str = ""
    checked: bool = False
    note: str = ""

    @property
    def file(self) -> str:
        """The file's name, which conversion reads, too."""
        return Path(urlsplit(self.url or "").path).name

    @property
    def folder(self) -> Path:
        """Where in the cache its converted form is, once it is."""
        told = f"{self.url or self.repo}|{self.schedule}|{self.heads}"
        name = re.sub(r"[^\w.-]", "_", self.name)[:80]
        return cache() / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


@lru_cache(maxsize=1)
def catalogue() -> dict[str, Published]:
    """What is published, by name."""
    return {entry["name"]: Published(**entry) for entry in json.loads(CATALOGUE.read_text(encoding="utf-8"))}


def places() -> dict[str, str]:
    """Where the weights of presets are, as Markdown."""
    published = {entry.preset: f"[{entry.authors}]({entry.source})" for entry in reversed(catalogue().values()) if entry.preset}
    return {**published, "lite-dino-nanodet-g": "embedded"}


def write_catalogue(entries: Iterable[Published], file: Path = CATALOGUE) -> None:
    """As `catalogue` reads it."""
    always = ("bytes", "sha256")
    listed = [{key: value for key, value in asdict(entry).items() if value is not None or key in always} for entry in entries]
    file.write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def cache() -> Path:
    """The folder of what was downloaded and converted."""
    return Path(os.environ.get("LITEDETR_DOWNLOADS") or "~/.cache/litedetr/published").expanduser()


def is_address(source: str | Path) -> bool:
    """Whether a source is the address of a file."""
    return str(source).startswith(("https://", "http://"))


def lookup(name: str, schedule: str | None = None, heads: int | None = None) -> Published:
    """The checkpoint of a name of the catalogue, or of an address.

    Raises:
        WeightsError: nothing is published under this name.
    """
    if is_address(name):
        return Published(Path(urlsplit(name).path).stem or "checkpoint", url=name, source=name, schedule=schedule, heads=heads)
    known = catalogue()
    if name in known:
        return replace(known[name], schedule=schedule or known[name].schedule, heads=heads or known[name].heads)
    if name in presets():
        raise WeightsError(
            f"expected a preset with published weights ({', '.join(known)}), got {name!r}: nobody published any; "
            "Detector.from_preset gives it random ones."
        )
    raise WeightsError(f"expected one of {', '.join(known)}, got {name!r}: check the spelling.")


def converted(entry: Published, progress: Progress | None = None, keep: bool = False) -> Path:
    """The folder of an entry with an address, in this project's format: from the cache, or downloaded and converted now.

    Args:
        progress: told (bytes done, bytes in all) while it is downloaded, and (all, all) before it is converted; a bar on the
            terminal if None.
        keep: also the file as it was published.

    Raises:
        WeightsError: it cannot be had, is not what was published, or is no model.
    """
    folder = entry.folder
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if (folder / "model.safetensors").exists() and (folder / "config.json").exists() and not keep:
            return folder
        file = folder / entry.file
        if not file.exists():
            _download(entry, file, progress)
        fresh, note = folder / "converting", folder / "origin.json"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fingerprint = _check(entry, file, note)
            convert_file(file, fresh, entry.schedule, entry.heads, origin=entry.url, ap=entry.ap, file_sha256=fingerprint)
        except WeightsError:
            file.unlink()
            raise
        origin = {"url": entry.url, "bytes": file.stat().st_size, "sha256": fingerprint}
        note.write_text(json.dumps(origin) + "\n", encoding="utf-8")
        for made in FILES:
            (fresh / made).replace(folder / made)
        fresh.rmdir()
        if not keep:
            file.unlink()
    return folder


def _download(entry: Published, file: Path, progress: Progress | None) -> None:
    if progress is not None:
        download(entry.url, file, progress, entry.bytes)
        return
    with tqdm(unit="B", unit_scale=True, desc=entry.file[:40]) as bar:

        def draw(done: int, total: int) -> None:
            bar.total = total if total != LARGEST else None
            bar.update(done - bar.n)

        download(entry.url, file, draw, entry.bytes)


def _check(entry: Published, file: Path, note: Path) -> str:
    """The file's SHA-256, which is that of the published one, and the same as the first time."""
    got = sha256(file)
    seen = json.loads(note.read_text(encoding="utf-8"))["sha256"] if note.exists() else None
    for wanted, whose in ((entry.sha256, "as published"), (seen, f"as the first time, by {note}")):
        if wanted and got != wanted:
            raise WeightsError(
                f"expected {entry.file} of {entry.name} with the SHA-256 {wanted} ({whose}), got {got}: the file at {entry.url} "
                f"was changed and was not loaded.{f' If its authors say so, delete {note}.' if wanted == seen else ''}"
            )
    return got
