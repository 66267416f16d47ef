"""The CPU kernel against the float64 reference: output and every gradient, on every instruction set of this machine."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
import torch

from litedetr import ops
from litedetr.ops import native, norm

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no kernel here: {native.reason_unavailable()}")

MODES = ("plain", "shared", "separate")


@dataclass(frozen=True)
class Case:
    """Sizes of one call, and how far its points stray."""

    B: int = 2
    Q: int = 7
    M: int = 2
    D: int = 16
    P: int = 4
    shapes: tuple[tuple[int, int], ...] = ((6, 9), (4, 5), (2, 3), (1, 1))
    spread: float = 0.3

    @property
    def L(self) -> int:
        return len(self.shapes)


CASES = {
    "model": Case(),
    "head-32": Case(D=32, B=1),
    "head-8": Case(D=8),
    "head-24": Case(D=24),
    "head-40": Case(D=40, B=3, Q=3),
    "head-64": Case(D=64, B=1, Q=3),
    "odd-head": Case(D=5, P=3),
    "one-channel": Case(D=1, P=1),
    "one-level": Case(shapes=((8, 3),), P=3),
    "one-point": Case(shapes=((1, 1),), P=1, spread=0.8),
    "three-levels-three-points": Case(shapes=((7, 5), (3, 2), (1, 1)), P=3, B=3),
    "five-levels": Case(shapes=((5, 6), (3, 3), (2, 2), (1, 2), (1, 1)), P=4, B=1),
    "many-points": Case(shapes=((5, 6), (3, 3)), P=19, D=32, B=1),
    "one-head": Case(M=1, B=1, Q=33),
    "thin-levels": Case(shapes=((1, 11), (11, 1))),
    "far-outside": Case(spread=40.0),
    "no-queries": Case(Q=0),
    "no-pictures": Case(B=0),
    "all-tokens-ask": Case(B=1, Q=16 * 21 + 7 * 10 + 1, D=8, shapes=((16, 21), (7, 10), (1, 1))),  # an order of their own
    "coarse-tokens-ask": Case(B=2, Q=17 * 19 + 4 * 3, M=1, D=16, P=2, shapes=((20, 9), (17, 19), (4, 3))),
}


def tensors_of(case: Case, mode: str, seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    S = sum(height * width for height, width in case.shapes)
    points = (case.B, case.Q, case.M, case.L, case.P)
    tensors = {
        "value": torch.randn(case.B, S, case.M, case.D, generator=random),
        "locations": 0.5 + (torch.rand(*points, 2, generator=random) - 0.5) * (1 + 2 * case.spread),
    }
    if mode == "plain":
        tensors["weights"] = torch.randn(*points, generator=random)
    else:
        tensors["query"] = 2 * torch.randn(case.B, case.Q, case.M, case.D, generator=random)
    if mode == "separate":
        tensors["key"] = torch.randn(case.B, S, case.M, case.D, generator=random)
    return tensors


def run(mode: str, shapes, tensors: dict[str, torch.Tensor], backend: str) -> dict[str, torch.Tensor]:
    """Outputs, and gradients of a fixed functional of them, by name."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    value, locations = leaves["value"], leaves["locations"]
    with ops.use(backend):
        if mode == "plain":
            results = {"out": ops.deformable_attention(value, shapes, locations, leaves["weights"])}
        else:
            key = leaves.get("key", value)
            both = ops.key_aware_deformable_attention(leaves["query"], key, value, shapes, locations, return_weights=True)
            results = dict(zip(("out", "softmax"), both, strict=True))
        random = torch.Generator().manual_seed(1)
        cotangents = [torch.randn(r.shape, generator=random).to(r.dtype) for r in results.values()]
        grads = torch.autograd.grad(list(results.values()), list(leaves.values()), cotangents)
    return results | {f"grad {name}": grad for name, grad in zip(leaves, grads, strict=True)}


def outputs(mode: str, shapes, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The output alone, of the implementation in use; for threads, which must not all change what is in use."""
    with torch.no_grad():
        if mode == "plain":
            return ops.deformable_attention(tensors["value"], shapes, tensors["locations"], tensors["weights"])
        key = tensors.get("key", tensors["value"])
        return ops.key_aware_deformable_attention(tensors["query"], key, tensors["value"], shapes, tensors["locations"])


def doubled(tensors):
    return {name: tensor.double() for name, tensor in tensors.items()}


def paths():
    best = native.INSTRUCTIONS.index(native.instructions())
    return native.INSTRUCTIONS[1 : best + 1]


def assert_agree(got, expected, tolerance: float = 1e-5) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in got.items():
        wanted = expected[name]
        assert tensor.shape == wanted.shape, name
        scale = max(1.0, wanted.abs().max().item()) if wanted.numel() else 1.0
        torch.testing.assert_close(
            tensor.double(), wanted, atol=tolerance * scale, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


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
        right = native._run_plain
        monkeypatch.setattr(native, "_run_plain", lambda *a: right(*a) + 0.01)
    else:
        monkeypatch.setattr(norm, "by_kernel", lambda library, path, *a: [t.zero_() for t in a[5::2]])
    with pytest.raises(RuntimeError, match="does not agree with the reference on this machine, so it is not used"):
        native._check_against_reference(native.library())
