"""A weights folder: config.json and model.safetensors, written, checked and read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from litedetr.config import DetectorConfig
from litedetr.meta import OnMeta
from litedetr.network import Network
from litedetr.weights.conversion.card import model_card
from litedetr.weights.conversion.checkpoint import read_checkpoint
from litedetr.weights.conversion.reference import from_checkpoint
from litedetr.weights.errors import AGAIN, ANOTHER, OtherTypeError, WeightsError, check_state, short, why
from litedetr.weights.limits import Limits, check_size, check_work

PLACE = "OWNER/NAME"
"""Stands in the cards of trainings for the name that a model gets when it is pushed."""
CONFIG_BYTES = 2_000_000
"""A larger config.json is nobody's."""
_TRAINING_ONLY = ("dense_head.",)
_HEADER_BYTES = 4_000_000
_MOST_TENSORS = 10_000
KINDS = ("F64", "F32", "F16", "BF16")


class Stored(NamedTuple):
    """A tensor as a file's header tells of it; `kind` is safetensors' name of its dtype."""

    shape: tuple[int, ...]
    kind: str


def write(config: DetectorConfig, state: Mapping[str, Tensor], folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write `folder`/config.json and `folder`/model.safetensors, without what only training needs. Files that are there already
    are exchanged once the new ones are whole: another process may have them open, and the disk may be full.

    Args:
        dtype: of the floating-point weights in the file, e.g. ``torch.float16``; as they are if None.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        key: (value.to(dtype) if dtype and value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for key, value in state.items()
        if not key.startswith(_TRAINING_ONLY)
    }
    settings = config.to_dict() | {"dense_head": False}
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as whole:
        save_file(kept, Path(whole, "model.safetensors"), metadata={"format": "pt"})
        Path(whole, "config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for name in ("model.safetensors", "config.json"):
            os.replace(Path(whole, name), folder / name)


def convert_file(
    path: Path,
    folder: Path,
    schedule: str | None = None,
    heads: int | None = None,
    origin: str | None = None,
    ap: float | None = None,
    file_sha256: str | None = None,
) -> DetectorConfig:
    """A published checkpoint as a folder in this project's format: config.json, model.safetensors and README.md.

    Args:
        path: a ``.pth`` file, or a folder in transformers' format.
        schedule, heads: what the checkpoint does not tell.
        origin, ap, file_sha256: for the card: where it is from, its AP in the authors' words, the file's fingerprint.

    Raises:
        WeightsError: the checkpoint cannot be read, something about it is unknown, or a key is unaccounted for, or it would
            be overwritten; nothing is written then.
    """
    if path.resolve() in (folder.resolve(), (folder / "model.safetensors").resolve()):
        raise WeightsError(f"expected another folder than the checkpoint's own to write to, got {str(folder)!r}: give a new one")
    checkpoint = read_checkpoint(path, origin=origin)
    config, state = from_checkpoint(checkpoint, schedule, heads)
    write(config, state, folder)
    (folder / "README.md").write_text(model_card(config, checkpoint, ap, file_sha256), encoding="utf-8")
    return config


def read(folder: Path, name: str, limits: Limits | None = None) -> tuple[DetectorConfig, dict[str, Tensor]]:
    """A model's config, and its state dict, which fits it; this project's format or transformers' DeformableDetr's.

    Args:
        name: of the model, for the messages.
        limits: of what a model may be that is not trusted; None for one that is.

    Raises:
        WeightsError: nothing there, too much, or files that do not fit each other; no memory is spent before it is known.
    """
    config, file = understand(folder, name, limits), folder / "model.safetensors"
    stored = {}
    if limits is not None or file.exists() or config is not None:
        stored = headers(file, name)
        check_size(file.stat().st_size, stored.values(), name, limits)
    config, state = _transformers(folder, name, limits) if config is None else (config, _own(config, file, stored, name))
    broken = [key for key, value in state.items() if not value.isfinite().all()]
    if broken:
        raise WeightsError(
            f"expected finite numbers in the weights of {name}, got others in {', '.join(map(short, broken[:3]))}. {ANOTHER}"
        )
    return config, state


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
            f"expected config.json and model.safetensors of a litedetr model in {name}, and could not read them: {why(error)}"
        ) from error
    if len(content) > CONFIG_BYTES:
        raise WeightsError(
            f"expected a config.json of at most {CONFIG_BYTES / 1e6:.0f} MB in {name}, got a larger one. {ANOTHER}"
        )
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"expected JSON in config.json of {name}, and could not read it: {why(error)}. {AGAIN}") from error
    if not isinstance(values, dict):
        raise WeightsError(f"expected the settings of a model in config.json of {name}, got {short(values)}. {ANOTHER}")
    if "model_type" not in values:
        try:
            config = DetectorConfig.from_dict(values)
        except (TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"expected the config of a litedetr model in {name}: {why(error)}. {ANOTHER}") from error
        check_work(config, name, limits)
        return config
    if values["model_type"] != "deformable_detr":
        raise OtherTypeError(
            f"expected a litedetr model or a transformers model of the type deformable_detr in {name}, "
            f"got the type {short(values['model_type'])}. {ANOTHER}",
            str(values["model_type"]),
            folder,
        )
    return None


def headers(file: Path, name: str, kinds: tuple[str, ...] = KINDS) -> dict[str, Stored]:
    """The tensors of a safetensors file, by its header: none of them is read.

    Args:
        kinds: what they may be, by safetensors' names.

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
                raise WeightsError(f"expected at most {_MOST_TENSORS:,} tensors in {name}, got {len(keys):,}. {ANOTHER}")
            slices = ((key, opened.get_slice(key)) for key in keys)
            stored = {key: Stored(tuple(part.get_shape()), part.get_dtype()) for key, part in slices}
    other = next((f"{short(key)} ({tensor.kind})" for key, tensor in stored.items() if tensor.kind not in kinds), None)
    if other:
        raise WeightsError(f"expected weights of the kinds {', '.join(kinds)} in {name}, got {other}. {ANOTHER}")
    return stored


def _own(config: DetectorConfig, file: Path, stored: dict[str, Stored], name: str) -> dict[str, Tensor]:
    """The tensors of a model in this project's format."""
    try:
        with OnMeta():
            expected = Network(config).state_dict()
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(
            f"expected a model that can be built in {name}, got one that cannot: {why(error)}. {ANOTHER}"
        ) from error
    check_state(expected, stored)
    with _readable(file.name, name):
        return load_file(file)


def _transformers(folder: Path, name: str, limits: Limits | None) -> tuple[DetectorConfig, dict[str, Tensor]]:
    try:
        config, state = from_checkpoint(read_checkpoint(folder, origin=name))
    except WeightsError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(
            f"expected a transformers model of the type deformable_detr in {name}, got tensors or settings that fit none "
            f"({type(error).__name__}: {why(error)}). {ANOTHER}"
        ) from error
    check_work(config, name, limits)
    return config, state


@contextmanager
def _readable(file: str, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"expected tensors in {file} of {name}, and could not read them: {why(error)}. The file is missing, cut off or "
            f"something else. {AGAIN}"
        ) from error
