"""The oracle itself, against a definition written out with loops, and against finite differences."""

import math

import pytest
import torch

from litedetr.ops import gather, reference

SHAPES = ((3, 4), (2, 2))


def inputs(seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    B, Q, M, L, P, D = 2, 3, 2, len(SHAPES), 2, 3
    S = sum(height * width for height, width in SHAPES)
    query = torch.randn(B, Q, M, D, generator=random, dtype=torch.float64)
    key, value = (torch.randn(B, S, M, D, generator=random, dtype=torch.float64) for _ in range(2))
    locations = torch.rand(B, Q, M, L, P, 2, generator=random, dtype=torch.float64) * 1.6 - 0.3
    weights = torch.rand(B, Q, M, L, P, generator=random, dtype=torch.float64)
    return query, key, value, locations, weights


def sampled(maps, b, m, level, x, y):
    """One bilinear sample by definition."""
    height, width = SHAPES[level]
    start = sum(h * w for h, w in SHAPES[:level])
    px, py = x * width - 0.5, y * height - 0.5
    total = torch.zeros(maps.shape[-1], dtype=maps.dtype)
    for row in (math.floor(py), math.floor(py) + 1):
        for column in (math.floor(px), math.floor(px) + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(px - column)) * (1 - abs(py - row))
                total = total + weight * maps[b, start + row * width + column, m]
    return total


def samples_of(maps, locations):
    B, Q, M, L, P, _ = locations.shape
    out = torch.empty(B, Q, M, L, P, maps.shape[-1], dtype=maps.dtype)
    for b, q, m, level, p in torch.cartesian_prod(*(torch.arange(n) for n in (B, Q, M, L, P))).tolist():
        x, y = locations[b, q, m, level, p].tolist()
        out[b, q, m, level, p] = sampled(maps, b, m, level, x, y)
    return out


def test_plain_is_the_weighted_sum_of_samples():
    _, _, value, locations, weights = inputs()
    expected = (samples_of(value, locations) * weights[..., None]).sum((3, 4)).flatten(2)
    torch.testing.assert_close(reference.deformable_attention(value, SHAPES, locations, weights), expected)


def test_key_aware_is_a_softmax_over_levels_and_points():
    query, key, value, locations, _ = inputs()
    logits = (samples_of(key, locations) * query[:, :, :, None, None]).sum(-1) / math.sqrt(query.shape[-1])
    weights = logits.flatten(3).softmax(-1).view_as(logits)
    expected = (samples_of(value, locations) * weights[..., None]).sum((3, 4)).flatten(2)
    out, got = reference.key_aware_deformable_attention(query, key, value, SHAPES, locations)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(got, weights)


def test_outside_points_keep_their_share_of_the_softmax():
    query, key, value, locations, _ = inputs()
    locations = locations.clamp(0.2, 0.8)
    locations[..., 0, :] = 7.0  # the first of each level's two points
    _, weights = reference.key_aware_deformable_attention(query, key, value, SHAPES, locations)
    outside = weights[..., 0]
    assert (outside > 0).all()
    torch.testing.assert_close(outside[..., 0], outside[..., 1])  # logit 0 on every level
    torch.testing.assert_close(weights.sum((-2, -1)), torch.ones_like(weights[..., 0, 0]))


def test_gradients_agree_with_finite_differences():
    query, key, value, locations, weights = (tensor.requires_grad_() for tensor in inputs())
    plain, kda = reference.deformable_attention, reference.key_aware_deformable_attention
    for function, arguments in (
        (lambda v, p, w: plain(v, SHAPES, p, w), (value, locations, weights)),
        (lambda q, k, v, p: kda(q, k, v, SHAPES, p), (query, key, value, locations)),
        (lambda q, v, p: kda(q, v, v, SHAPES, p), (query, value, locations)),
    ):
        assert torch.autograd.gradcheck(function, arguments, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_outputs_keep_the_dtype_of_the_value(dtype):
    query, key, value, locations, weights = inputs()
    value = value.to(dtype)
    locations = locations.float()
    out = reference.deformable_attention(value, SHAPES, locations, weights.float())
    assert out.dtype == dtype
    out, weights = reference.key_aware_deformable_attention(query.to(dtype), key.to(dtype), value, SHAPES, locations)
    assert (out.dtype, weights.dtype) == (dtype, torch.float32)


def test_gathered_samples_are_the_same_with_the_same_gradients():
    query, key, value, locations, _ = (tensor.requires_grad_() for tensor in inputs())
    results = [module.key_aware_deformable_attention(query, key, value, SHAPES, locations) for module in (reference, gather)]
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(out.square().sum(), (query, key, value, locations)) for out, _ in results]
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected)
    plain = [module.deformable_attention(value, SHAPES, locations, results[0][1]) for module in (reference, gather)]
    torch.testing.assert_close(plain[1], plain[0])
