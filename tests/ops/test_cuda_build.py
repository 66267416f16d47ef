"""The CUDA source through its two compilers, where they are found, and what happens where they are not."""

import shutil
import subprocess

import pytest

from litedetr.ops import cuda_build, library
from litedetr.ops.cuda_build import BuildError, KernelVariant

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


def nvrtc_or_skip() -> cuda_build.Nvrtc:
    try:
        return cuda_build.nvrtc()
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LITEDETR_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("channels", "lanes", "vectors", "whole"),
    [
        (1, 1, 1, False),
        (8, 1, 1, True),
        (16, 2, 1, True),
        (24, 4, 1, True),
        (32, 4, 1, True),
        (36, 8, 1, False),
        (64, 8, 1, True),
        (256, 32, 1, True),
        (264, 32, 2, True),
        (512, 32, 2, True),
    ],
)
def test_variants_for_heads_of_all_sizes(channels, lanes, vectors, whole):
    variant = KernelVariant.of("shared", "f16", channels)
    assert variant == KernelVariant("shared", "f16", lanes, vectors, whole)
    assert lanes * vectors * 8 >= channels


def test_names_and_options_of_a_variant():
    variant = KernelVariant("separate", "bf16", 8, 1, False)
    assert variant.kernel("backward") == "attention_backward_separate_bf16_8_1_false"
    assert variant.options() == [
        "-DONE_MODE=separate", "-DONE_TYPE=bf16", "-DONE_LANES=8", "-DONE_VECTORS=1", "-DONE_WHOLE=false",
    ]  # fmt: skip


def test_the_source_needs_no_other_file():
    assert "#include" not in cuda_build.source()
    assert "attention_##direction" in cuda_build.source()


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc here")
@pytest.mark.parametrize(
    ("variant", "architectures"),
    [
        (KernelVariant("shared", "f16", 4, 1, True), ARCHITECTURES),
        (KernelVariant("separate", "bf16", 8, 1, False), (75,)),
        (KernelVariant("plain", "f32", 2, 1, True), (90,)),
    ],
)
def test_nvcc_compiles_without_a_word(tmp_path, variant, architectures):
    """The commonest kernel for every architecture, each mode and type once; and it keeps its numbers in registers."""
    code = [f"-gencode=arch=compute_{n},code=sm_{n}" for n in architectures]
    command = ["nvcc", "-std=c++17", *code, *variant.options(), "-Xptxas", "-v", "-Werror", "all-warnings", "-fatbin"]
    source = library.source_folder() / "attention.cu"
    done = subprocess.run([*command, "-o", tmp_path / "x.fatbin", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    for direction in ("forward", "backward"):
        starts = [i for i, line in enumerate(lines) if f"entry function '{variant.kernel(direction)}'" in line]
        assert len(starts) == len(architectures)
        if variant.mode == "shared" and direction == "forward":
            reports = [" ".join(lines[i : i + 3]) for i in starts]
            assert all("0 bytes spill stores, 0 bytes spill loads" in report for report in reports), reports


def test_nvrtc_compiles_once_and_keeps_the_result(empty_cache, monkeypatch):
    compiler = nvrtc_or_skip()
    newest = compiler.capabilities[-1]
    variant = KernelVariant.of("plain", "f16", 32)
    code, file = cuda_build.compiled(variant, newest)
    assert (code[:4], file.suffix, file.parent) == (b"\x7fELF", ".cubin", empty_cache)
    monkeypatch.setattr(cuda_build.Nvrtc, "compile", lambda *a: pytest.fail("compiled twice"))
    assert cuda_build.compiled(variant, newest) == (code, file)


@pytest.mark.usefixtures("empty_cache")
def test_a_gpu_that_nvrtc_does_not_know_gets_ptx():
    nvrtc_or_skip()
    code, file = cuda_build.compiled(KernelVariant.of("plain", "f16", 32), (99, 0))
    assert file.suffix == ".ptx"
    assert b".entry attention_forward_plain_f16_4_1_true" in code


@pytest.mark.usefixtures("empty_cache")
def test_an_old_gpu():
    with pytest.raises(BuildError, match=r"^the kernels need compute capability 7\.5; this GPU has 6\.1$"):
        cuda_build.compiled(KernelVariant.of("plain", "f16", 32), (6, 1))


@pytest.mark.usefixtures("empty_cache")
def test_nvrtc_quotes_its_complaint(monkeypatch):
    nvrtc_or_skip()
    monkeypatch.setattr(cuda_build, "source", lambda: "nonsense")
    with pytest.raises(BuildError, match=r"NVRTC could not compile attention.cu: .*error"):
        cuda_build.compiled(KernelVariant.of("plain", "f16", 32), (9, 0))


@pytest.fixture
def no_nvrtc(monkeypatch, empty_cache):
    monkeypatch.setattr(cuda_build, "_nvrtc_names", lambda: ["libnothing.so"])
    monkeypatch.setattr(cuda_build, "source_folder", lambda: empty_cache)
    return empty_cache


MISSING = "NVRTC was not found; install a CUDA build of PyTorch, or pip install nvidia-cuda-nvrtc"


def test_without_nvrtc_and_prepared_code(no_nvrtc, capsys):
    with pytest.raises(BuildError) as caught:
        cuda_build.compiled(KernelVariant.of("plain", "f16", 32), (9, 0))
    text = f"{MISSING}; {no_nvrtc / 'attention.ptx'} does not hold attention_forward_plain_f16_4_1_true either"
    assert str(caught.value) == text
    assert cuda_build.main(["90", "--types", "f16", "--modes", "plain"]) == 1
    assert capsys.readouterr().err == text + "\n"


def test_without_nvrtc_prepared_code_is_used(no_nvrtc):
    text = b"// PTX\n.visible .entry attention_forward_plain_f16_4_1_true(...)"
    (no_nvrtc / "attention.ptx").write_bytes(text)
    code, file = cuda_build.compiled(KernelVariant.of("plain", "f16", 32), (9, 0))
    assert code == text + b"\0"
    assert file.suffix == ".ptx"
    with pytest.raises(BuildError, match="does not hold attention_forward_plain_f32_4_1_true either"):
        cuda_build.compiled(KernelVariant.of("plain", "f32", 32), (9, 0))
