"""`ops.add_norm` on every path against layer norm in float64."""

import pytest
import torch
from torch.nn import functional

from litedetr import ops
from litedetr.ops import native
from litedetr.ops.instructions import Instructions

PATHS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not native.available() or name not in Instructions.best().all, reason=f"no {name} here"
        ),
    )
    for name in Instructions
]


def rows(N: int, d: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """x, skip and shift (N, d), weight and bias (d,)."""
    random = torch.Generator().manual_seed(N + d)
    wide = [torch.randn(N, d, generator=random).to(dtype) * scale for scale in (1, 3, 2)]
    return wide + [torch.randn(d, generator=random) for _ in range(2)]


def expected(x, skip, shift, weight, bias, eps):
    normed = functional.layer_norm(x.double() + skip.double(), weight.shape, weight.double(), bias.double(), eps)
    return normed, normed + shift.double()


def assert_near(got, wanted):
    tolerance = 1e-5 if got.dtype == torch.float32 else 2**-8  # half of bfloat16's last bit
    torch.testing.assert_close(got.double(), wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("N", "d"), [(1, 16), (67, 128), (200, 256), (3, 2048), (0, 32), (5, 20), (5, 4096)])
@pytest.mark.parametrize("path", PATHS)
def test_against_float64(path, N, d, dtype):
    x, skip, shift, weight, bias = rows(N, d, dtype)
    out, shifted = (torch.full_like(x, float("nan")) for _ in range(2))
    with native.use_instructions(path):
        assert ops.add_norm(x, skip, weight, bias, 1e-5, out, shift, shifted) is out
    for got, wanted in zip((out, shifted), expected(x, skip, shift, weight, bias, 1e-5), strict=True):
        assert_near(got, wanted)


def test_in_place_and_in_a_part_of_a_tensor():
    x, skip, shift, weight, bias = rows(100, 64)
    wanted, _ = expected(x, skip, shift, weight, bias, 1e-3)
    part, before = x[20:70], x.clone()
    assert ops.add_norm(part, skip[20:70], weight, bias, 1e-3, part) is part
    assert_near(x[20:70], wanted[20:70])
    assert torch.equal(x[:20], before[:20])
    assert torch.equal(x[70:], before[70:])


def test_rows_that_are_not_contiguous():
    x, skip, shift, weight, bias = rows(64, 64)
    wanted, _ = expected(x.T, skip, shift, weight, bias, 1e-5)
    assert_near(ops.add_norm(x.T, skip, weight, bias, 1e-5), wanted)


@pytest.mark.skipif(not native.available(), reason="no kernel here")
def test_threads_and_backends_agree():
    x, skip, shift, weight, bias = rows(3000, 256)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(ops.add_norm(x, skip, weight, bias, 1e-5))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    with ops.use("reference"):
        torch.testing.assert_close(ops.add_norm(x, skip, weight, bias, 1e-5), results[0], atol=1e-5, rtol=1e-5)


def test_nan_stays_in_its_row():
    x, skip, _, weight, bias = rows(4, 32)
    x[1, 3] = float("nan")
    assert ops.add_norm(x, skip, weight, bias, 1e-5).isnan().all(-1).tolist() == [False, True, False, False]
