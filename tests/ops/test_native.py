"""The CPU kernel against the float64 reference: output and every gradient, on every instruction set of this machine."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from litedetr import ops
from litedetr.ops import native, norm
from litedetr.ops.kernel import Kernel
from tests.ops.cases import CASES, MODES, Case, assert_agree, doubled, outputs, run, tensors_of

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no kernel here: {native.reason_unavailable()}")


def paths():
    return native.instructions().all


@pytest.fixture
def poisoned(monkeypatch):
    """What the kernel does not write stays NaN."""
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: new_empty(*a, **k).fill_(float("nan")))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients(name, mode):
    case = CASES[name]
    tensors = tensors_of(case, mode)
    expected = run(mode, case.shapes, doubled(tensors), "reference")
    for path in paths():
        with native.use_instructions(path):
            assert_agree(run(mode, case.shapes, tensors, "native"), expected)


@pytest.mark.parametrize("mode", MODES)
def test_points_on_borders_and_pixel_centres(mode):
    """Sizes are powers of two, so that float32 and float64 put these points on the same side of every border."""
    shapes, sides = ((4, 8), (2, 2)), torch.tensor([-0.125, 0.0, 0.0625, 0.125, 0.25, 0.5, 0.9375, 1.0, 1.125, 1.25, 1e9, -1e9])
    grid = torch.cartesian_prod(sides, sides)
    case = Case(B=1, M=1, Q=len(grid), P=1, shapes=shapes)
    tensors = tensors_of(case, mode)
    tensors["locations"] = grid.view(1, -1, 1, 1, 1, 2).expand(1, -1, 1, 2, 1, 2).contiguous()
    expected = run(mode, shapes, doubled(tensors), "reference")
    for path in paths():
        with native.use_instructions(path):
            assert_agree(run(mode, shapes, tensors, "native"), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_locations_that_are_no_numbers_count_as_outside(mode, bad):
    case = Case(Q=3)
    tensors = tensors_of(case, mode)
    outside = tensors | {"locations": torch.full_like(tensors["locations"], 50.0)}
    broken = tensors | {"locations": torch.full_like(tensors["locations"], bad)}
    expected = run(mode, case.shapes, doubled(outside), "reference")
    for path in paths():
        with native.use_instructions(path):
            assert_agree(run(mode, case.shapes, broken, "native"), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_points_see_their_own_level_only(mode, level):
    """All other levels, and all other heads, are NaN, and points lie up to two pixels outside of their level."""
    case = Case(B=1, Q=40, D=16, shapes=((3, 4), (1, 1), (2, 5)))
    tensors = tensors_of(case, mode)
    H, W = case.shapes[level]
    start = sum(height * width for height, width in case.shapes[:level])
    random = torch.Generator().manual_seed(2)
    pixels = torch.rand(tensors["locations"].shape, generator=random) * torch.tensor([W + 4, H + 4]) - 2
    tensors["locations"] = torch.full_like(pixels, 50.0)  # the other levels are not looked at
    tensors["locations"][:, :, :, level] = pixels[:, :, :, level] / torch.tensor([W, H])
    poisoned_maps = {}
    for name in tensors.keys() & {"value", "key"}:
        poisoned_maps[name] = torch.full_like(tensors[name], float("nan"))
        poisoned_maps[name][:, start : start + H * W, 0] = tensors[name][:, start : start + H * W, 0]
    expected = run(mode, case.shapes, doubled(tensors), "reference")["out"][..., : case.D]  # the first head
    assert expected.abs().sum() > 0
    for path in paths():
        with native.use_instructions(path):
            assert_agree(
                {"out": run(mode, case.shapes, tensors | poisoned_maps, "native")["out"][..., : case.D]}, {"out": expected}
            )


@pytest.mark.parametrize("mode", MODES)
def test_strided_inputs(mode):
    case = Case(D=16)
    tensors = tensors_of(case, mode)
    expected = run(mode, case.shapes, doubled(tensors), "reference")
    strided = {name: tensor.transpose(0, -1).contiguous().transpose(0, -1) for name, tensor in tensors.items()}
    assert not strided["value"].is_contiguous()
    assert_agree(run(mode, case.shapes, strided, "native"), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["more-queries", "all-tokens-ask"])
def test_the_number_of_threads_changes_nothing(mode, name):
    case = replace(CASES[name], D=32) if name in CASES else Case(B=1, Q=601, D=32)  # enough work to use threads at all
    tensors = tensors_of(case, mode)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 5):  # 3 and 5: more than heads, so queries are cut as well
            torch.set_num_threads(threads)
            results.append(run(mode, case.shapes, tensors, "native"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for name, tensor in results[0].items():
            assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("D", [5, 16, 32])
def test_bfloat16_is_as_exact_as_eager(mode, D):
    case = replace(CASES["model"], D=D)
    tensors = tensors_of(case, mode)
    half = {name: t if name in ("locations", "weights") else t.bfloat16() for name, t in tensors.items()}
    exact = run(mode, case.shapes, doubled(half), "reference")
    eager = run(mode, case.shapes, half, "reference")
    for path in paths():
        with native.use_instructions(path):
            got = run(mode, case.shapes, half, "native")
        for name, tensor in got.items():
            assert tensor.dtype == eager[name].dtype, name
            error, allowed = ((t.double() - exact[name]).abs().max().item() for t in (tensor, eager[name]))
            assert error <= 1.5 * allowed + 1e-5, name


def test_rounding_to_bfloat16_keeps_infinities_and_nan():
    value = torch.tensor([float("inf"), -float("inf"), float("nan"), 1.00390625]).bfloat16().view(1, 1, 1, 4)
    locations, weights = torch.full((1, 1, 1, 1, 1, 2), 0.5), torch.ones(1, 1, 1, 1, 1)
    value[..., :3] = 0
    weights = weights * 3e38
    value[..., 3] = 3e38
    with ops.use("native"):
        out = ops.deformable_attention(value, [(1, 1)], locations, weights)
    assert out.flatten().tolist() == [0, 0, 0, float("inf")]
    with ops.use("native"):
        out = ops.deformable_attention(value, [(1, 1)], locations, weights * float("nan"))
    assert out.isnan().all()


@pytest.mark.parametrize("mode", MODES)
def test_calls_from_several_threads_at_once(mode):
    cases = [Case(B=1, Q=200), Case(B=1, Q=90, D=32, shapes=((9, 14), (5, 7))), Case(B=2, Q=50, D=5, P=3)]
    inputs = [tensors_of(case, mode, seed) for seed, case in enumerate(cases)]
    expected = [run(mode, case.shapes, tensors, "native") for case, tensors in zip(cases, inputs, strict=True)]
    with ops.use("native"), ThreadPoolExecutor(3) as pool:
        got = list(pool.map(lambda i: outputs(mode, cases[i % 3].shapes, inputs[i % 3]), range(30)))
    for i, out in enumerate(got):
        assert torch.equal(out, expected[i % 3]["out"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_can_use_it():
    case = Case(B=1, Q=601, D=32)
    tensors = tensors_of(case, "shared")
    with ops.use("native"):
        expected = outputs("shared", case.shapes, tensors)  # with as many threads as PyTorch has, before the fork
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)  # OpenMP's threads do not come along; PyTorch's own workers do the same
            os.write(writer, b"same" if torch.equal(outputs("shared", case.shapes, tensors), expected) else b"else")
            os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        assert os.read(reader, 4) == b"same"
        os.close(reader)


def test_large_logits_do_not_overflow():
    case = Case()
    tensors = tensors_of(case, "shared")
    tensors["query"] *= 1e4
    assert_agree(run("shared", case.shapes, tensors, "native"), run("shared", case.shapes, doubled(tensors), "reference"), 2e-3)


def test_only_some_inputs_need_a_gradient():
    case = Case()
    tensors = tensors_of(case, "shared")
    query = tensors["query"].requires_grad_()
    with ops.use("native"):
        ops.key_aware_deformable_attention(
            query, tensors["value"], tensors["value"], case.shapes, tensors["locations"]
        ).sum().backward()
    assert query.grad.isfinite().all()
    assert tensors["value"].grad is None


@pytest.mark.parametrize("wrong", ["plain", "norm"])
def test_the_self_check_finds_a_wrong_kernel(wrong, monkeypatch):
    if wrong == "plain":
        right = Kernel.plain
        monkeypatch.setattr(Kernel, "plain", lambda *a: right(*a) + 0.01)
    else:
        monkeypatch.setattr(norm, "by_kernel", lambda kernel, *a: [t.zero_() for t in a[5::2]])
    with pytest.raises(RuntimeError, match="does not agree with the reference on this machine, so it is not used"):
        native._check_against_reference(native.kernel())
