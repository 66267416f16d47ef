"""Where a model's weights folder is: the embedded one, a local one, or one on the Hub, which is downloaded."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from litedetr.config import DetectorConfig
from litedetr.weights.errors import WeightsError
from litedetr.weights.folder import read, understand
from litedetr.weights.limits import Limits, Progress

EMBEDDED = Path(__file__).resolve().parents[2] / "assets" / "weights"


def find(
    source: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> Path:
    """The folder of "embedded", of a local path, or of "owner/name" downloaded from the Hub.

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
    if str(source).count("/") != 1 or isinstance(source, Path):
        raise WeightsError(
            f'expected "embedded", a folder with config.json and model.safetensors, or "owner/name", got {str(source)!r}'
        )
    from litedetr.weights import hub  # only who asks the Hub waits for its library to be imported

    return hub.download(str(source), revision, token, progress, limits)


def load(
    source: str | Path = "embedded",
    revision: str | None = None,
    token: str | bool | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> tuple[DetectorConfig, dict[str, Tensor]]:
    """Config and state dict of a model; arguments and errors are those of `find` and `litedetr.weights.folder.read`."""
    folder = find(source, revision, token, progress, limits)
    return read(folder, folder.name if Path(source).is_dir() else str(source), limits)


def read_config(source: str | Path = "embedded", revision: str | None = None) -> DetectorConfig:
    """The config of a weights folder, without its weights. Sources and errors are those of `load`."""
    config = understand(find(source, revision), str(source))
    return load(source, revision)[0] if config is None else config
