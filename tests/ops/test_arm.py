"""The kernel on ARM: built by a cross-compiler, run by an emulator, compared with the reference.

Debian's packages g++-aarch64-linux-gnu and qemu-user have both; without them these tests are skipped.
"""

import shutil
import subprocess

import numpy as np
import pytest
import torch

from litedetr.ops import reference
from litedetr.ops.library import FLAGS, source_folder
from tests.ops.cases import CASES, MODES, tensors_of

COMPILER, EMULATOR = (shutil.which(name) for name in ("aarch64-linux-gnu-g++", "qemu-aarch64"))
pytestmark = pytest.mark.skipif(not (COMPILER and EMULATOR), reason="needs g++-aarch64-linux-gnu and qemu-user")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    file = tmp_path_factory.mktemp("arm") / "kernel"
    flags = [flag for flag in FLAGS if flag not in ("-shared", "-fPIC")]
    sources = [str(source_folder() / "attention.cpp"), str(source_folder().parent / "tests" / "ops" / "arm.cpp")]
    subprocess.run([COMPILER, *flags, "-static", *sources, "-o", str(file)], check=True)
    return file


def test_it_has_vectors(program):
    """A machine's plain vectors need no flags there: multiply-add of four numbers, and rounding of four."""
    code = subprocess.run(["aarch64-linux-gnu-objdump", "-d", str(program)], capture_output=True, text=True, check=True).stdout
    own = code[code.index("portable") :]
    assert "fmla\tv" in own
    assert "frintm\tv" in own


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["model", "odd-head", "head-40", "many-points", "far-outside", "all-tokens-ask"])
def test_it_agrees_with_the_reference(program, name, mode):
    case = CASES[name]
    tensors = tensors_of(case, mode)
    given = {name: tensor.double().requires_grad_() for name, tensor in tensors.items()}
    if mode == "plain":
        out = reference.deformable_attention(given["value"], case.shapes, given["locations"], given["weights"])
    else:
        key = given["value"] if mode == "shared" else given["key"]
        out, _ = reference.key_aware_deformable_attention(given["query"], key, given["value"], case.shapes, given["locations"])
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    order = [part for part in ("value", "locations", "weights", "query", "key") if part in given]
    grads = torch.autograd.grad(out, [given[part] for part in order], cotangent.double())

    head = [MODES.index(mode), case.B, case.Q, case.M, case.D, case.L, case.P, *(side for shape in case.shapes for side in shape)]
    asked = np.array(head, np.int32).tobytes() + b"".join(tensors[part].numpy().tobytes() for part in order)
    done = subprocess.run([EMULATOR, str(program)], input=asked + cotangent.numpy().tobytes(), capture_output=True, check=True)
    got = torch.from_numpy(np.frombuffer(done.stdout, np.float32).copy()).double()
    wanted = torch.cat([part.flatten() for part in (out.detach(), *grads)])
    # Where a point lies on a pixel's edge, float32 may take the other side's slope.
    wrong = (got - wanted).abs() > 1e-3 * (1 + wanted.abs())
    assert wrong.float().mean() < 1e-3, f"{int(wrong.sum())} of {len(wanted)}"
    assert not wrong[: out.numel()].any()
