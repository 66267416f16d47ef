"""MobileNetV2 1.0 with batch norm folded into its convolutions (Sandler et al. 2018)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from litedetr.backbones.backbone import Backbone

# (expansion, output channels, stride) of blocks 1 to 17; block 0 is the first convolution.
_BLOCKS = (
    [(1, 16, 1)]
    + [(6, 24, 2), (6, 24, 1)]
    + [(6, 32, 2)] + [(6, 32, 1)] * 2
    + [(6, 64, 2)] + [(6, 64, 1)] * 3
    + [(6, 96, 1)] * 3
    + [(6, 160, 2)] + [(6, 160, 1)] * 2
    + [(6, 320, 1)]
)  # fmt: skip
TAPS = (6, 13, 17)


def _same_pad(x: Tensor, stride: int) -> Tensor:
    """TensorFlow's SAME padding for a 3x3 kernel: on even sizes with stride 2, only right and bottom."""
    if stride == 1:
        return x
    vertical, horizontal = (1 - size % 2 for size in x.shape[-2:])
    return F.pad(x, (1 - horizontal, 1, 1 - vertical, 1))


class _Convolution(nn.Conv2d):
    """3x3 convolution with SAME padding."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 1):
        super().__init__(inputs, outputs, 3, stride=stride, padding=1 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_same_pad(x, self.stride[0]))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; a skip where shapes match."""

    def __init__(self, inputs: int, expansion: int, outputs: int, stride: int):
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion > 1 else None
        self.dw = _Convolution(hidden, hidden, stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        out = self.project(F.relu6(self.dw(out), inplace=True))
        return x + out if self.skip else out


class MobileNetV2(nn.Module):
    """Input is RGB in -1 … 1 (``x / 127.5 - 1``), sizes divisible by 32; taps after blocks 6, 13 and 17."""

    channels = (32, 96, 320)

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleList([_Convolution(3, 32, 2)])
        channels = 32
        for expansion, outputs, stride in _BLOCKS:
            self.features.append(InvertedResidual(channels, expansion, outputs, stride))
            channels = outputs

    def freeze_stem(self) -> None:
        """Take what runs at strides 2 and 4 out of training: it costs most and generic edges need no change."""
        self.features[:4].requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = pixels.contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.features[0](x), inplace=True)
        taps = []
        for index in range(1, len(self.features)):
            x = self.features[index](x)
            if index in TAPS:
                taps.append(x)
        return taps


def load_mobilenet_backbone(backbone: MobileNetV2, path: str | Path) -> None:
    """Start from ImageNet weights (keys ``features.N.*``; the classifier and the last 1x1 convolution are not used).

    Raises:
        ValueError: a key is missing or has another shape; nothing is loaded then.
    """
    unused = ("features.18.", "classifier.")
    state = {key: value.float() for key, value in load_file(path).items() if not key.startswith(unused)}
    expected = backbone.state_dict()
    wrong = sorted(
        key for key in expected.keys() | state.keys()
        if key not in expected or key not in state or expected[key].shape != state[key].shape
    )  # fmt: skip
    if wrong:
        raise ValueError(
            f"expected MobileNetV2 1.0 weights with batch norm folded, got {len(wrong)} missing, unexpected or misshaped keys "
            f"({', '.join(wrong[:3])}, …) in {Path(path).name}"
        )
    backbone.load_state_dict(state)


BACKBONE = Backbone("MobileNetV2", build=lambda config: MobileNetV2(), load=load_mobilenet_backbone)
