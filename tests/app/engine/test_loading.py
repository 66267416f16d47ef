"""Models on their way: one slow download keeps nobody else, and ends when nobody waits for it."""

import threading
from contextlib import nullcontext

import pytest

from app.engine.jobs import Cancelled
from app.engine.loading import Loading


def silent(done: int, total: int) -> None:
    pass


def leave(done: int, total: int) -> None:
    raise Cancelled


def test_all_who_wait_get_the_same():
    go, calls = threading.Event(), []

    def load(progress):
        calls.append(progress)
        progress(1, 2)
        assert go.wait(20)
        return object()

    loading, seen, results = Loading(load, nullcontext()), [], []

    def one() -> None:
        results.append(loading.result(lambda *share: seen.append(share)))

    threads = [threading.Thread(target=one, daemon=True) for _ in range(3)]
    for thread in threads:
        loading.join()
        thread.start()
    go.set()
    for thread in threads:
        thread.join(20)
    assert len(calls) == 1
    assert len(results) == 3
    assert len(set(map(id, results))) == 1
    assert set(seen) == {(1, 2)}


def test_who_leaves_goes_alone_and_the_last_one_ends_it():
    go, ended = threading.Event(), threading.Event()

    def load(progress):
        try:
            while not go.wait(0.01):
                progress(1, 2)
        except Cancelled:
            ended.set()
            raise
        return "model"

    loading = Loading(load, nullcontext())
    for _ in range(2):
        loading.join()
    with pytest.raises(Cancelled):
        loading.result(leave)
    loading.leave()
    assert not ended.wait(0.1)
    loading.leave()
    assert ended.wait(20)
    with pytest.raises(Cancelled):
        loading.result(silent)


def test_a_failure_is_everybodys():
    def load(progress):
        raise TimeoutError("too slow")

    loading = Loading(load, nullcontext())
    loading.join()
    with pytest.raises(TimeoutError, match="too slow"):
        loading.result(silent)
