"""What a model from somebody unknown may be, and how much disk such models may have together."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from litedetr.config import DetectorConfig
from litedetr.cost import gmacs, level_shapes
from litedetr.cost.peak_memory import peak_bytes
from litedetr.weights.errors import ANOTHER, Shaped, WeightsError, why

Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all of what is downloaded."""


@dataclass(frozen=True)
class Limits:
    """Of a model that is not trusted: it is read from safetensors and JSON alone, and is refused beyond these numbers.

    Attributes:
        file_bytes: of the weights file, and of its numbers in float32.
        gmacs: of a photo of the largest size that the model takes; a sampled point counts as the time that it takes.
        memory_bytes: for such a photo, beyond the weights, by `litedetr.cost.peak_memory`.
        cache: folder of such models, apart from huggingface_hub's own; None for that.
        cache_bytes: of all that lies in `cache`; at least twice `file_bytes`. The longest unused go when another one comes.
        advice: what the host may do, for the end of a refusal, e.g. ", or raise LITEDETR_LARGEST_MB".
    """

    file_bytes: int = 1_000_000_000
    gmacs: float = 1000.0
    memory_bytes: int = 3_000_000_000
    cache: Path | None = None
    cache_bytes: int = 5_000_000_000
    advice: str = ""


def check_size(size: int, stored: Iterable[Shaped], name: str, limits: Limits | None) -> None:
    """Refuse a weights file that is too large, on disk or once its numbers are in float32.

    Raises:
        WeightsError: says how large it may be.
    """
    if limits is None:
        return
    needed = max(size, 4 * numbers(stored))
    if needed > limits.file_bytes:
        raise WeightsError(
            f"expected a model of at most {limits.file_bytes / 1e6:,.0f} MB, got {needed / 1e6:,.0f} MB in {name}: choose a "
            f"smaller one{limits.advice}."
        )


def numbers(stored: Iterable[Shaped]) -> int:
    """How many there are in some tensors."""
    return sum(math.prod(tensor.shape) for tensor in stored)


MOST = {
    "queries": 3000,
    "top_k": 1000,
    "points": 16,
    "heads": 32,
    "decoder_layers": 24,
    "encoder steps": 64,
    "class scores of all layers": 2**26,
}
"""Of a model that is not trusted: several times what was ever published, and far below what a config may say."""
SAMPLED = 12
"""Multiply-adds that take as long as one channel of a sampled point, which lies anywhere in memory."""


def check_work(config: DetectorConfig, name: str, limits: Limits | None) -> None:
    """Refuse a model that would take too long over a photo or too much memory for it, by its config alone.

    Raises:
        WeightsError: says how much it may take.
    """
    if limits is None:
        return
    asked = {
        "queries": config.queries + config.one_to_many_queries, "top_k": config.top_k,
        "points": config.points, "heads": config.heads, "decoder_layers": config.decoder_layers,
        "encoder steps": len(config.encoder_schedule.steps()),
        "class scores of all layers": config.queries * config.class_outputs * (config.decoder_layers + 1),
    }  # fmt: skip
    check_numbers(asked, name)
    size = config.short_side, config.long_side
    try:
        work = gmacs(config, size).total + _sampling(config, size)
        memory = peak_bytes(config, size)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(
            f"expected a model that can be built in {name}, got one that cannot: {why(error)}. {ANOTHER}"
        ) from error
    if work > limits.gmacs:
        raise WeightsError(
            f"expected a model of at most {limits.gmacs:,.0f} GMACs a photo, got {work:,.0f} in {name}: choose a smaller one"
            f"{limits.advice}."
        )
    if memory > limits.memory_bytes:
        raise WeightsError(
            f"expected a model that needs at most {limits.memory_bytes / 1e6:,.0f} MB for a photo, got one that may need "
            f"{memory / 1e6:,.0f} MB in {name}: choose a smaller one{limits.advice}."
        )


def check_numbers(asked: Mapping[str, int], name: str) -> None:
    """Refuse more than `MOST` of something.

    Raises:
        WeightsError: says of what.
    """
    for what, number in asked.items():
        if number > MOST[what]:
            raise WeightsError(f"expected a model of at most {MOST[what]:,} {what}, got {number:,} in {name}. {ANOTHER}")


def _sampling(config: DetectorConfig, size: tuple[int, int]) -> float:
    """GMACs that take as long as all sampled points of a photo."""
    tokens = [height * width for height, width in level_shapes(config, size)]
    asking = sum(sum(tokens[level] for level in step.query_levels) for step in config.encoder_schedule.steps())
    queries = asking + config.decoder_layers * config.queries
    return SAMPLED * queries * config.levels * config.points * config.width / 1e9


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
            for place in (folder, cache / ".locks" / folder.name):
                shutil.rmtree(place, ignore_errors=True)
            free += sizes[folder]
    return free >= 0


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder, links not counted."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
