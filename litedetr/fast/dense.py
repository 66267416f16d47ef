"""Linear layers and what is made of them, for inference: weights packed once for oneDNN, ReLU and skip fused into the product.

oneDNN's fused operators are no public API of PyTorch. They are used where they exist and give the right result, which is
checked once per dtype; else `F.linear` does the same.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from litedetr import ops
from litedetr.feedforward import MLP, FeedForward

NUMBERS = 1 << 18
"""About so many numbers for each thread go through a chain of layers together: few enough for what lies between the layers to
stay in the cache, enough for the products to run at full speed."""
ROWS = 1024
"""So many rows of 256 that is; for about so many weights are packed."""


@lru_cache(maxsize=8)
def packing_works(dtype: torch.dtype) -> bool:
    """Whether oneDNN's fused linear layers are there and right on this machine."""
    random = torch.Generator().manual_seed(0)
    x, skip = torch.randn(37, 48, generator=random), torch.randn(37, 32, generator=random)
    weight, bias = torch.randn(32, 48, generator=random), torch.randn(32, generator=random)
    x, skip, weight, bias = (t.to(dtype) for t in (x, skip, weight, bias))
    expected = F.linear(x.float(), weight.float(), bias.float())
    exact = 1e-4 if dtype == torch.float32 else 0.3  # of values around 7, whose last bit in bfloat16 is worth 0.03 to 0.06
    try:
        with torch.inference_mode():
            packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
            got = [
                torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "") - expected,
                torch.ops.mkldnn._linear_pointwise(x, packed, bias, "relu", [], "") - expected.relu(),
                torch.ops.mkldnn._linear_pointwise.binary(x, skip, packed, bias, "add") - expected - skip,
            ]
        return all(bool((difference.float().abs() < exact).all()) for difference in got)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False


def pieces(rows: int, width: int) -> list[slice]:
    """`rows` rows of `width` numbers in pieces of one size, about `NUMBERS` for each thread."""
    count = max(1, round(rows * width / (NUMBERS * torch.get_num_threads())))
    size = -(-rows // count)
    return [slice(start, start + size) for start in range(0, rows, max(size, 1))]


class Dense(nn.Module):
    """A linear layer with a ReLU behind it if asked for: (..., K) -> (..., N) in `dtype`, whatever the input's dtype.

    Args:
        layer: it is copied.
        dtype: float32 or bfloat16.
        keep: also keep the weight as it is, in `weight`, for those who read it.
    """

    def __init__(self, layer: nn.Linear, dtype: torch.dtype, relu: bool = False, keep: bool = False):
        super().__init__()
        weight = layer.weight.detach().to(dtype, copy=True)
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().to(dtype, copy=True)
        self.dtype, self.relu, self.outputs = dtype, relu, len(weight)
        self.bias = nn.Buffer(bias, persistent=False)
        self.packed = None
        if weight.device.type == "cpu" and packing_works(dtype):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        self.weight = nn.Buffer(weight, persistent=False) if keep or self.packed is None else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if self.packed is not None:
            activation = "relu" if self.relu else "none"
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "")
        out = F.linear(x, self.weight, self.bias)
        return out.relu_() if self.relu else out

    def add(self, x: Tensor, skip: Tensor) -> Tensor:
        """``skip + layer(x)``, without the ReLU."""
        if self.packed is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x.to(self.dtype), skip, self.packed, self.bias, "add")
        return F.linear(x.to(self.dtype), self.weight, self.bias).add_(skip)


class AddNorm(nn.Module):
    """Skip and layer norm: ``norm(x + skip)`` of rows (N, d), in one pass where the kernel is; see `ops.add_norm`.

    Args:
        norm: it is copied, in float32.
    """

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.eps = norm.eps
        self.weight = nn.Buffer(norm.weight.detach().to(torch.float32, copy=True), persistent=False)
        self.bias = nn.Buffer(norm.bias.detach().to(torch.float32, copy=True), persistent=False)

    def forward(
        self, x: Tensor, skip: Tensor, out: Tensor | None = None, shift: Tensor | None = None, shifted: Tensor | None = None
    ) -> Tensor:
        """`out`, a new tensor if it is None; with `shift`, ``out + shift`` is written to `shifted`."""
        return ops.add_norm(x, skip, self.weight, self.bias, self.eps, out, shift, shifted)


class DenseFeedForward(nn.Module):
    """`litedetr.feedforward.FeedForward`, for rows that fit the cache: see `pieces`."""

    def __init__(self, ffn: FeedForward, dtype: torch.dtype):
        super().__init__()
        self.linear1, self.linear2 = Dense(ffn.linear1, dtype, relu=True), Dense(ffn.linear2, dtype)
        self.norm = AddNorm(ffn.norm)

    def forward(self, x: Tensor, out: Tensor | None = None, shift: Tensor | None = None, shifted: Tensor | None = None) -> Tensor:
        """(N, d) -> `out`, and what else `AddNorm` does."""
        return self.norm(self.linear2(self.linear1(x)), x, out, shift, shifted)


class DenseMLP(nn.Module):
    """`litedetr.feedforward.MLP`. The last layer computes in float32, because boxes are its outputs."""

    def __init__(self, mlp: MLP, dtype: torch.dtype, last: torch.dtype = torch.float32):
        super().__init__()
        *hidden, final = mlp.layers
        self.layers = nn.ModuleList([*(Dense(layer, dtype, relu=True) for layer in hidden), Dense(final, last)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class DenseSelfAttention(nn.Module):
    """`nn.MultiheadAttention` of one photo, whose queries and keys are made of one tensor: one product makes both."""

    def __init__(self, attention: nn.MultiheadAttention, dtype: torch.dtype):
        super().__init__()
        d = attention.embed_dim
        self.heads = attention.num_heads
        weight, bias = attention.in_proj_weight.detach(), attention.in_proj_bias.detach()
        self.query_key = Dense(_linear(weight[: 2 * d], bias[: 2 * d]), dtype)
        self.value = Dense(_linear(weight[2 * d :], bias[2 * d :]), dtype)
        self.output = Dense(attention.out_proj, dtype)

    def forward(self, query: Tensor, value: Tensor) -> Tensor:
        """(Q, d) each: what ask and are asked, and what is given -> (Q, d)."""
        Q, d = query.shape
        query, key = self.query_key(query).view(1, Q, 2, self.heads, -1).permute(2, 0, 3, 1, 4).contiguous()  # (1, M, Q, D) each
        value = self.value(value).view(1, Q, self.heads, -1).transpose(1, 2).contiguous()
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.output(attended.transpose(1, 2).reshape(Q, d))


def frozen_norm(norm: nn.LayerNorm, dtype: torch.dtype) -> nn.LayerNorm:
    """A copy whose weights are constants of `dtype`."""
    copy = nn.LayerNorm(norm.normalized_shape, norm.eps, device=norm.weight.device, dtype=dtype)
    copy.load_state_dict(norm.state_dict())
    return copy.requires_grad_(False)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer around given tensors."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
    return layer
