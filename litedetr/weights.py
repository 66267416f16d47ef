"""Weights folders: config.json and model.safetensors, embedded, local or on the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from litedetr.config import DetectorConfig

if TYPE_CHECKING:
    from litedetr.detector import Detector

EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "weights"
_TRAINING_ONLY = ("dense_head.",)


class WeightsError(ValueError):
    """Weights that cannot be loaded; the message says what to do."""


def save(detector: Detector, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write `folder`/config.json and `folder`/model.safetensors, without what only training needs.

    Args:
        dtype: of the floating-point weights in the file, e.g. ``torch.float16``; as they are if None.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        key: (value.to(dtype) if dtype and value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for key, value in detector.state_dict().items()
        if not key.startswith(_TRAINING_ONLY)
    }
    config = detector.config.to_dict() | {"dense_head": False}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(source: str | Path = "embedded", revision: str | None = None) -> Detector:
    """A detector with trained weights, in float32 and evaluation mode; this project's format or transformers' DeformableDetr's.

    Args:
        source: "embedded", a local folder, or "owner/name" on the Hub.
        revision: branch, tag or commit on the Hub.

    Raises:
        WeightsError: nothing there, or files that do not fit each other; nothing is loaded then.
    """
    from litedetr.detector import Detector

    folder = find(source, revision)
    if _is_transformers(folder):
        from litedetr.conversion.convert import from_checkpoint, read_checkpoint

        return from_checkpoint(read_checkpoint(folder, origin=str(source)))
    config = _config(folder)
    with _readable(folder):
        state = load_file(folder / "model.safetensors")
    detector = Detector(config)
    check_state(detector.state_dict(), state)
    detector.load_state_dict(state)
    return detector


def read_config(source: str | Path = "embedded", revision: str | None = None) -> DetectorConfig:
    """The config of a weights folder, without its weights. Sources and errors are those of `load`."""
    folder = find(source, revision)
    return load(folder).config if _is_transformers(folder) else _config(folder)


def _is_transformers(folder: Path) -> bool:
    """Whether a folder is in the format of transformers' DeformableDetr."""
    try:
        return "model_type" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _config(folder: Path) -> DetectorConfig:
    with _readable(folder):
        return DetectorConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, json.JSONDecodeError, SafetensorError, TypeError, ValueError) as error:
        raise WeightsError(
            f"expected config.json and model.safetensors of a litedetr model in {folder.name}, and could not read them: {error}"
        ) from error


def find(source: str | Path, revision: str | None = None) -> Path:
    """The folder of "embedded", of a local path, or of "owner/name" downloaded from the Hub. Errors are those of `load`."""
    if str(source) == "embedded":
        return EMBEDDED
    if Path(source).is_dir():
        return Path(source)
    if str(source).count("/") != 1 or isinstance(source, Path):
        raise WeightsError(
            f'expected "embedded", a folder with config.json and model.safetensors, or "owner/name", got {str(source)!r}'
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        patterns = ["config.json", "model.safetensors"]
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=patterns))
    except RepositoryNotFoundError as error:
        raise WeightsError(f"The Hub has no model {source} that you may read: check the name, or log in.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(
            f"The Hub could not be reached for {source}, and it is not in the cache: check the connection."
        ) from error


def check_state(expected: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    """Compare keys and shapes.

    Raises:
        WeightsError: names the first missing, unexpected and misshaped keys, and how many there are.
    """
    missing = [key for key in expected if key not in given]
    unexpected = [key for key in given if key not in expected]
    misshaped = [
        f"{key} (expected {tuple(expected[key].shape)}, got {tuple(given[key].shape)})"
        for key in expected
        if key in given and expected[key].shape != given[key].shape
    ]
    problems = [
        f"{len(keys)} {kind}: {', '.join(keys[:3])}{', …' if len(keys) > 3 else ''}"
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("misshaped", misshaped))
        if keys
    ]
    if problems:
        raise WeightsError(
            "expected weights that fit the model exactly, got " + "; ".join(problems)
            + ". Nothing was loaded: use the config.json that belongs to these weights."
        )  # fmt: skip
