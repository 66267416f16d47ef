"""The forms of one model in every runtime, timed in turns and compared with PyTorch."""

import pytest

from litedetr.bench.exported import table
from tests.bench.conftest import told
from tests.small_models import small


@pytest.mark.usefixtures("known_times")
def test_every_form_is_timed_and_compared():
    lines = table(small("lite-dino-mobilenet", schedule="H3L1-(2+1)x1", decoder_layers=1), 1, 1).splitlines()
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in (line.split("|") for line in lines[2:-2])}
    assert list(rows) == [
        "PyTorch, plain, f32", '`optimize("float32")`', '`optimize("bfloat16")`', "ONNX Runtime, f32, grid_sample",
        "OpenVINO, f32, grid_sample", "OpenVINO, bf16, grid_sample", "ONNX Runtime, f32, gather", "OpenVINO, f32, gather",
        "OpenVINO, bf16, gather",
    ]  # fmt: skip
    for form, (milliseconds, iou, classes, *_) in rows.items():
        assert milliseconds == f"{1.5 * told(form):.0f}"
        if "f32" in form:
            assert (float(iou), classes) == (1.0, "100%")
    assert lines[-1].startswith("96 × 96, 1 thread(s), 1 rounds, load ")
