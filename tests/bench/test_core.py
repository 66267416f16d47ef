"""The benchmark's rows: all there, and about the same thing on both sides. No times are asserted."""

import pytest
import torch

from litedetr import ops
from litedetr.bench import core as benchmark
from litedetr.ops import native
from tests.bench.conftest import told

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no kernel here: {native.reason_unavailable()}")

TINY = {"rounds": 1, "width": 32, "heads": 2}


@pytest.mark.usefixtures("known_times")
def test_one_row_per_combination():
    rows = benchmark.core_ratios(
        (64, 96), instructions=("portable", "auto"), against=("reference", "published", "grid_sample"), **TINY
    )
    assert [(row.kind, row.queries, row.against, row.instructions) for row in rows] == [
        (kind, queries, against, path)
        for kind, peers in (("key-aware", ("reference", "published")), ("plain", ("reference", "grid_sample")))
        for queries in ("full", "high")
        for against in peers
        for path in ("portable", native.instructions())
    ]
    for row in rows:
        assert row.size == (64, 96)
        own, other = told(row.instructions), told("peer")
        assert (row.ratio, row.lowest, row.highest) == pytest.approx((own / other,) * 3)
        assert (row.milliseconds, row.peer_milliseconds) == (1.5 * own, 1.5 * other)


@pytest.mark.usefixtures("known_times")
def test_limits_belong_to_what_was_asked_for():
    rows = benchmark.core_ratios((64, 64), queries=("high",), **TINY) + benchmark.gradient_ratios(
        (64, 64), queries=("high",), **TINY
    )
    asked = {"avx512": (1 / 50, 1 / 20, None, None), "avx2": (1 / 30, None, None, None)}
    assert tuple(row.limit for row in rows) == asked.get(native.instructions(), (None,) * 4)
    assert [row.gradients for row in rows] == [False, False, True, True]


@pytest.mark.parametrize("locations", ["near", "uniform"])
@pytest.mark.parametrize("queries", ["full", "high"])
def test_all_formulations_agree(queries, locations):
    shapes = benchmark.levels((72, 100))
    assert shapes == ((9, 13), (5, 7), (3, 4), (2, 2))
    arguments = benchmark.inputs(shapes, queries, 32, 2, locations)
    query, value, places, weights = arguments.values()
    for kind, peers in benchmark.PEERS.items():
        expected = benchmark.KERNELS[kind](query, value, shapes, places, weights)
        for peer in peers.values():
            torch.testing.assert_close(peer(query, value, shapes, places, weights), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("known_times")
def test_threads_and_backend_are_put_back():
    before = torch.get_num_threads()
    benchmark.core_ratios((64, 64), kinds=("plain",), queries=("high",), threads=before + 1, **TINY)
    assert torch.get_num_threads() == before
    assert ops._backend == "auto"
