"""Folders as `transformers` writes them -> `GuestDetector`: config.json, model.safetensors, preprocessor_config.json.

Tensors come from safetensors alone and code from the installed `transformers` alone; no name in a config leads to a download.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from litedetr import weights
from litedetr.detector import Detector
from litedetr.guests import calls
from litedetr.guests.detector import CUBIC, TITLES, GuestConfig, GuestDetector
from litedetr.meta import OnMeta
from litedetr.weights import hub
from litedetr.weights.errors import ANOTHER, OtherTypeError, WeightsError
from litedetr.weights.folder import CONFIG_BYTES, KINDS, headers, understand
from litedetr.weights.limits import Limits, Progress, check_numbers, check_size

FILES = ("preprocessor_config.json", "model.safetensors")
LARGEST_SIDE = 1600
_MOST_LAYERS = 1000


def load(
    source: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> Detector | GuestDetector:
    """`Detector.from_pretrained`, which takes models of `transformers` of the types in `TITLES` too. Arguments as there.

    Raises:
        WeightsError: nothing there, too much, or files that do not fit each other; or `transformers` is not installed.
    """
    try:
        return Detector.from_pretrained(source, revision, token, progress, limits)
    except OtherTypeError as error:
        folder = _fetched(error, source, token, progress, limits)
        return read(folder, error.model_type, folder.name if Path(source).is_dir() else str(source), limits)


def find(
    source: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> Path:
    """The folder of such a model, downloaded where it is not in the cache; nothing of it is loaded. Arguments and errors are
    those of `load`."""
    try:
        return weights.find(source, revision, token, progress, limits)
    except OtherTypeError as error:
        return _fetched(error, source, token, progress, limits)


def _fetched(
    other: OtherTypeError, source: str | Path, token: str | bool | None, progress: Progress | None, limits: Limits | None
) -> Path:
    """The folder of a model of another type, with its files, if it is one of those in `TITLES`."""
    if other.model_type not in TITLES:
        raise other
    if not Path(source).is_dir():
        files = hub.Source(str(source), token, limits)
        for file in FILES:
            files.fetch(file, other.folder.name, progress if file == FILES[-1] else None)
    return other.folder


def read(folder: Path, kind: str, name: str, limits: Limits | None = None) -> GuestDetector:
    """The detector in a folder with config.json and `FILES`.

    Args:
        kind: its model type; name: for the messages.
        limits: of a model that is not trusted.

    Raises:
        WeightsError: see `load`.
    """
    settings, photo = (_json(folder / file, name) for file in ("config.json", FILES[0]))
    stored = headers(folder / FILES[1], name, (*KINDS, "I64"))  # batch norms count batches
    check_size((folder / FILES[1]).stat().st_size, stored.values(), name, limits)
    model = _model(folder, kind, settings, name, limits)
    names = tuple(str(model.config.id2label[index]) for index in range(len(model.config.id2label)))
    heads = calls.find(model)[0].module.n_heads
    size, mean, std = _preparation(photo, name, kind)
    config = GuestConfig(kind, names, heads, model.config.decoder_layers, size, mean, std, _top_k(model.config))
    detector = GuestDetector(model, config)
    _try(detector, name, limits)
    return detector


def _model(folder: Path, kind: str, settings: dict[str, Any], name: str, limits: Limits | None) -> torch.nn.Module:
    """The model, all of whose tensors are in the file and no other ones; no memory is spent before its size is known."""
    config_class, build = _classes(kind, name)
    _check_settings(settings, name)
    try:
        config = config_class.from_dict(settings)
        if limits is not None:
            check_numbers(_asked(config), name)
        with OnMeta():
            numbers = sum(tensor.numel() for tensor in build(config).state_dict().values())
        if limits is not None and 4 * numbers > limits.file_bytes:
            raise WeightsError(
                f"expected a model of at most {limits.file_bytes / 1e6:,.0f} MB, got {4 * numbers / 1e6:,.0f} MB in {name}: "
                f"choose a smaller one{limits.advice}."
            )
        model, found = build.from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    except WeightsError:
        raise
    except Exception as error:  # whatever comes of settings that fit no model
        raise WeightsError(
            f"expected a {TITLES[kind]} that transformers can build in {name}, got one that it cannot: {_why(error)}. {ANOTHER}"
        ) from error
    problems = [f"{len(keys)} {what}: {', '.join(sorted(map(str, keys))[:3])}" for what, keys in _unfit(found) if keys]
    if problems:
        raise WeightsError(
            f"expected weights that fit the model exactly, got {'; '.join(problems)}. Nothing was loaded: use the config.json "
            "that belongs to these weights."
        )
    broken = [key for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise WeightsError(
            f"expected finite numbers in the weights of {name}, got others in {', '.join(broken[:3])}. {ANOTHER}"
        )
    return model


def import_library(folder: Path) -> None:
    """Have `transformers` in memory where a folder's model needs it, before anybody counts what that model takes."""
    try:
        understand(folder, folder.name)
    except OtherTypeError as error:
        if error.model_type in TITLES:
            _classes(error.model_type, folder.name)


def _classes(kind: str, name: str) -> tuple[type, type[torch.nn.Module]]:
    """The classes of a type's config and model."""
    try:
        from transformers import CONFIG_MAPPING, MODEL_FOR_OBJECT_DETECTION_MAPPING
        from transformers.utils import logging
    except ImportError as error:
        raise WeightsError(
            f'expected the library transformers for {name}, a {TITLES[kind]}, and it is not installed: "pip install -r '
            'requirements-guests.txt" where this runs, or choose another model.'
        ) from error
    logging.disable_progress_bar()
    return CONFIG_MAPPING[kind], MODEL_FOR_OBJECT_DETECTION_MAPPING[CONFIG_MAPPING[kind]]


def _unfit(found: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(kind, found[f"{kind}_keys"]) for kind in ("missing", "unexpected", "mismatched")]


def _check_settings(settings: dict[str, Any], name: str) -> None:
    """Refuse what would load something from elsewhere, or be built for hours."""
    if settings.get("backbone") or settings.get("use_timm_backbone"):
        raise WeightsError(f"expected a backbone that config.json of {name} describes, got the name of another model. {ANOTHER}")
    layers = sum(_layers(settings))
    if layers > _MOST_LAYERS:
        raise WeightsError(f"expected at most {_MOST_LAYERS} layers in config.json of {name}, got {layers:,}. {ANOTHER}")


def _asked(config: Any) -> dict[str, int]:
    """Of what a model may have only so many, as `litedetr.weights.limits.MOST` names it."""
    scores = config.num_queries * config.num_labels * (config.decoder_layers + 1)
    return {
        "queries": config.num_queries, "top_k": _top_k(config), "decoder_layers": config.decoder_layers,
        "class scores of all layers": scores,
    }  # fmt: skip


def _top_k(config: Any) -> int:
    """What the image processor of `transformers` keeps."""
    return 100 if config.model_type == "lw_detr" else config.num_queries


def _layers(settings: Any, counted: bool = False) -> list[int]:
    """All numbers of layers, blocks and depths in settings."""
    if isinstance(settings, dict):
        words = ("layers", "depths", "blocks", "num_labels")
        return [n for key, value in settings.items() for n in _layers(value, any(word in str(key) for word in words))]
    if isinstance(settings, list):
        return [n for value in settings for n in _layers(value, counted)]
    return [settings] if counted and isinstance(settings, int) and not isinstance(settings, bool) else []


def _preparation(values: dict[str, Any], name: str, kind: str) -> tuple[tuple[int, int], tuple[float, ...], tuple[float, ...]]:
    """(height, width), mean and std from preprocessor_config.json."""
    size = values.get("size")
    sides = (size.get("height"), size.get("width")) if isinstance(size, dict) else (None, None)
    fits = all(isinstance(side, int) and 32 <= side <= LARGEST_SIDE for side in sides)
    if not fits or not values.get("do_resize", True) or values.get("pad_size") not in (None, size):
        raise WeightsError(
            f'expected a "size" with a height and a width from 32 to {LARGEST_SIDE} in preprocessor_config.json of {name}, got '
            f"{json.dumps(size)[:80]}. {ANOTHER}"
        )
    if not values.get("do_normalize", True):
        return sides, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    usual = ([0.0] * 3, [1.0] * 3) if kind in CUBIC else ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    mean, std = values.get("image_mean", usual[0]), values.get("image_std", usual[1])
    if not all(isinstance(part, list) and len(part) == 3 and all(map(_is_number, part)) for part in (mean, std)) or min(std) <= 0:
        raise WeightsError(f"expected three numbers as image_mean and as image_std in {FILES[0]} of {name}. {ANOTHER}")
    return sides, tuple(map(float, mean)), tuple(map(float, std))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _try(detector: GuestDetector, name: str, limits: Limits | None) -> None:
    """Refuse a model that cannot see an empty picture, or takes too long over it."""
    size = detector.config.size
    try:
        work = detector.cost(size).total
        with torch.no_grad():
            output = detector.model(pixel_values=torch.zeros(1, 3, *size))
    except Exception as error:  # whatever comes of settings that fit no picture
        raise WeightsError(
            f"expected a model that can be run in {name}, got one that cannot: {_why(error)}. {ANOTHER}"
        ) from error
    if not (output.logits.isfinite().all() and output.pred_boxes.isfinite().all()):
        raise WeightsError(f"expected a model that answers with finite numbers in {name}, got one that does not. {ANOTHER}")
    if limits is not None and work > limits.gmacs:
        raise WeightsError(
            f"expected a model of at most {limits.gmacs:,.0f} GMACs a photo, got {work:,.0f} in {name}: choose a smaller one"
            f"{limits.advice}."
        )


def _json(file: Path, name: str) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            values = json.loads(opened.read(CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"expected {file.name} of a transformers model in {name}, and could not read it. Download or copy it again."
        ) from error
    if not isinstance(values, dict):
        raise WeightsError(f"expected settings in {file.name} of {name}, got something else. {ANOTHER}")
    return values


def _why(error: Exception) -> str:
    """The first line of what an error says, without this machine's folders."""
    text = str(error).strip().splitlines()
    words = [word for word in (text[0] if text else type(error).__name__).split() if "/" not in word.strip("'\"")]
    return " ".join(words)[:200]
