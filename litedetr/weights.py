"""Weights folders: config.json and model.safetensors, embedded, local or on the Hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from litedetr.config import DetectorConfig

if TYPE_CHECKING:
    from litedetr.detector import Detector

EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "weights"
_TRAINING_ONLY = ("dense_head.",)

Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all."""


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


def load(
    source: str | Path = "embedded",
    revision: str | None = None,
    token: str | bool | None = None,
    progress: Progress | None = None,
) -> Detector:
    """A detector with trained weights, in float32 and evaluation mode; this project's format or transformers' DeformableDetr's.

    Args:
        source: "embedded", a local folder, or "owner/name" on the Hub.
        revision: branch, tag or commit on the Hub.
        token: for the Hub; the one saved by ``hf auth login`` if None.
        progress: told (bytes done, bytes in all) while weights are downloaded.

    Raises:
        WeightsError: nothing there, or files that do not fit each other; nothing is loaded then.
    """
    from litedetr.detector import Detector

    folder = find(source, revision, token, progress)
    name = folder.name if Path(source).is_dir() else str(source)
    config = understand(folder, name)
    if config is None:
        return _from_transformers(folder, name)
    detector = Detector(config)
    state = _tensors(folder / "model.safetensors", name)
    check_state(detector.state_dict(), state)
    detector.load_state_dict(state)
    return detector


def read_config(source: str | Path = "embedded", revision: str | None = None) -> DetectorConfig:
    """The config of a weights folder, without its weights. Sources and errors are those of `load`."""
    config = understand(find(source, revision), str(source))
    return load(source, revision).config if config is None else config


def understand(folder: Path, name: str) -> DetectorConfig | None:
    """The config in `folder`, or None where the folder is in the format of transformers' DeformableDetr.

    Args:
        name: of the model, for the messages.

    Raises:
        WeightsError: config.json is missing, no JSON, or that of something else.
    """
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(
            f"expected config.json and model.safetensors of a litedetr model in {name}, and could not read them: {error}"
        ) from error
    except ValueError as error:
        raise WeightsError(f"expected JSON in config.json of {name}, and could not read it: {error}. {_AGAIN}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"expected the settings of a model in config.json of {name}, got {_short(values)}. {_ANOTHER}")
    if "model_type" not in values:
        try:
            return DetectorConfig.from_dict(values)
        except (TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"expected the config of a litedetr model in {name}: {error}. {_ANOTHER}") from error
    if values["model_type"] != "deformable_detr":
        raise WeightsError(
            f"expected a litedetr model or a transformers model of the type deformable_detr in {name}, "
            f"got the type {_short(values['model_type'])}. {_ANOTHER}"
        )
    return None


_AGAIN = "Download or copy it again."
_ANOTHER = "Choose another model."


def _short(value: object) -> str:
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}…"


def _from_transformers(folder: Path, name: str) -> Detector:
    from litedetr.conversion.convert import from_checkpoint, read_checkpoint

    if (folder / "model.safetensors").exists():
        with _readable("model.safetensors", name), safe_open(folder / "model.safetensors", "pt"):
            pass
    return from_checkpoint(read_checkpoint(folder, origin=name))


def _tensors(file: Path, name: str) -> dict[str, Tensor]:
    with _readable(file.name, name):
        return load_file(file)


@contextmanager
def _readable(file: str, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"expected tensors in {file} of {name}, and could not read them: {error}. The file is missing, cut off or something "
            f"else. {_AGAIN}"
        ) from error


def find(
    source: str | Path, revision: str | None = None, token: str | bool | None = None, progress: Progress | None = None
) -> Path:
    """The folder of "embedded", of a local path, or of "owner/name" downloaded from the Hub. Errors are those of `load`."""
    if str(source) == "embedded":
        return EMBEDDED
    if Path(source).is_dir():
        return Path(source)
    if str(source).count("/") != 1 or isinstance(source, Path):
        raise WeightsError(
            f'expected "embedded", a folder with config.json and model.safetensors, or "owner/name", got {str(source)!r}'
        )
    from litedetr import hub

    return hub.download(str(source), revision, token, progress)


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
