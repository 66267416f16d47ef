"""The ops as PyTorch operators: opcheck, torch.compile, autocast."""

import pytest
import torch

from litedetr import ops
from litedetr.ops import native

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no kernel here: {native.reason_unavailable()}")

SHAPES = ((4, 5), (2, 3))
SIZES = [4, 5, 2, 3]


def inputs(requires_grad: bool = False, dtype: torch.dtype = torch.float32):
    random = torch.Generator().manual_seed(0)
    B, Q, M, L, P, D, S = 2, 3, 2, 2, 4, 16, 26
    query = torch.randn(B, Q, M, D, generator=random).to(dtype)
    key, value = (torch.randn(B, S, M, D, generator=random).to(dtype) for _ in range(2))
    locations = torch.rand(B, Q, M, L, P, 2, generator=random)
    weights = torch.rand(B, Q, M, L, P, generator=random)
    return tuple(t.requires_grad_(requires_grad) for t in (query, key, value, locations, weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck_forward(dtype):
    query, key, value, locations, weights = inputs(requires_grad=True, dtype=dtype)
    torch.library.opcheck(torch.ops.litedetr.deformable_attention.default, (value, locations, weights, SIZES))
    operator = torch.ops.litedetr.key_aware_attention.default
    for keys, return_weights in ((None, False), (key, True)):
        torch.library.opcheck(operator, (query, keys, value, locations, SIZES, return_weights))


def test_opcheck_backward():
    query, key, value, locations, weights = inputs()
    grad_out = torch.randn(2, 3, 32)
    operator = torch.ops.litedetr.deformable_attention_backward.default
    torch.library.opcheck(operator, (grad_out, value, locations, weights, SIZES))
    operator = torch.ops.litedetr.key_aware_attention_backward.default
    for keys, grad_weights in ((None, None), (key, weights)):
        torch.library.opcheck(operator, (grad_out, grad_weights, query, keys, value, locations, SIZES))


@pytest.mark.parametrize("kind", ["plain", "shared", "separate"])
def test_compile_without_graph_breaks(kind):
    def attend(query, key, value, locations, weights):
        if kind == "plain":
            return ops.deformable_attention(value * 1.5, SHAPES, locations, weights)
        value = value * 1.5
        key = value if kind == "shared" else key
        out, weights = ops.key_aware_deformable_attention(query, key, value, SHAPES, locations, return_weights=True)
        return out * weights.sum()

    tensors = inputs(requires_grad=True)
    used = {"plain": tensors[2:], "shared": (tensors[0], *tensors[2:4]), "separate": tensors[:4]}[kind]
    with ops.use("native"):
        expected = attend(*tensors)
        expected_grads = torch.autograd.grad(expected.square().sum(), used)
        got = torch.compile(attend, fullgraph=True, backend="aot_eager")(*tensors)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(torch.autograd.grad(got.square().sum(), used), expected_grads)


@pytest.mark.parametrize("kind", ["plain", "shared", "separate"])
def test_export(kind):
    class Attend(torch.nn.Module):
        def forward(self, query, key, value, locations, weights):
            if kind == "plain":
                return ops.deformable_attention(value, SHAPES, locations, weights)
            return ops.key_aware_deformable_attention(query, value if kind == "shared" else key, value, SHAPES, locations)

    tensors = inputs()
    with ops.use("native"):
        program = torch.export.export(Attend(), tensors)
        called = [str(node.target) for node in program.graph.nodes if "litedetr" in str(node.target)]
        assert called == ["litedetr.deformable_attention.default" if kind == "plain" else "litedetr.key_aware_attention.default"]
        torch.testing.assert_close(program.module()(*tensors), Attend()(*tensors))


def test_a_compiled_function_follows_use():
    query, _, value, locations, _ = inputs()
    value = value.requires_grad_()
    compiled = torch.compile(
        lambda v: ops.key_aware_deformable_attention(query, v, v, SHAPES, locations), fullgraph=True, backend="aot_eager"
    )
    with ops.use("native"):
        native_out = compiled(value)
    with ops.use("reference"):
        reference_out = compiled(value)
        assert torch.equal(reference_out, ops.key_aware_deformable_attention(query, value, value, SHAPES, locations))
    torch.testing.assert_close(reference_out, native_out)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_autocast(backend):
    """A linear layer gives bfloat16 queries and values; locations stay float32 and are not rounded."""
    query, _, value, locations, weights = inputs(requires_grad=True)
    layer = torch.nn.Linear(16, 16)
    with ops.use(backend), torch.autocast("cpu", dtype=torch.bfloat16):
        projected = layer(value)
        assert projected.dtype == torch.bfloat16
        plain = ops.deformable_attention(projected, SHAPES, locations, weights)
        aware = ops.key_aware_deformable_attention(layer(query), projected, projected, SHAPES, locations)
        mixed = ops.key_aware_deformable_attention(query, projected, projected, SHAPES, locations)
    assert plain.dtype == aware.dtype == mixed.dtype == torch.bfloat16
    (plain.float().sum() + aware.float().sum() + mixed.float().sum()).backward()
    for tensor in (query, value, locations, weights, layer.weight):
        assert tensor.grad.dtype == torch.float32
        assert tensor.grad.isfinite().all()


def test_no_rounding_of_locations_under_autocast():
    _, _, value, locations, weights = inputs()
    locations = locations * 0.01 + 0.5  # a hundredth of the map: bfloat16 would see few different places
    exact = ops.deformable_attention(value.bfloat16(), SHAPES, locations, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(ops.deformable_attention(value.bfloat16(), SHAPES, locations, weights), exact)


def test_inference_mode_and_no_grad():
    query, _, value, locations, _ = inputs(requires_grad=True)
    with torch.inference_mode():
        assert not ops.key_aware_deformable_attention(query, value, value, SHAPES, locations).requires_grad
    with torch.no_grad():
        assert not ops.key_aware_deformable_attention(query, value, value, SHAPES, locations).requires_grad
