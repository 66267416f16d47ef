"""Weights folders: config.json and model.safetensors, embedded, local or on the Hub."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from litedetr.config import DetectorConfig
from litedetr.cost import gmacs
from litedetr.shipped import shipped
from litedetr.weights.limits import Limits

if TYPE_CHECKING:
    from litedetr.detector import Detector

EMBEDDED = shipped("assets/weights")
_TRAINING_ONLY = ("dense_head.",)
CONFIG_BYTES = 2_000_000
"""A larger config.json is nobody's."""
_HEADER_BYTES = 4_000_000
_MOST_TENSORS = 10_000
_KINDS = ("F64", "F32", "F16", "BF16")

Progress = Callable[[int, int], None]
"""Told the bytes done and the bytes in all."""


class WeightsError(ValueError):
    """Weights that cannot be loaded; the message says what to do."""


class Stored(NamedTuple):
    """A tensor as a file's header tells of it; `kind` is safetensors' name of its dtype."""

    shape: tuple[int, ...]
    kind: str


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


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
    limits: Limits | None = None,
) -> Detector:
    """A detector with trained weights, in float32 and evaluation mode; this project's format or transformers' DeformableDetr's.

    Args:
        source: "embedded", a local folder, or "owner/name" on the Hub.
        revision: branch, tag or commit on the Hub.
        token: for the Hub; the one saved by ``hf auth login`` if None.
        progress: told (bytes done, bytes in all) while weights are downloaded.
        limits: of what a model may be that is not trusted, wherever it lies; None for one that is.

    Raises:
        WeightsError: nothing there, too much, or files that do not fit each other; nothing is loaded then.
    """
    folder = find(source, revision, token, progress, limits)
    name = folder.name if Path(source).is_dir() else str(source)
    config = understand(folder, name, limits)
    file = folder / "model.safetensors"
    if limits is not None or file.exists() or config is not None:
        stored = headers(file, name)
        check_size(file.stat().st_size, stored, name, limits)
    detector = _from_transformers(folder, name, limits) if config is None else _own(config, file, stored, name)
    broken = [key for key, value in detector.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise WeightsError(
            f"expected finite numbers in the weights of {name}, got others in {', '.join(map(_short, broken[:3]))}. {_ANOTHER}"
        )
    if limits is not None:
        _try(detector, name)
    return detector


def read_config(source: str | Path = "embedded", revision: str | None = None) -> DetectorConfig:
    """The config of a weights folder, without its weights. Sources and errors are those of `load`."""
    config = understand(find(source, revision), str(source))
    return load(source, revision).config if config is None else config


def understand(folder: Path, name: str, limits: Limits | None = None) -> DetectorConfig | None:
    """The config in `folder`, or None where the folder is in the format of transformers' DeformableDetr.

    Args:
        name: of the model, for the messages.

    Raises:
        WeightsError: config.json is missing, no JSON, that of something else, or that of a model beyond the limits.
    """
    try:
        with (folder / "config.json").open("rb") as file:
            content = file.read(CONFIG_BYTES + 1)
    except OSError as error:
        raise WeightsError(
            f"expected config.json and model.safetensors of a litedetr model in {name}, and could not read them: {_why(error)}"
        ) from error
    if len(content) > CONFIG_BYTES:
        raise WeightsError(
            f"expected a config.json of at most {CONFIG_BYTES / 1e6:.0f} MB in {name}, got a larger one. {_ANOTHER}"
        )
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"expected JSON in config.json of {name}, and could not read it: {_why(error)}. {_AGAIN}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"expected the settings of a model in config.json of {name}, got {_short(values)}. {_ANOTHER}")
    if "model_type" not in values:
        try:
            config = DetectorConfig.from_dict(values)
        except (TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"expected the config of a litedetr model in {name}: {_why(error)}. {_ANOTHER}") from error
        check_work(config, name, limits)
        return config
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


def _why(error: Exception) -> str:
    """What an error says, without the places of this machine's disk that it names."""
    if isinstance(error, OSError):
        return (error.strerror or "it is not there").lower()
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error)[:300]


def check_size(size: int, stored: dict[str, Stored], name: str, limits: Limits | None) -> None:
    """Refuse a weights file that is too large, on disk or once its numbers are in float32.

    Raises:
        WeightsError: says how large it may be.
    """
    if limits is None:
        return
    needed = max(size, 4 * sum(math.prod(tensor.shape) for tensor in stored.values()))
    if needed > limits.file_bytes:
        raise WeightsError(
            f"expected a model of at most {limits.file_bytes / 1e6:,.0f} MB, got {needed / 1e6:,.0f} MB in {name}: choose a "
            f"smaller one{limits.advice}."
        )


def check_work(config: DetectorConfig, name: str, limits: Limits | None) -> None:
    """Refuse a model that would take too long over a photo, by its config alone.

    Raises:
        WeightsError: says how much it may take.
    """
    if limits is None:
        return
    try:
        work = gmacs(config, (config.short_side, config.long_side)).total
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(
            f"expected a model that can be built in {name}, got one that cannot: {_why(error)}. {_ANOTHER}"
        ) from error
    if work > limits.gmacs:
        raise WeightsError(
            f"expected a model of at most {limits.gmacs:,.0f} GMACs a photo, got {work:,.0f} in {name}: choose a smaller one"
            f"{limits.advice}."
        )


def headers(file: Path, name: str) -> dict[str, Stored]:
    """The tensors of a safetensors file, by its header: none of them is read.

    Raises:
        WeightsError: it is none, or its header does not fit the file.
    """
    with _readable(file.name, name):
        with file.open("rb") as opened:
            if int.from_bytes(opened.read(8), "little") > _HEADER_BYTES:
                raise SafetensorError("Error while deserializing header: header too large")
        with safe_open(file, "pt") as opened:
            keys = list(opened.keys())
            if len(keys) > _MOST_TENSORS:
                raise WeightsError(f"expected at most {_MOST_TENSORS:,} tensors in {name}, got {len(keys):,}. {_ANOTHER}")
            slices = ((key, opened.get_slice(key)) for key in keys)
            stored = {key: Stored(tuple(part.get_shape()), part.get_dtype()) for key, part in slices}
    other = next((f"{_short(key)} ({tensor.kind})" for key, tensor in stored.items() if tensor.kind not in _KINDS), None)
    if other:
        raise WeightsError(f"expected weights of the kinds {', '.join(_KINDS)} in {name}, got {other}. {_ANOTHER}")
    return stored


def _own(config: DetectorConfig, file: Path, stored: dict[str, Stored], name: str) -> Detector:
    """A model in this project's format; no memory is spent before its file is known to fit."""
    from litedetr.detector import Detector

    try:
        with torch.device("meta"):
            expected = Detector(config).state_dict()
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(
            f"expected a model that can be built in {name}, got one that cannot: {_why(error)}. {_ANOTHER}"
        ) from error
    check_state(expected, stored)
    detector = Detector(config)
    with _readable(file.name, name):
        detector.load_state_dict(load_file(file))
    return detector


@torch.inference_mode()
def _try(detector: Detector, name: str) -> None:
    """Refuse a model that cannot see a small empty picture."""
    try:
        output = detector(torch.zeros(1, 3, 128, 128))
    except (ValueError, RuntimeError, IndexError, TypeError, ZeroDivisionError) as error:
        raise WeightsError(
            f"expected a model that can be run in {name}, got one that cannot: {_why(error)}. {_ANOTHER}"
        ) from error
    if not (output.logits.isfinite().all() and output.boxes.isfinite().all()):
        raise WeightsError(f"expected a model that answers with finite numbers in {name}, got one that does not. {_ANOTHER}")


def _from_transformers(folder: Path, name: str, limits: Limits | None) -> Detector:
    from litedetr.weights.conversion.convert import from_checkpoint, read_checkpoint

    try:
        detector = from_checkpoint(read_checkpoint(folder, origin=name))
        check_work(detector.config, name, limits)
        return detector
    except WeightsError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(
            f"expected a transformers model of the type deformable_detr in {name}, got tensors or settings that fit none "
            f"({type(error).__name__}: {_why(error)}). {_ANOTHER}"
        ) from error


@contextmanager
def _readable(file: str, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"expected tensors in {file} of {name}, and could not read them: {_why(error)}. The file is missing, cut off or "
            f"something else. {_AGAIN}"
        ) from error


def find(
    source: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
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
    from litedetr.weights import hub

    return hub.download(str(source), revision, token, progress, limits)


def check_state(expected: Mapping[str, _Shaped], given: Mapping[str, _Shaped]) -> None:
    """Compare keys and shapes.

    Raises:
        WeightsError: names the first missing, unexpected and misshaped keys, and how many there are.
    """
    missing = [key for key in expected if key not in given]
    unexpected = [key for key in given if key not in expected]
    misshaped = [
        f"{key} (expected {tuple(expected[key].shape)}, got {tuple(given[key].shape[:8])})"
        for key in expected
        if key in given and tuple(expected[key].shape) != tuple(given[key].shape)
    ]
    problems = [
        f"{len(keys)} {kind}: {', '.join(key[:160] for key in keys[:3])}{', …' if len(keys) > 3 else ''}"
        for kind, keys in (("missing", missing), ("unexpected", unexpected), ("misshaped", misshaped))
        if keys
    ]
    if problems:
        raise WeightsError(
            "expected weights that fit the model exactly, got " + "; ".join(problems)
            + ". Nothing was loaded: use the config.json that belongs to these weights."
        )  # fmt: skip
