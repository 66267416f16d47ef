"""The CUDA kernels on a GPU, where there is one: against the float64 reference, on streams, in graphs, compiled, forked."""

import subprocess
import sys

import pytest
import torch

from litedetr import ops
from litedetr.bench import cuda as cuda_benchmark
from litedetr.bench.core import inputs, levels
from litedetr.ops import cuda
from tests.ops.cases import CASES, MODES, Case, assert_agree, doubled, run, tensors_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

SHAPES, SIZES = ((4, 5), (2, 3)), [4, 5, 2, 3]


def on_gpu(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.cuda() for name, tensor in tensors.items()}


def on_cpu(results: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in results.items()}


def run_on_gpu(mode: str, shapes, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Outputs and gradients by the kernels, of the functional that `run` differentiates."""
    leaves = {name: tensor.detach().cuda().requires_grad_() for name, tensor in tensors.items()}
    value, locations = leaves["value"], leaves["locations"]
    with ops.use("cuda"):
        if mode == "plain":
            results = {"out": ops.deformable_attention(value, shapes, locations, leaves["weights"])}
        else:
            key = leaves.get("key", value)
            both = ops.key_aware_deformable_attention(leaves["query"], key, value, shapes, locations, return_weights=True)
            results = dict(zip(("out", "softmax"), both, strict=True))
    random = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(r.shape, generator=random).to(r.dtype).cuda() for r in results.values()]
    grads = torch.autograd.grad(list(results.values()), list(leaves.values()), cotangents)
    return on_cpu(results | {f"grad {name}": grad for name, grad in zip(leaves, grads, strict=True)})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients_on_fresh_inputs(name, mode):
    case, seed = CASES[name], torch.seed() % 2**31
    tensors = tensors_of(case, mode, seed)
    print("seed", seed)  # shown if it fails
    assert_agree(run_on_gpu(mode, case.shapes, tensors), run(mode, case.shapes, doubled(tensors), "reference"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("D", [5, 16, 32, 64])
def test_sixteen_bits_are_as_exact_as_eager(mode, dtype, D):
    case = Case(D=D)
    tensors = tensors_of(case, mode, torch.seed() % 2**31)
    half = {name: t if name in ("locations", "weights") else t.to(dtype) for name, t in tensors.items()}
    exact, eager = run(mode, case.shapes, doubled(half), "reference"), run(mode, case.shapes, half, "reference")
    for name, tensor in run_on_gpu(mode, case.shapes, half).items():
        assert tensor.dtype == eager[name].dtype, name
        error, allowed = ((t.double() - exact[name]).abs().max().item() for t in (tensor, eager[name]))
        assert error <= 1.5 * allowed + 1e-5, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("which", ["full", "high"])
def test_at_the_size_of_a_photo(dtype, which):
    shapes = levels((800, 1066))
    tensors = on_gpu(inputs(shapes, which, 256, 8, "near"))
    query, value = tensors["query"].to(dtype), tensors["value"].to(dtype)
    locations, weights = tensors["locations"], tensors["weights"]
    tolerance = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    with ops.use("cuda"):
        aware, softmax = ops.key_aware_deformable_attention(query, value, value, shapes, locations, return_weights=True)
        plain = ops.deformable_attention(value, shapes, locations, weights)
    torch.testing.assert_close(softmax.sum((-1, -2)), torch.ones_like(softmax[..., 0, 0]))
    for part in torch.arange(locations.shape[1], device="cuda").split(2000):
        q, p, w = query[:, part].double(), locations[:, part].double(), weights[:, part].double()
        with ops.use("reference"):
            exact = ops.key_aware_deformable_attention(q, value.double(), value.double(), shapes, p)
            torch.testing.assert_close(aware[:, part].double(), exact, atol=4 * tolerance, rtol=4 * tolerance)
            exact = ops.deformable_attention(value.double(), shapes, p, w)
            torch.testing.assert_close(plain[:, part].double(), exact, atol=4 * tolerance, rtol=4 * tolerance)


def small(requires_grad: bool = False) -> list[torch.Tensor]:
    tensors = tensors_of(Case(B=2, Q=3, D=16, shapes=SHAPES), "separate") | tensors_of(
        Case(B=2, Q=3, D=16, shapes=SHAPES), "plain"
    )
    return [tensors[name].cuda().requires_grad_(requires_grad) for name in ("query", "key", "value", "locations", "weights")]


def test_opcheck():
    query, key, value, locations, weights = small(requires_grad=True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    operators = torch.ops.litedetr
    torch.library.opcheck(operators.deformable_attention.default, (value, locations, weights, SIZES), test_utils=tests)
    for keys, return_weights in ((None, False), (key, True)):
        arguments = (query, keys, value, locations, SIZES, return_weights)
        torch.library.opcheck(operators.key_aware_attention.default, arguments, test_utils=tests)


def test_compile_without_graph_breaks():
    query, _, value, locations, _ = small(requires_grad=True)

    def attend(query, value, locations):
        value = value * 1.5
        return ops.key_aware_deformable_attention(query, value, value, SHAPES, locations) * 2

    with ops.use("cuda"):
        expected = attend(query, value, locations)
        got = torch.compile(attend, fullgraph=True, backend="aot_eager")(query, value, locations)
        torch.testing.assert_close(got, expected)
        grads = (torch.autograd.grad(out.square().sum(), (query, value, locations)) for out in (got, expected))
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)


def test_a_cuda_graph_follows_its_inputs():
    query, key, value, locations, _ = small()
    with ops.use("cuda"):
        ops.key_aware_deformable_attention(query, key, value, SHAPES, locations)  # loads
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = ops.key_aware_deformable_attention(query, key, value, SHAPES, locations)
        for tensor in (query, key, value):
            tensor.copy_(torch.randn_like(tensor))
        graph.replay()
        torch.testing.assert_close(out, ops.key_aware_deformable_attention(query, key, value, SHAPES, locations))


def test_the_current_stream_is_used():
    query, _, value, locations, _ = small()
    stream = torch.cuda.Stream()
    with ops.use("cuda"):
        expected = ops.key_aware_deformable_attention(query, 2 * value, 2 * value, SHAPES, locations)
        ops.key_aware_deformable_attention(query, value, value, SHAPES, locations)
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            doubled_value = 2 * value  # not there before the sleep is over
            out = ops.key_aware_deformable_attention(query, doubled_value, doubled_value, SHAPES, locations)
        stream.synchronize()
    torch.testing.assert_close(out, expected)


def test_a_forked_worker_that_finds_the_gpu_by_itself():
    code = """
import os, torch
from litedetr import ops
from litedetr.ops import cuda
pid = os.fork()
if pid == 0:
    x = torch.rand(1, 4, 1, 8, device="cuda")
    with ops.use("cuda"):
        out = ops.deformable_attention(x, [(2, 2)], torch.full((1, 1, 1, 1, 1, 2), 0.25, device="cuda"),
                                       torch.ones(1, 1, 1, 1, 1, device="cuda"))
    os._exit(0 if torch.equal(out.flatten(), x[0, 0, 0]) else 1)
assert os.waitpid(pid, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_usual_kernel_written_for_the_benchmark_is_right():
    case = Case(B=2, Q=9, D=32)
    tensors = tensors_of(case, "plain")
    gpu_tensors = on_gpu(tensors)
    with ops.use("cuda"):
        ops.deformable_attention(gpu_tensors["value"], case.shapes, gpu_tensors["locations"], gpu_tensors["weights"])
    gpu = cuda.gpu(gpu_tensors["value"].device)
    got = cuda_benchmark.usual_plain(gpu, gpu_tensors["value"], case.shapes, gpu_tensors["locations"], gpu_tensors["weights"])
    assert_agree({"out": got.cpu()}, {"out": run("plain", case.shapes, doubled(tensors), "reference")["out"]})


def test_float64_goes_to_the_reference():
    _, _, value, locations, weights = small()
    out = ops.deformable_attention(value.double(), SHAPES, locations, weights)
    assert out.dtype == torch.float64
    words = 'the "cuda" backend takes float32, float16 and bfloat16 on a GPU; got torch.float64'
    with pytest.raises(ValueError, match=words), ops.use("cuda"):
        ops.deformable_attention(value.double(), SHAPES, locations, weights)
