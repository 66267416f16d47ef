"""Which implementation runs, what a wrong call is told, and what happens without a compiler."""

import os
import shutil
import stat
import subprocess
import sys
import threading
import warnings

import pytest
import torch

from litedetr import ops
from litedetr.ops import build, library, native, reference

SHAPES = [(4, 5), (2, 3)]
needs_kernel = pytest.mark.skipif(not native.available(), reason=f"no kernel here: {native.reason_unavailable()}")


def inputs(dtype: torch.dtype = torch.float32):
    random = torch.Generator().manual_seed(0)
    value = torch.randn(1, 26, 2, 8, generator=random, dtype=dtype)
    locations = torch.rand(1, 3, 2, 2, 4, 2, generator=random, dtype=dtype)
    weights = torch.rand(1, 3, 2, 2, 4, generator=random, dtype=dtype)
    return value, locations, weights


def message(error: type[Exception], call) -> str:
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


# --------------------------------------------------------------------------------------------- messages


def test_wrong_number_of_tokens():
    value, locations, weights = inputs()
    assert message(ValueError, lambda: ops.deformable_attention(value[:, 1:], SHAPES, locations, weights)) == (
        "value: expected 26 tokens (S) for the levels [(4, 5), (2, 3)], got 25; "
        "pass spatial_shapes as (height, width) of every level, finest first"
    )


def test_heads_not_split():
    value, locations, weights = inputs()
    assert message(ValueError, lambda: ops.deformable_attention(value.flatten(2), SHAPES, locations, weights)) == (
        "value: expected (B, S, M, D), got (1, 26, 16); split its channels into heads first"
    )


def test_wrong_locations():
    value, locations, weights = inputs()
    assert message(ValueError, lambda: ops.deformable_attention(value, SHAPES, locations[:, :, :1], weights)) == (
        "locations: expected (B, Q, M, L, P, 2) with B=1, M=2, L=2, got (1, 3, 1, 2, 4, 2); "
        "B and M are those of value, L the number of spatial_shapes"
    )


def test_wrong_weights():
    value, locations, weights = inputs()
    assert message(ValueError, lambda: ops.deformable_attention(value, SHAPES, locations, weights.flatten(3))) == (
        "weights: expected (1, 3, 2, 2, 4), (B, Q, M, L, P) as in locations; got (1, 3, 2, 8)"
    )


def test_wrong_query_and_key():
    value, locations, _ = inputs()
    query = torch.zeros(1, 3, 2, 4)
    kda = ops.key_aware_deformable_attention
    assert message(ValueError, lambda: kda(query, value, value, SHAPES, locations)) == (
        "query: expected (1, 3, 2, 8), (B, Q, M, D) as in locations and value; got (1, 3, 2, 4)"
    )
    assert message(ValueError, lambda: kda(query, value[..., :4], value, SHAPES, locations)) == (
        "key: expected (1, 26, 2, 8), (B, S, M, D), the shape of value; got (1, 26, 2, 4)"
    )


def test_levels_without_pixels():
    value, locations, weights = inputs()
    assert message(ValueError, lambda: ops.deformable_attention(value, [(26, 1), (0, 3)], locations, weights)) == (
        "spatial_shapes: expected at least one (height, width), both at least 1; got [(26, 1), (0, 3)]"
    )
    with pytest.raises(ValueError, match="at least one"):
        ops.deformable_attention(value, [], locations, weights)


# --------------------------------------------------------------------------------------------- backends


def test_unknown_backend():
    assert message(ValueError, lambda: ops.use("fast").__enter__()) == (
        "expected a backend out of auto, reference, gather, native, cuda; got 'fast'"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu():
    assert message(RuntimeError, lambda: ops.use("cuda").__enter__()) == (
        'the "cuda" backend was asked for but is not available: PyTorch sees no CUDA device here; '
        'or use "auto", which then runs the reference'
    )


@needs_kernel
def test_native_does_not_take_float64():
    def call():
        with ops.use("native"):
            value, locations, weights = inputs(torch.float64)
            ops.deformable_attention(value, SHAPES, locations, weights)

    assert message(ValueError, call) == (
        'the "native" backend takes float32 and bfloat16 on the CPU; got torch.float64 on cpu, torch.float64 on cpu, '
        'torch.float64 on cpu; use "auto"'
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_auto_leaves_other_dtypes_to_the_reference(dtype):
    value, locations, weights = (tensor.to(dtype) for tensor in inputs())
    got = ops.deformable_attention(value, SHAPES, locations, weights)
    assert torch.equal(got, reference.deformable_attention(value, SHAPES, locations, weights))


def test_use_is_undone_even_after_an_error():
    with ops.use("reference"):
        with pytest.raises(KeyError), ops.use("auto"):
            raise KeyError
        assert ops._backend == "reference"
    assert ops._backend == "auto"


@needs_kernel
def test_both_backends_agree():
    value, locations, weights = inputs()
    with ops.use("native"):
        got = ops.deformable_attention(value, SHAPES, locations, weights)
    with ops.use("reference"):
        torch.testing.assert_close(got, ops.deformable_attention(value, SHAPES, locations, weights))


# -------------------------------------------------------------------------------------------- the build


@pytest.fixture
def unprepared(monkeypatch, tmp_path):
    """As in a fresh process with an empty cache."""
    blank = {"prepared": False, "in_background": False, "kernel": None, "reason": None, "loaded": {}}
    for name, value in blank.items():
        monkeypatch.setattr(native._State, name, value)
    monkeypatch.setattr(ops, "_warned", set())
    monkeypatch.setenv("LITEDETR_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_compiler(unprepared, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")


NO_COMPILER = "no C++ compiler was found; install g++ (Debian: apt-get install g++) or set CXX to one"


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_reference_runs_and_one_warning_says_so():
    value, locations, weights = inputs()
    with pytest.warns(RuntimeWarning) as caught:
        got = ops.deformable_attention(value, SHAPES, locations, weights)
    assert [str(warning.message) for warning in caught] == [
        f"the fast attention kernel is not available ({NO_COMPILER}); the reference runs instead: right, but many times slower"
    ]
    assert torch.equal(got, reference.deformable_attention(value, SHAPES, locations, weights))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ops.deformable_attention(value, SHAPES, locations, weights)


@pytest.mark.usefixtures("no_compiler")
def test_native_without_a_compiler():
    assert message(RuntimeError, lambda: ops.use("native").__enter__()) == (
        f'the "native" backend was asked for but is not available: {NO_COMPILER}; or use "auto", which then runs the reference'
    )


@pytest.mark.usefixtures("no_compiler")
def test_the_build_command_without_a_compiler(capsys):
    assert build.main() == 1
    assert capsys.readouterr().err == f"The fast attention kernel is not available: {NO_COMPILER}\n"


def fake_compiler(folder, script: str) -> str:
    """A compiler that runs a script to build; asked for its version, where no file is named last, it says nothing."""
    path = folder / "compiler"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_failing_compiler_is_quoted(unprepared, monkeypatch):
    monkeypatch.setenv("CXX", fake_compiler(unprepared, 'echo "error: too old" >&2; exit 1'))
    assert native.available() is False
    assert native.reason_unavailable().endswith("attention.cpp: error: too old")
    assert list(unprepared.glob("*.so")) == []


def test_a_broken_library_is_not_used(unprepared, monkeypatch):
    """A compiler that succeeds and writes rubbish."""
    monkeypatch.setenv("CXX", fake_compiler(unprepared, 'for last; do :; done; echo rubbish > "$last"'))
    value, locations, weights = inputs()
    with pytest.warns(RuntimeWarning, match="the reference runs instead"):
        got = ops.deformable_attention(value, SHAPES, locations, weights)
    assert torch.equal(got, reference.deformable_attention(value, SHAPES, locations, weights))


@needs_kernel
def test_the_reference_runs_until_a_build_in_the_background_is_done(request, monkeypatch):
    whole = native.library_file()
    folder = request.getfixturevalue("unprepared")
    script = f'for last; do :; done; while [ ! -e {folder}/go ]; do sleep 0.02; done; cp {whole} "$last"'
    monkeypatch.setenv("CXX", fake_compiler(folder, script))
    value, locations, weights = inputs()
    native.prepare_in_background(patience=0)
    assert native.in_preparation()
    assert torch.equal(
        ops.deformable_attention(value, SHAPES, locations, weights),
        reference.deformable_attention(value, SHAPES, locations, weights),
    )
    assert not native._State.prepared
    (folder / "go").touch()
    with ops.use("native"):  # whoever asks for it by name waits for it
        got = ops.deformable_attention(value, SHAPES, locations, weights)
    for thread in threading.enumerate():
        if thread.name == "litedetr-kernel-build":
            thread.join(60)
    assert not native.in_preparation()
    assert torch.equal(ops.deformable_attention(value, SHAPES, locations, weights), got)
    assert native.library_file().parent == folder


def test_builders_at_the_same_time_leave_one_whole_file(unprepared, monkeypatch):
    slow = 'for last; do :; done; printf half > "$last"; sleep 0.2; printf whole > "$last"'
    monkeypatch.setenv("CXX", fake_compiler(unprepared, slow))
    results = []
    threads = [threading.Thread(target=lambda: results.append(library.build(1).read_text())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["whole"] * 4
    assert len(list(unprepared.glob("*.so"))) == 1
    assert list(unprepared.glob(".building-*")) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "no digest", "empty"])
def test_a_damaged_library_is_built_again(unprepared, monkeypatch, damage):
    count = unprepared / "count"
    monkeypatch.setenv("CXX", fake_compiler(unprepared, f'for last; do :; done; echo built >> {count}; printf whole > "$last"'))
    built = library.build(1)
    assert library.build(1) == built
    digest = built.with_name(f"{built.name}.sha256")
    {
        "cut": lambda: built.write_text("who"), "flipped": lambda: built.write_text("whale"), "no digest": digest.unlink,
        "empty": lambda: digest.write_text(""),
    }[damage]()  # fmt: skip
    assert library.build(1) == built
    assert built.read_text() == "whole"
    assert library.build(1) == built
    assert count.read_text().splitlines() == ["built"] * 2


@needs_kernel
def test_a_damaged_kernel_does_not_end_the_process(tmp_path):
    """As in a new process whose cache was cut: to load that file would be a bus error."""
    whole = native.library_file()
    for file in (whole, whole.with_name(f"{whole.name}.sha256")):
        shutil.copy(file, tmp_path)
    with (tmp_path / whole.name).open("r+b") as file:
        file.truncate(20_000)
    script = f'for last; do :; done; cp {whole} "$last"'
    same = library.compiler()
    (tmp_path / "compiler").write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {same} --version\n{script}\n')
    code = (
        "from litedetr.ops import library, native; from pathlib import Path; import sys; "
        "library.library_path = lambda command, path: Path(sys.argv[1]); print(native.available())"
    )
    (tmp_path / "compiler").chmod(0o700)
    environment = os.environ | {"LITEDETR_CACHE": str(tmp_path), "CXX": str(tmp_path / "compiler")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / whole.name)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True")
    assert (tmp_path / whole.name).read_bytes() == whole.read_bytes()


def test_a_compiler_that_hangs_is_given_up(unprepared, monkeypatch):
    monkeypatch.setattr(library, "PATIENCE", 0.3)
    monkeypatch.setenv("CXX", fake_compiler(unprepared, "sleep 600 & wait"))
    assert native.available() is False
    assert native.reason_unavailable().endswith("compiler was given up after 0 s; set CXX to another compiler")
    assert list(unprepared.glob(".building-*")) == []


@needs_kernel
def test_the_build_command(capsys):
    assert build.main() == 0
    assert capsys.readouterr().out == f"{native.library_file()}: built, and agrees with the reference ({native.instructions()})\n"


@needs_kernel
def test_instructions_that_do_not_exist():
    with (
        pytest.raises(ValueError, match=r"expected one of auto, portable.* on this machine, got 'mmx'"),
        native.use_instructions("mmx"),
    ):
        pass
