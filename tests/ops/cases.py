"""Sizes and inputs on which the kernels are compared with the reference."""

from dataclasses import dataclass

import torch

from litedetr import ops

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


def assert_agree(got, expected, tolerance: float = 1e-5) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in got.items():
        wanted = expected[name]
        assert tensor.shape == wanted.shape, name
        scale = max(1.0, wanted.abs().max().item()) if wanted.numel() else 1.0
        torch.testing.assert_close(
            tensor.double(), wanted, atol=tolerance * scale, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )
