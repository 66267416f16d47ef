"""The CUDA kernels' arithmetic and everything up to their launch, on an emulated GPU, against the float64 reference."""

import ctypes
import math
import os
import subprocess
import sys

import pytest
import torch

from litedetr.ops import cuda, cuda_build, cuda_launch, library
from tests.ops.cases import CASES, MODES, Case, assert_agree, doubled, run, tensors_of
from tests.ops.emulated import EmulatedGpu, driver_library

try:
    library.compiler()
except library.BuildError as error:
    pytest.skip(f"no emulated GPU here: {error}", allow_module_level=True)

CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A process that finds an emulated GPU where the CPU's tensors are."""
    gpu = EmulatedGpu()
    monkeypatch.setattr(cuda._State, "gpus", {CPU: gpu})
    monkeypatch.setattr(cuda._State, "reasons", {})
    monkeypatch.setattr(cuda_build, "compiled", lambda variant, capability: (b"image", tmp_path / variant.kernel("any")))
    driver_library().emulator_set_order(0)
    return gpu


@pytest.fixture
def unchecked(gpu, monkeypatch):
    """Without the check on first use, to save time."""
    monkeypatch.setattr(cuda, "_check_against_reference", lambda *a: None)
    return gpu


@pytest.fixture
def poisoned(monkeypatch):
    """What the kernels do not write stays NaN."""
    for owner, name in ((torch.Tensor, "new_empty"), (torch, "empty_like")):
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, plain=plain, **k: plain(*a, **k).fill_(float("nan")))


def run_kernels(mode: str, shapes, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As `run`, by the CUDA kernels."""
    sizes = [side for shape in shapes for side in shape]
    value, locations, weights = tensors["value"], tensors["locations"], tensors.get("weights")
    random = torch.Generator().manual_seed(1)
    if mode == "plain":
        results = {"out": cuda._plain(value, locations, weights, sizes)}
        grad_out = torch.randn(results["out"].shape, generator=random).to(value.dtype)
        grads = cuda._plain_backward(grad_out, value, locations, weights, sizes)
        named = dict(zip(("value", "locations", "weights"), grads, strict=True))
    else:
        key = tensors.get("key")
        out, softmax = cuda._key_aware(tensors["query"], key, value, locations, sizes, True)
        results = {"out": out, "softmax": softmax}
        grad_out, grad_softmax = (torch.randn(r.shape, generator=random).to(r.dtype) for r in results.values())
        grads = cuda._key_aware_backward(grad_out, grad_softmax, tensors["query"], key, value, locations, sizes)
        named = dict(zip(("query", "key", "value", "locations"), grads, strict=True))
    return results | {f"grad {name}": named[name] for name in tensors}


EMULATED = {name: case for name, case in CASES.items() if name != "many-points"}
EMULATED |= {"many-points": Case(shapes=((5, 6), (3, 3)), P=9, D=8, B=1), "head-300": Case(D=300, B=1, Q=2, M=1)}


@pytest.mark.usefixtures("poisoned", "unchecked")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", EMULATED)
def test_output_and_gradients(name, mode):
    case = EMULATED[name]
    tensors = tensors_of(case, mode)
    assert_agree(run_kernels(mode, case.shapes, tensors), run(mode, case.shapes, doubled(tensors), "reference"))


def other_order(call):
    """The results of two runs whose lanes take turns in opposite orders: they differ where one lane overtakes another."""
    results = []
    for order in (0, 1):
        driver_library().emulator_set_order(order)
        results.append(call())
    return results


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("D", [8, 32])
def test_lanes_do_not_race(mode, D):
    case = Case(D=D, B=1, Q=5)
    tensors = tensors_of(case, mode)
    forth, back = other_order(lambda: run_kernels(mode, case.shapes, tensors))
    for name, tensor in forth.items():
        torch.testing.assert_close(back[name], tensor, atol=1e-5, rtol=1e-5)  # atomics come in another order
        if not name.startswith("grad"):
            assert torch.equal(back[name], tensor), name


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("D", [5, 32])
def test_sixteen_bits_are_as_exact_as_eager(mode, dtype, D):
    case = Case(D=D, B=1, Q=5)
    tensors = tensors_of(case, mode)
    half = {name: t if name in ("locations", "weights") else t.to(dtype) for name, t in tensors.items()}
    exact, eager = run(mode, case.shapes, doubled(half), "reference"), run(mode, case.shapes, half, "reference")
    got = run_kernels(mode, case.shapes, half)
    for name, tensor in got.items():
        assert tensor.dtype == eager[name].dtype, name
        error, allowed = ((t.double() - exact[name]).abs().max().item() for t in (tensor, eager[name]))
        assert error <= 1.5 * allowed + 1e-5, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_numbers_pass_unchanged(unchecked, dtype):
    """One pixel, its whole weight: what goes in comes out, infinities and numbers below the normal ones included."""
    numbers = torch.arange(-(2**15), 2**15, 7, dtype=torch.int32)[: 292 * 32]
    numbers[:4] = torch.tensor([0x7C00, 0x7F80, 1, 0x3FF])  # infinity of either type, the least, and the largest below normal
    numbers = numbers.to(torch.int16).view(dtype)
    unchecked.multiprocessors = 10**6  # so many that blocks are small
    value = numbers.view(292, 1, 1, 32)
    locations, weights = torch.full((292, 1, 1, 1, 1, 2), 0.5), torch.ones(292, 1, 1, 1, 1)
    out = cuda._plain(value, locations, weights, [1, 1]).flatten()
    assert torch.equal(out.isnan(), numbers.isnan())
    assert torch.equal(out[~out.isnan()], numbers[~numbers.isnan()])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("mode", MODES)
def test_points_on_borders_and_pixel_centres(mode):
    """Sizes are powers of two, so that float32 and float64 put these points on the same side of every border."""
    shapes, sides = ((4, 8), (2, 2)), torch.tensor([-0.125, 0.0, 0.0625, 0.125, 0.25, 0.5, 0.9375, 1.0, 1.125, 1.25, 1e9, -1e9])
    grid = torch.cartesian_prod(sides, sides)
    tensors = tensors_of(Case(B=1, M=1, Q=len(grid), P=1, D=8, shapes=shapes), mode)
    tensors["locations"] = grid.view(1, -1, 1, 1, 1, 2).expand(1, -1, 1, 2, 1, 2).contiguous()
    assert_agree(run_kernels(mode, shapes, tensors), run(mode, shapes, doubled(tensors), "reference"))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_locations_that_are_no_numbers_count_as_outside(mode, bad):
    case = Case(B=1, Q=3, D=8)
    tensors = tensors_of(case, mode)
    far = dict(tensors, locations=tensors["locations"].clone())
    tensors["locations"][:, 1, :, :, 0, 1], far["locations"][:, 1, :, :, 0, 1] = bad, 7.0
    got, wanted = run_kernels(mode, case.shapes, tensors), run_kernels(mode, case.shapes, far)
    for name, tensor in got.items():
        assert torch.equal(tensor, wanted[name]), name


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_level_and_its_neighbours_do_not_mix(mode, bad):
    """All that no point reads is rubbish: other levels' rows, other heads, and pixels beside the points."""
    shapes = ((2, 3), (3, 4), (2, 2))
    case = Case(B=1, Q=6, M=2, D=8, P=2, shapes=shapes)
    tensors = tensors_of(case, mode)
    tensors["locations"] = torch.rand(tensors["locations"].shape, generator=torch.Generator().manual_seed(3)) * 3 - 1
    tensors["locations"][:, :, 1] = 9.0  # the second head reads nothing
    tensors["locations"][:, :, :, 0] = -4.0  # nobody reads the first level
    tensors["locations"][:, :, :, 2] = 4.0  # nor the third
    clean = run(mode, shapes, doubled(tensors), "reference")
    for name in {"value", "key"} & tensors.keys():
        tensors[name][:, :, 1], tensors[name][:, :6], tensors[name][:, 18:] = bad, bad, bad
    assert_agree(run_kernels(mode, shapes, tensors), clean)


@pytest.mark.usefixtures("unchecked")
def test_infinite_pixels_at_a_border_stay_infinite():
    """A point whose right or lower corners are outside reads those inside twice, not 0 times infinity."""
    value = torch.full((1, 4, 1, 8), float("inf"))
    locations = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.1, 0.9]]).view(1, 3, 1, 1, 1, 2)
    out = cuda._plain(value, locations, torch.ones(1, 3, 1, 1, 1), [2, 2])
    assert (out == float("inf")).all()


@pytest.mark.usefixtures("unchecked")
def test_large_logits_do_not_overflow():
    case = Case(B=1, Q=3)
    tensors = tensors_of(case, "shared")
    tensors["query"] *= 1e4
    expected = run("shared", case.shapes, doubled(tensors), "reference")
    assert_agree(run_kernels("shared", case.shapes, tensors), expected, 2e-3)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("mode", MODES)
def test_queries_that_are_the_pixels_of_the_last_levels(mode):
    """They are cut into tiles of the picture; the last row and column of tiles are not full."""
    shapes = ((9, 20), (5, 11), (3, 3))
    case = Case(B=1, Q=5 * 11 + 3 * 3, M=3, D=8, P=1, shapes=shapes)
    assert cuda_launch.cut(1, case.Q, case.M, 1, shapes, 1).query_level == 1
    tensors = tensors_of(case, mode)
    assert_agree(run_kernels(mode, shapes, tensors), run(mode, shapes, doubled(tensors), "reference"))


@pytest.mark.usefixtures("unchecked")
def test_tensors_at_odd_addresses_and_with_gaps():
    case = Case(B=2, Q=3)
    tensors = tensors_of(case, "shared")
    expected = run("shared", case.shapes, doubled(tensors), "reference")
    odd = {name: torch.cat((t.new_zeros(1), t.flatten()))[1:].view(t.shape) for name, t in tensors.items()}
    odd["query"] = tensors["query"].transpose(1, 2).contiguous().transpose(1, 2)
    assert odd["value"].data_ptr() % 16 == 4
    assert not odd["query"].is_contiguous()
    assert_agree(run_kernels("shared", case.shapes, odd), expected)


# ------------------------------------------------------------------------------------------- how work is cut


@pytest.mark.parametrize("queries", [1, 31, 300, 5 * 7, 12 * 9 + 5 * 7])
@pytest.mark.parametrize("lanes", [1, 4, 32])
@pytest.mark.parametrize("tile_heads", [0, 1])
@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_every_query_and_head_lies_in_one_block(queries, lanes, tile_heads, multiprocessors):
    shapes, heads = ((12, 9), (5, 7)), 3
    cut = cuda_launch.cut(2, queries, heads, lanes, shapes, multiprocessors, tile_heads)
    assert cut.threads == lanes << (cut.tile_x + cut.tile_y + cut.tile_heads)
    assert cut.threads % 32 == 0
    per_tile = 1 << (cut.tile_x + cut.tile_y)
    if cut.query_level == len(shapes):
        assert (cut.blocks[0] - 1) * per_tile < queries <= cut.blocks[0] * per_tile
    else:
        pixels = shapes[cut.query_level :]
        assert queries == sum(height * width for height, width in pixels)
        rows_columns = [(math.ceil(height / 2**cut.tile_y), math.ceil(width / 2**cut.tile_x)) for height, width in pixels]
        assert cut.blocks[0] == sum(rows * columns for rows, columns in rows_columns)
    assert cut.blocks[1:] == (3 if tile_heads == 0 else 2, 2)


def test_the_structure_is_the_kernels():
    assert driver_library().emulator_struct_size() == ctypes.sizeof(cuda_launch.Launch)


# ------------------------------------------------------------------------------------------ what can go wrong


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", cuda.DTYPES)
def test_first_use_checks_the_kernels_once(gpu, mode, dtype, tmp_path):
    assert cuda._reason(CPU, mode, dtype, 32) is None
    launches = driver_library().emulator_launches()
    assert len(list(tmp_path.glob("*.checked"))) == 1
    cuda._State.reasons.clear()  # as in another process
    assert cuda._reason(CPU, mode, dtype, 32) is None
    assert driver_library().emulator_launches() == launches


@pytest.mark.parametrize("mode", MODES)
def test_the_check_finds_a_wrong_kernel(gpu, mode, monkeypatch, tmp_path):
    right = cuda_launch.Gpu.run
    monkeypatch.setattr(cuda_launch.Gpu, "run", lambda self, direction, *a, **k: right(self, direction, *a, **k) or spoil(k))

    def spoil(tensors):
        tensors["grad_value" if "grad_value" in tensors else "out"].view(-1)[5] += 0.1

    reason = cuda._reason(CPU, mode, torch.float32, 32)
    assert reason.startswith("the compiled kernel does not agree with the reference on this GPU, so it is not used")
    assert list(tmp_path.glob("*.checked")) == []
    case = Case(B=1, Q=1, D=32)
    with pytest.raises(RuntimeError, match="the CUDA attention kernel is not available: the compiled kernel does not agree"):
        run_kernels(mode, case.shapes, tensors_of(case, mode))


def test_code_that_the_driver_refuses(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_build, "compiled", lambda variant, capability: (b"broken", tmp_path / "x"))
    assert cuda._reason(CPU, "shared", torch.float32, 32) == "CUDA error 200: device kernel image is invalid"


def test_a_forked_process_starts_afresh(monkeypatch):
    """As in a worker of ZeroGPU, whose parent has no GPU and may have found that out."""
    monkeypatch.setattr(cuda._State, "reasons", {"anything": "no GPU"})
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, b"%d%d" % (len(cuda._State.reasons), len(cuda._State.gpus)))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(ours, 9) == b"00"
    assert cuda._State.reasons == {"anything": "no GPU"}


def test_deterministic_algorithms_refuse_the_backward_pass(unchecked):
    case = Case(B=1, Q=1, D=8)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(RuntimeError, match="no deterministic backward pass"):
            run_kernels("shared", case.shapes, tensors_of(case, "shared"))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", ["deformable_attention", "key_aware_attention"])
@pytest.mark.parametrize("direction", ["", "_backward"])
def test_the_operators_know_cuda(name, direction):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"litedetr::{name}{direction}", "CUDA")


def test_importing_does_not_touch_cuda():
    code = "import torch; from litedetr import ops; assert not torch.cuda.is_initialized(); print(len(ops.cuda._State.gpus))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr
