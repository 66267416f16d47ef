"""Every row runs from end to end, on tiny models and pictures."""

import sys

import pytest
import torch
from torch.nn import functional

from litedetr.bench import ours, rows, stages, waiting
from litedetr.bench.rows import GROUPS, Plan, measure
from litedetr.ops import native
from tests.bench import tiny
from tests.bench.conftest import told

# The limits as they were asked for, by group: every one stands in a row.
ASKED = {
    "core": {1 / 50, 1 / 30, 1 / 20},
    "encoder": {0.15, 0.09, 0.42, 0.34, 0.26},
    "detector": {0.85, 0.45, 0.75, 1.15, 1.1},
    "embedded": {0.6, 1.5},
    "predict": {0.6, 0.9, 0.46},
    "memory": {1.2},
    "cuda": {60},
}


def test_every_limit_is_in_the_table():
    (report,) = measure(Plan(groups=("cuda",)))
    assert {row.limit for row in report.rows} == ASKED["cuda"]
    tables = {"encoder": rows.ENCODERS, "detector": rows.DETECTORS, "embedded": rows.EMBEDDED, "predict": rows.PREDICT}
    for group, pairs in tables.items():
        assert {pair.limit for pair in pairs} - {None} == ASKED[group]
    assert set(rows.LIMITS.values()) == ASKED["core"]


@pytest.mark.skipif(not native.available(), reason="no compiler")
@pytest.mark.usefixtures("known_times")
def test_core():
    found = list(rows.core(tiny.plan()))
    assert {row.limit for row in found} - {None} == ASKED["core"]
    assert all(row.size == "64x96" and row.group == "core" and row.unit == "fraction" for row in found)
    for row in found:
        path = "avx512" if "AVX-512" in row.figure else "avx2"
        runs_here = path in native.instructions().all
        assert (row.value is not None) == runs_here, row
        if runs_here:
            assert row.value == pytest.approx(told(path) / told("peer"))


PAIRS = {"encoder": rows.ENCODERS, "detector": rows.DETECTORS, "embedded": rows.EMBEDDED, "predict": rows.PREDICT}


@pytest.mark.usefixtures("known_times")
@pytest.mark.parametrize("group", PAIRS)
def test_every_row_has_a_figure_or_says_what_is_missing(group, tmp_path, monkeypatch):
    monkeypatch.setenv("LITEDETR_CACHE", str(tmp_path))
    for package in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
    found = list(GROUPS[group](tiny.plan(), 1))
    assert {row.limit for row in found} - {None} == ASKED[group]
    for row, pair in zip(found, PAIRS[group], strict=True):
        assert (row.figure, row.limit) == (pair.figure, pair.limit)
        if "ONNX Runtime" in row.figure or "OpenVINO" in row.figure:
            assert row.value is None
            assert row.note == "not measured: pip install -r requirements-bench.txt"
        else:
            own, other = told(pair.ours), told(pair.theirs)
            assert (row.value, row.lowest, row.highest) == pytest.approx((own / other,) * 3)
            assert (row.ours, row.theirs, row.ours_wall, row.theirs_wall) == (1.5 * own, 1.5 * other, 3 * own, 3 * other)


@pytest.mark.usefixtures("known_times")
def test_with_the_other_runtimes(tmp_path, monkeypatch):
    for package in ("transformers", "onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    monkeypatch.setenv("LITEDETR_CACHE", str(tmp_path))
    found = list(GROUPS["embedded"](tiny.plan(), 1))
    assert all(row.value is not None for row in found)
    reduced = {row.figure: (row.ours_agrees, row.theirs_agrees) for row in found}
    (both,) = (pair for figure, pair in reduced.items() if figure.endswith("OpenVINO, bf16"))
    assert all(0 < share <= 1 for agrees in both for share in agrees), "how much of what float32 finds bf16 finds"
    assert all(pair == (None, None) for figure, pair in reduced.items() if "bf16" not in figure)


@pytest.mark.usefixtures("known_times")
def test_exports_are_timed_and_compared():
    pytest.importorskip("openvino")
    found = list(rows.exported(tiny.plan()))
    forms = [f"{runtime}, {sampling}" for sampling in ("grid_sample", "gather")
             for runtime in ("ONNX Runtime, f32", "OpenVINO, f32", "OpenVINO, bf16")]  # fmt: skip
    assert [row.figure.partition("its export, ")[2] for row in found] == forms
    for row, form in zip(found, forms, strict=True):
        assert row.value == pytest.approx(told("bf16" if ", bf16 / " in row.figure else "f32") / told(form))
        if "OpenVINO, bf16" not in row.figure:
            assert row.theirs_agrees == (pytest.approx(1, abs=1e-3), 1)
    assert all(0 < row.ours_agrees[0] <= 1 for row in found if ", bf16 / " in row.figure)


def test_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    found = list(rows.embedded(Plan(embedded=tiny.plan().embedded, photo=(64, 96), rounds=1)))
    assert all(row.value is None and row.met is None and "pip install" in row.note for row in found)


@pytest.mark.usefixtures("known_times")
def test_a_peer_that_breaks_costs_its_rows_alone():
    def broken():
        raise RuntimeError("out of luck\nand more")

    found = list(rows.embedded(tiny.plan(d_fine=broken)))
    assert all(row.value is None and row.note == "not measured: RuntimeError: out of luck" for row in found)


def test_memory_of_a_fresh_process():
    above, during = rows.memory(tiny.plan())
    if sys.platform == "linux":
        assert 0 < during.value < above.value < 5
    else:
        assert "Linux" in above.note


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said():
    (row,) = rows.cuda(tiny.plan())
    assert (row.value, row.note) == (None, "not yet run: no GPU here")


def test_both_sides_compute_the_same():
    """A ratio of times says something only where the results agree: the fused encoder against the reference op."""
    plan, pixels = tiny.plan(), torch.randn(1, 3, 64, 96)
    fast = ours.encoder(plan.lite, pixels, torch.float32)()
    for other in ("reference", "published"):
        assert torch.allclose(fast, ours.encoder(plan.lite, pixels, None, backend=other)(), atol=1e-3), other


def test_the_published_attention_is_what_runs(monkeypatch):
    """Keys sampled apart from values: two grid_samples a level and layer, where the reference op needs one."""
    plan, pixels = tiny.plan(), torch.randn(1, 3, 64, 96)
    counts = {}
    for form in ("reference", "published"):
        run, sample, calls = ours.encoder(plan.lite, pixels, None, backend=form), functional.grid_sample, []
        with monkeypatch.context() as patch:
            patch.setattr(
                functional, "grid_sample", lambda *a, sample=sample, calls=calls, **k: calls.append(1) or sample(*a, **k)
            )
            run()
        counts[form] = len(calls)
    assert counts == {"reference": 6 * 4, "published": 6 * 4 * 2}


def test_threads_are_put_back():
    before = torch.get_num_threads()
    reports = measure(tiny.plan(groups=("cuda", "cuda"), threads=(before, before + 1)))
    first, report = reports
    assert report.rows == first.rows * 2, "a report after every group"
    assert {row.threads for row in report.rows} == {before + 1}, "what measures once does so with the largest number"
    assert torch.get_num_threads() == before
    assert report.threads == (before, before + 1)


@pytest.mark.usefixtures("known_times")
def test_every_stage_with_more_threads():
    (report,) = list(measure(tiny.plan(groups=("threads",), threads=(1, 2))))[-1:]
    whole = [row for row in report.rows if stages.WHOLE in row.figure]
    assert [row.limit for row in whole] == [0.58] * 4
    assert [row.limit for row in report.rows if row.figure.startswith("KDA")] == [0.55] * 2
    assert {row.figure.partition(", f32, ")[2].partition(":")[0] for row in report.rows} >= {
        "decode", "resize", "backbone", "neck", "encoder", "selection", "decoder", "post-processing"
    }  # fmt: skip
    for row in report.rows:
        assert row.value == pytest.approx(told("many") / told("one"))
        assert (row.threads, row.theirs_wall) == (2, pytest.approx(3 * told("one")))


def test_a_folder_of_photos(monkeypatch):
    monkeypatch.setattr(waiting, "BULK_PHOTOS", 3)
    (row,) = rows.bulk(tiny.plan())
    assert row.limit == 0.556
    assert row.lowest <= row.value <= row.highest


def test_without_the_page(monkeypatch, tmp_path):
    monkeypatch.setattr(waiting, "ROOT", tmp_path)
    found = [*rows.visitor(tiny.plan()), *rows.start(tiny.plan())]
    assert [row.limit for row in found] == [40, 1.15, 6, 8]
    assert {row.note for row in found} == {waiting.NO_PAGE}


@pytest.mark.parametrize("wrong", [{"groups": ("core", "engine")}, {"rounds": 0}, {"threads": (0,)}, {"threads": ()}])
def test_wrong_plans_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        tiny.plan(**wrong)


@pytest.mark.usefixtures("known_times")
def test_guests_are_compared_with_themselves():
    (row,) = rows.guests(tiny.plan())
    assert row.figure == "RT-DETR, accelerated / as it is (eager PyTorch)"
    assert row.value == pytest.approx(told("accelerated") / told("eager"))
    assert row.size == "96x96"


def test_guests_say_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    found = list(rows.guests(Plan()))
    assert [row.note for row in found] == ["not measured: pip install -r requirements-bench.txt"] * 7
