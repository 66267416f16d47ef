"""Reading what others have saved: tensors and plain settings only."""

from __future__ import annotations

import argparse
import collections
import json
import logging
import pathlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from litedetr.weights.conversion import transformers
from litedetr.weights.errors import WeightsError

log = logging.getLogger(__name__)
_TRAINED = ("model", "state_dict", "model_state_dict", "module")
_AVERAGED = ("ema_model", "model_ema", "ema_state_dict", "ema")
"""Where training tools keep the state dict in a checkpoint."""
_MARK = "transformer.level_embed"
"""A weight that every model here has once."""
_PLAIN = [argparse.Namespace, collections.Counter, pathlib.PosixPath, pathlib.PurePosixPath]


@dataclass(frozen=True)
class Checkpoint:
    """A state dict under the published implementation's names, the settings saved with it, its name and where it is from."""

    state: dict[str, Tensor]
    args: dict[str, Any]
    name: str
    origin: str


def read_checkpoint(source: Path, origin: str | None = None) -> Checkpoint:
    """A ``.pth`` file or a folder of transformers' format.

    Raises:
        WeightsError: nothing there, or something that is no checkpoint, or that wants to run code.
    """
    origin = origin or source.name
    if source.is_dir():
        return _read_folder(source, origin)
    if not source.is_file():
        raise WeightsError(
            f"expected a checkpoint file, a folder with config.json, or a Hub id, got {str(source)!r}: check the path"
        )
    if source.suffix == ".safetensors":
        saved: Any = _safetensors(source)
    else:
        saved = _pickle(source)
    state, args = _state_and_args(saved, source.name)
    return Checkpoint(state, args, source.name, origin)


def _read_folder(folder: Path, origin: str) -> Checkpoint:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"expected config.json of a transformers model in {folder.name}, and could not read it: {error}"
        ) from error
    if config.get("model_type") != "deformable_detr":
        raise WeightsError(
            f"expected a transformers model of the type deformable_detr in {folder.name}, got {config.get('model_type')!r}: "
            "a folder in this project's own format needs no conversion"
        )
    weights = folder / "model.safetensors"
    saved = _safetensors(weights) if weights.exists() else _pickle(folder / "pytorch_model.bin")
    state, _ = _state_and_args(saved, folder.name)
    return Checkpoint(transformers.published_state(state), transformers.arguments(config), folder.name, origin)


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"expected tensors in {file.name}, and could not read it: {error}. Download it again.") from error


def _pickle(file: Path) -> Any:
    if not file.exists():
        raise WeightsError(f"expected model.safetensors or {file.name} in {file.parent.name}, got neither: download it again")
    try:
        with torch.serialization.safe_globals(_PLAIN):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "global" in str(error).lower():
            raise WeightsError(
                f"expected tensors and plain settings in {file.name}, got a pickle that wants to run code, and it was refused: "
                "save its state dict alone, with torch.save(model.state_dict(), …)"
            ) from error
        raise WeightsError(
            f"expected a PyTorch checkpoint in {file.name}, got something else or a broken file: {_line(error)}"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(
            f"expected a PyTorch checkpoint in {file.name}, got something else or a broken file: {_line(error)}"
        ) from error


def _state_and_args(saved: Any, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The averaged weights where the model was trained to be used so, else the model's, else the whole file."""
    if not isinstance(saved, Mapping):
        raise WeightsError(f"expected a dict of tensors in {name}, got {type(saved).__name__}")
    args = saved.get("args", {})
    args = vars(args) if isinstance(args, argparse.Namespace) else dict(args) if isinstance(args, Mapping) else {}
    order = (*_AVERAGED, *_TRAINED) if args.get("use_ema") else (*_TRAINED, *_AVERAGED)
    inner = saved
    while (key := next((key for key in order if isinstance(inner.get(key), Mapping)), None)) is not None:
        inner = inner[key]
    state = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
    others = [key for key, value in inner.items() if not isinstance(value, Tensor | int | float)]
    if not state or others:
        raise WeightsError(
            f"expected only tensors in the state dict of {name}, got {', '.join(map(str, others[:3])) or 'nothing'}"
        )
    return _one_model(state, name), args


def _one_model(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The model's own weights without what wrappers put before their names, and without averaged or teacher's doubles."""
    found = [key.removesuffix(_MARK) for key in state if key.endswith(_MARK)]
    if not found:
        return {key.removeprefix("module."): value for key, value in state.items()}
    own, *doubles = sorted(found, key=lambda prefix: (any(word in prefix for word in ("ema", "teacher")), len(prefix)))
    kept = {key: value for key, value in state.items() if not key.startswith(tuple(doubles))}
    if doubles:
        text = "%s: %d weights of a second copy of the model are left out (%s…)"
        log.warning(text, name, len(state) - len(kept), doubles[0])
    return {key.removeprefix(own): value for key, value in kept.items()}


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:160]
