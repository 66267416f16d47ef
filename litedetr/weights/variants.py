"""The embedded model with another encoder or another attention, trained as it was, each stored as what differs from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from litedetr.config import DetectorConfig
from litedetr.meta import OnMeta
from litedetr.network import Network
from litedetr.shipped import shipped
from litedetr.weights.errors import check_state
from litedetr.weights.folder import read

EMBEDDED = shipped("assets/weights")
VARIANTS = {"embedded/full": EMBEDDED / "full.safetensors", "embedded/plain": EMBEDDED / "plain.safetensors"}
"""Their names for `litedetr.Detector.from_pretrained`, and files: the full encoder; plain attention in encoder and decoder."""

State = Mapping[str, Tensor]


def write_variant(file: Path, base: tuple[DetectorConfig, State], variant: tuple[DetectorConfig, State]) -> None:
    """Write what differs from ``base``: settings as the file's metadata, tensors in half precision."""
    settings, old = variant[0].to_dict(), base[0].to_dict()
    changes = {name: value for name, value in settings.items() if value != old[name]}
    tensors = {key: value.half() for key, value in variant[1].items()}
    same = [key for key, value in base[1].items() if key in tensors and torch.equal(value.half(), tensors[key])]
    kept = {key: value.contiguous() for key, value in tensors.items() if key not in same}
    save_file(kept, file, metadata={"format": "pt", "changes": json.dumps(changes)})


def read_variant(file: Path, base: Path = EMBEDDED) -> tuple[DetectorConfig, dict[str, Tensor]]:
    """Config and state dict of a variant of the model in the folder ``base``, all of whose tensors are the one's or the other's.

    Raises:
        litedetr.weights.WeightsError: a tensor is missing, has another shape, or has no place in the variant.
    """
    config, state = read(base, base.name)
    config = variant_config(file, config)
    with OnMeta():
        expected = Network(config).state_dict()
    common = {key: value for key, value in state.items() if key in expected and value.shape == expected[key].shape}
    whole = common | load_file(file)
    check_state(expected, whole)
    return config, whole


def variant_config(file: Path, base: DetectorConfig) -> DetectorConfig:
    """The config of a variant of ``base``."""
    with safe_open(file, "pt") as opened:
        changes = json.loads(opened.metadata()["changes"])
    return DetectorConfig.from_dict(base.to_dict() | changes)
