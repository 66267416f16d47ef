"""Models on a GPU that is lent: what goes into another process and comes back, and ZeroGPU's own package around it."""

import json
import multiprocessing
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch

from app.engine.engine import EXAMPLES
from app.engine.gpu import NO_MEMORY, Gpu, lent, packed, seconds, unpacked
from litedetr import image
from litedetr.image import Opened
from tests.app import live, own_process
from tests.pictures import scene

ROOT = Path(__file__).resolve().parents[3]
CAT = EXAMPLES / "cat.jpg"


def same(one, other):
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    assert one.names == other.names


def test_a_forked_process_answers_as_the_page_itself(engine):
    """As ZeroGPU does it: a fork after the model ran here, arguments and answer pickled."""
    pixels, sides = image.open_photo(scene(330, 210)), (live.SIDE, live.SIDE)
    expected = engine.detector.predict(pixels, threshold=0.0, trace=True)
    context, gpu = multiprocessing.get_context("fork"), engine.gpu
    answers = context.SimpleQueue()
    process = context.Process(target=lambda: answers.put(gpu._answer("", pixels, sides, 0.0, True)), daemon=True)
    process.start()
    found = unpacked(answers.get())
    process.join(60)
    same(found, expected)
    for step, other in zip(found.trace.steps, expected.trace.steps, strict=True):
        torch.testing.assert_close(step.locations, other.locations, atol=1e-4, rtol=0)
        assert step.rebuild_error() < 1e-4
    assert found.trace.geometry == expected.trace.geometry
    assert not gpu._kept, "what the other process made stayed there"


def test_an_answer_holds_memory_that_is_its_own(run):
    content, whole = packed(run.detections), run.trace.whole()
    assert len(content) < 1.2 * whole.nbytes + 1_000_000
    found = unpacked(content)
    assert found.trace.nbytes <= 1.05 * whole.nbytes
    assert not any(tensor.is_shared() for step in found.trace.steps for tensor in (step.locations, step.value))
    same(found, run.detections)


def test_a_gpu_is_asked_for_longer_for_a_larger_photo():
    small, large = (Opened(np.zeros((1, 1, 3), np.uint8), size) for size in ((1, 1), (5000, 10_000)))
    assert seconds("", small) == 11
    assert seconds("", large) == 15


def test_without_zerogpu_a_function_stays_itself(engine, monkeypatch):
    assert lent(seconds, seconds) is seconds
    assert engine.gpu.borrow(engine.detector, "", np.zeros((8, 8, 3), np.uint8), 0.0, False) is None
    assert engine.gpu.own(engine.detector, "") is engine.detector or torch.cuda.is_available()


def test_a_lent_gpu_without_memory_is_told_in_the_answer(engine, monkeypatch):
    def full(self, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    gpu = Gpu(engine.models)
    gpu._kept[""] = engine.detector
    monkeypatch.setattr(type(engine.detector), "predict", full)
    assert gpu._answer("", np.zeros((8, 8, 3), np.uint8), (64, 64), 0.0, False) == NO_MEMORY


_START = """
import sys
sys.path.insert(0, ".")
import runpy
sys.modules["torch"] = None  # a PyTorch without CUDA cannot be made to lend one: ZeroGPU's package then leaves it alone
import spaces
del sys.modules["torch"]
runpy.run_path("app.py", run_name="__main__")
"""


class Lender:
    """ZeroGPU's service on loopback, as its package asks it; `asked` holds paths and their parameters."""

    def __init__(self) -> None:
        lender, self.asked, self.free = self, [], True

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                parts = urlsplit(self.path)
                lender.asked.append((parts.path, {key: value[0] for key, value in parse_qs(parts.query).items()}))
                answer = {"idle": True, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "token"}
                content = json.dumps(answer).encode()
                self.send_response(503 if parts.path == "/schedule" and not lender.free else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def asked_for(self, path: str) -> list[dict[str, str]]:
        return [given for asked, given in self.asked if asked == path]


@pytest.mark.skipif(not find_spec("spaces"), reason="needs the package spaces")
def test_the_page_on_zerogpu(engine, tmp_path):
    """The real package in its ZeroGPU mode around the real page: it asks for a GPU, forks, and answers; without a GPU to lend the
    CPU answers the same."""
    lender = Lender()
    (tmp_path / "start.py").write_text(_START)
    (tmp_path / "cgroup").write_text("7:devices:/lent\n")
    zero = {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": lender.url,
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(tmp_path / "cgroup"),
        "ZEROGPU_OFFLOAD_DIR": str(tmp_path / "offload"),
        "LITEDETR_MODEL": str(live.model_folder()),
    }
    try:
        with own_process.started(ROOT, tmp_path, str(tmp_path / "start.py"), **zero) as server:
            answer = server.ask("explain", CAT, detection=0)
            found = server.ask("detect", CAT, threshold=0.0)
            lender.free = False
            assert server.ask("detect", CAT, threshold=0.0) == found
    finally:
        lender.server.shutdown()
    assert len(lender.asked_for("/startup-report")) == 1
    asked = lender.asked_for("/schedule")
    assert {given["durationSeconds"] for given in asked} <= {"11", "12"}
    assert len(asked) == 4  # the example that the page begins with, and three calls
    assert len(lender.asked_for("/release")) == 3
    assert len(lender.asked_for("/allow")) == 1  # one process served them all
    expected = engine.detect(CAT, 0.0).to_dict()
    for one, other in zip(found["detections"], expected["detections"], strict=True):
        assert one["name"] == other["name"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
    assert answer["rebuild_error"] < 1e-4
    assert "Traceback" not in server.log()
