"""The CUDA kernels' arithmetic and everything up to their launch, on an emulated GPU, against the float64 reference."""

import pytest
import torch

from litedetr.ops import cuda, cuda_build, library
from tests.ops.emulated import EmulatedGpu, driver_library
from tests.ops.test_native import CASES, MODES, Case, assert_agree, doubled, run, tensors_of

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
