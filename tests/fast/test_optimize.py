"""`Detector.optimize`: same results, traces complete, what it cannot do refused; on every family."""

import numpy as np
import pytest
import torch

from litedetr import Detector
from litedetr.fast import FastDetector, bfloat16_is_native, dense, optimize
from tests.small_models import small

FAMILIES = (
    "lite-dino-mobilenet", "lite-dino-r50-h3l1-2x3", "dino-swin-t", "lite-h-detr-r50-h2l2-2x3", "deformable-detr-r50",
    "deformable-detr-r50-refine", "deformable-detr-r50-two-stage", "lite-deformable-detr-r50-h3l1-6x1",
    "deformable-detr-r50-single-scale", "deformable-detr-r50-single-scale-dc5",
)  # fmt: skip


@pytest.fixture(params=[True, False], ids=["packed", "public"])
def packed(request, monkeypatch) -> bool:
    """With oneDNN's fused layers and without them."""
    if not request.param:
        monkeypatch.setattr(dense, "packing_works", lambda dtype: False)
    return request.param


def pixels(*batch: int) -> torch.Tensor:
    return torch.randn(*batch, 3, 96, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_boxes_agree(name, packed):
    detector = small(name)
    mask = torch.zeros(2, 96, 128, dtype=torch.bool)
    mask[1, 70:] = True
    fast = detector.optimize("float32")
    for given in (None, mask):
        with torch.no_grad():
            expected = detector(pixels(2), given)
        output = fast(pixels(2), given)
        torch.testing.assert_close(output.logits, expected.logits, atol=1e-4, rtol=0)
        torch.testing.assert_close(output.boxes, expected.boxes, atol=1e-4, rtol=0)


def test_the_embedded_model_agrees():
    detector = Detector.from_pretrained()
    fast = detector.optimize(torch.float32)
    picture = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = detector(picture)
    torch.testing.assert_close(fast(picture).logits, expected.logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["lite-dino-mobilenet", "lite-h-detr-r50-h2l2-2x3", "deformable-detr-r50"])
def test_predictions_and_traces(name, photo):
    detector = small(name)
    fast = detector.optimize("float32")
    expected, plain, traced = detector.predict(photo, 0.0), fast.predict(photo, 0.0), fast.predict(photo, 0.0, trace=True)
    np.testing.assert_allclose(plain.scores, expected.scores, atol=1e-4)
    assert np.array_equal(plain.scores, traced.scores)
    np.testing.assert_allclose(fast.predict_batch([photo, photo], 0.0)[1].scores, expected.scores, atol=1e-4)
    own, other = traced.trace, detector.predict(photo, 0.0, trace=True).trace
    assert list(own.milliseconds) == list(other.milliseconds)
    for field, value in vars(other).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(getattr(own, field), value, atol=1e-3, rtol=1e-3, msg=field)
    for step, planned in zip(own.steps, other.steps, strict=True):
        assert step.rebuild_error() < 1e-5
        for field, value in vars(planned).items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(getattr(step, field), value, atol=1e-3, rtol=1e-3, msg=f"{step.name} {field}")
            else:
                assert (getattr(step, field) is None) == (value is None)
    last = len(own.encoder_steps) - 1
    torch.testing.assert_close(own.memory(last)[own.steps[last].first_query :], own.steps[last].tokens)


def test_bfloat16_is_near_and_its_trace_says_how_near(detector, photo):
    fast = detector.optimize("bfloat16")
    with torch.no_grad():
        expected = detector(pixels(1))
    output = fast(pixels(1))
    assert output.logits.dtype == output.boxes.dtype == torch.float32
    best = expected.logits.amax(-1).median()
    near = (output.logits.amax(-1).sort().values - expected.logits.amax(-1).sort().values).abs().median()
    assert near < 0.15
    assert abs(output.logits.amax(-1).median() - best) < 0.15
    for step in fast.predict(photo, 0.0, trace=True).trace.steps:
        assert 0 < step.rebuild_error() < 0.1


def test_auto_takes_one_of_them(detector, photo):
    fast = detector.optimize()
    assert isinstance(fast, FastDetector)
    assert fast.dtype == torch.float32 or bfloat16_is_native()
    assert len(fast.predict(photo, 0.0)) == detector.config.top_k
    with pytest.raises(ValueError, match="expected a dtype out of \"auto\", float32, bfloat16, got 'float8'"):
        detector.optimize("float8")


def test_it_refuses_what_it_cannot_do(detector, tmp_path):
    fast = optimize(detector, "float32")
    assert fast.optimize("float32") is fast.optimize() is fast
    message = "expected an ordinary detector, got one that was optimized for inference, which cannot be "
    for what, act in (
        ("trained", lambda: fast.train()),
        ("trained", lambda: fast(pixels(1), dense=True)),
        ("saved", lambda: fast.save_pretrained(tmp_path / "new")),
        ("saved", lambda: fast.state_dict()),
        ("moved", lambda: fast.double()),
        ("turned into bfloat16", lambda: fast.optimize("bfloat16")),
    ):
        with pytest.raises(RuntimeError) as error:
            act()
        assert str(error.value).startswith(message + what)
    assert not (tmp_path / "new").exists()
    assert fast.eval() is fast
    assert not fast.training


def test_the_original_stays_as_it_is(photo):
    detector = small("lite-dino-mobilenet")
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    expected = detector.predict(photo, 0.0)
    fast = detector.optimize("float32")
    own = fast.predict(photo, 0.0)
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
    assert np.array_equal(detector.predict(photo, 0.0).scores, expected.scores)
    assert all(parameter.requires_grad for parameter in detector.encoder.parameters())
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()
    assert np.array_equal(fast.predict(photo, 0.0).scores, own.scores)


def test_photos_of_several_sizes_one_after_the_other(detector):
    fast = detector.optimize("float32")
    for height, width in ((64, 96), (96, 64), (64, 96), (128, 128)):
        picture = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            torch.testing.assert_close(fast(picture).logits, detector(picture).logits, atol=1e-4, rtol=0)
