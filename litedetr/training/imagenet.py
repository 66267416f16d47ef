"""ImageNet weights to start a training from, as torchvision, timm and Swin's authors save them: .pth or .safetensors, every key
accounted for."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from torch import Tensor

from litedetr.backbones.resnet import ResNet50
from litedetr.backbones.swin import SwinTransformer
from litedetr.training.annotations import few
from litedetr.weights.conversion.checkpoint import read_checkpoint
from litedetr.weights.errors import check_state

log = logging.getLogger(__name__)
_UNUSED = re.compile(r"^(fc|head|classifier|norm)\.|\.num_batches_tracked$|\.relative_position_index$|\.attn_mask$")
"""The classifier and its norm, counters, tables that follow from the window's size."""
_TORCHVISION_SWIN = (
    (r"^features\.0\.0\.", lambda found: "patch_embed.proj."),
    (r"^features\.0\.2\.", lambda found: "patch_embed.norm."),
    (r"^features\.([1357])\.(\d+)\.", lambda found: f"layers.{int(found[1]) // 2}.blocks.{found[2]}."),
    (r"^features\.([246])\.", lambda found: f"layers.{int(found[1]) // 2 - 1}.downsample."),
    (r"\.mlp\.0\.", lambda found: ".mlp.fc1."),
    (r"\.mlp\.3\.", lambda found: ".mlp.fc2."),
)


def load_imagenet_backbone(backbone: ResNet50 | SwinTransformer, path: str | Path) -> None:
    """Load a classifier's weights into a backbone; nothing is loaded if they do not fit.

    What a classifier has and a backbone has not is left out; the norms after Swin's stages, which it has not, stay as they begin.

    Raises:
        WeightsError: no checkpoint, or a key is missing, left over or misshaped.
    """
    saved = read_checkpoint(Path(path)).state
    state = {name: value.float() for name, value in saved.items() if not _UNUSED.search(name)}
    if isinstance(backbone, SwinTransformer):
        state = _swin_names(state)
    expected = {name: value for name, value in backbone.state_dict().items() if not re.match(r"norm\d\.", name)}
    check_state(expected, state)
    backbone.load_state_dict(state, strict=False)
    unused = [name for name in saved if _UNUSED.search(name) and not name.endswith(".num_batches_tracked")]
    log.info("%d weights of %s are in the backbone; left out: %s", len(state), Path(path).name, few(unused) or "none")


def _swin_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names, and timm's, which counts the way to the next stage among the next stage's weights."""
    if "layers.3.downsample.reduction.weight" in state:
        return {re.sub(r"^layers\.(\d)\.downsample\.", lambda found: f"layers.{int(found[1]) - 1}.downsample.", name): value
                for name, value in state.items()}  # fmt: skip
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in _TORCHVISION_SWIN:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed
