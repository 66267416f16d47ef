"""Where a model's weights folder is: the embedded one, a local one, or one on the Hub, which is downloaded."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import Tensor

from litedetr.config import DetectorConfig, presets
from litedetr.weights import published
from litedetr.weights.errors import WeightsError
from litedetr.weights.folder import convert_file, read, understand
from litedetr.weights.limits import Limits, Progress
from litedetr.weights.variants import EMBEDDED, VARIANTS, read_variant, variant_config


def find(
    source: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> Path:
    """The folder of "embedded", of a local path, of what its authors published under a name of `litedetr.weights.published` or at
    an address, or of "owner/name" on the Hub; downloaded where it is not in the cache.

    Args:
        revision: branch, tag or commit on the Hub.
        token: for the Hub; the one saved by ``hf auth login`` if None.
        progress: told (bytes done, bytes in all) while weights are downloaded.
        limits: of what a model may be that is not trusted, wherever it lies; None for one that is.

    Raises:
        WeightsError: there is none, or it is too large.
    """
    if str(source) == "embedded":
        return EMBEDDED
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    if not isinstance(source, Path) and (published.is_address(name) or name in presets() or name in published.catalogue()):
        entry = published.lookup(name)
        if entry.repo is None:
            return published.converted(entry, progress)
        name = entry.repo
    if name.count("/") != 1 or isinstance(source, Path):
        raise WeightsError(
            'expected "embedded", a folder with config.json and model.safetensors, "owner/name", or a preset with published '
            f"weights, got {name!r}"
        )
    from litedetr.weights import hub  # only who asks the Hub waits for its library to be imported

    return hub.download(name, revision, token, progress, limits)


def load(
    source: str | Path = "embedded",
    revision: str | None = None,
    token: str | bool | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> tuple[DetectorConfig, dict[str, Tensor]]:
    """Config and state dict of a model, or of one of the embedded one's `VARIANTS`; arguments and errors are those of `find` and
    `litedetr.weights.folder.read`."""
    if str(source) in VARIANTS:
        return read_variant(VARIANTS[str(source)])
    folder = find(source, revision, token, progress, limits)
    return read(folder, folder.name if Path(source).is_dir() else str(source), limits)


def read_config(source: str | Path = "embedded", revision: str | None = None) -> DetectorConfig:
    """The config of a weights folder, without its weights. Sources and errors are those of `load`."""
    if str(source) in VARIANTS:
        return variant_config(VARIANTS[str(source)], read_config())
    config = understand(find(source, revision), str(source))
    return load(source, revision)[0] if config is None else config


def convert(source: str | Path, folder: str | Path, schedule: str | None = None, heads: int | None = None) -> DetectorConfig:
    """Write `folder`/config.json, model.safetensors and README.md.

    Args:
        source: a ``.pth`` file, a folder in transformers' format, a Hub id, a name of the catalogue, or an address.
        schedule, heads: what the checkpoint does not tell.

    Raises:
        WeightsError: the checkpoint cannot be had or read, something about it is unknown, or a key is unaccounted for; nothing is
            written then.
    """
    path, name = Path(source), str(source)
    if not path.exists():
        if published.is_address(name) or name in published.catalogue():
            entry = published.lookup(name, schedule, heads)
            name = entry.repo or name
            if entry.repo is None:
                made = published.converted(entry)
                Path(folder).mkdir(parents=True, exist_ok=True)
                for file in published.FILES:
                    shutil.copyfile(made / file, Path(folder) / file)
                return understand(made, name)
        if name.count("/") == 1:
            path = find(name)
    return convert_file(path, Path(folder), schedule, heads, origin=name if path != Path(source) else None)
