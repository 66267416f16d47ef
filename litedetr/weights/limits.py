"""What a model from somebody unknown may be, and how much disk such models may have together."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """Of a model that is not trusted: it is read from safetensors and JSON alone, and is refused beyond these numbers.

    Attributes:
        file_bytes: of the weights file, and of its numbers in float32.
        gmacs: of a photo of the largest size that the model takes.
        cache: folder of such models, apart from huggingface_hub's own; None for that.
        cache_bytes: of all that lies in `cache`; at least twice `file_bytes`. The longest unused go when another one comes.
        advice: what the host may do, for the end of a refusal, e.g. ", or raise LITEDETR_LARGEST_MB".
    """

    file_bytes: int = 1_000_000_000
    gmacs: float = 1000.0
    cache: Path | None = None
    cache_bytes: int = 5_000_000_000
    advice: str = ""


def make_room(cache: Path, needed: int, limit: int, keep: str, begins: bool) -> bool:
    """Delete what was not used for longest in a cache of huggingface_hub, until `needed` more bytes are below `limit`.

    Args:
        keep: the name of the folder of the model that is about to come, which stays and counts as used now.
        begins: its first file comes; what an earlier visit left of it goes where that is more than half of what may lie there.

    Returns:
        Whether there is room now.
    """
    own = cache / keep
    if begins and own.is_dir() and folder_bytes(own) > limit // 2:
        shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True, exist_ok=True)
    os.utime(own)
    folders = [folder for folder in cache.iterdir() if folder.is_dir() and folder.name.startswith("models--")]
    sizes = {folder: folder_bytes(folder) for folder in folders}
    free = limit - needed - sum(sizes.values())
    for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime):
        if free >= 0:
            break
        if folder != own:
            shutil.rmtree(folder, ignore_errors=True)
            free += sizes[folder]
    return free >= 0


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder, links not counted."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
