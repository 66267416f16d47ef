"""Light traces: what is made again is what the run had, bit by bit; and traces in files."""

import copy
import gc
import pickle
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch

from litedetr import Detector, EncoderSchedule, Trace, ops
from litedetr.image import PhotoGeometry
from litedetr.replay import step_cache
from litedetr.steps import AttentionStep, LightStep

TENSORS = ("reference_points", "locations", "weights", "value", "output", "query", "key", "tokens", "output_weight")
SMALL = {
    "width": 64, "heads": 4, "encoder_ffn": 96, "decoder_ffn": 96, "decoder_layers": 2, "queries": 12, "num_classes": 5,
    "short_side": 128, "long_side": 160,
}  # fmt: skip
KINDS = {
    "H3L1-2x3": ("lite-dino-mobilenet", {}),
    "H3L1-6x1": ("lite-dino-mobilenet", {"schedule": "H3L1-(6+1)x1"}),
    "H2L2": ("lite-dino-mobilenet", {"schedule": "H2L2-(2+1)x2"}),
    "full": ("lite-dino-mobilenet", {"schedule": str(EncoderSchedule.full(4, 3)), "low_ffn": None}),
    "plain attention": ("lite-dino-mobilenet", {"key_aware": False}),
    "same locations, keys of their own": ("lite-dino-mobilenet", {"same_loc": True, "proj_key": True}),
    "five scales": ("lite-dino-mobilenet", {"levels": 5, "schedule": "H4L1-(2+1)x2"}),
    "deformable": ("deformable-detr-r50", {"backbone_width": 4}),
    "refined": ("deformable-detr-r50-refine", {"backbone_width": 4}),
    "two stages": ("deformable-detr-r50-two-stage", {"backbone_width": 4}),
    "h-detr": ("lite-h-detr-swin-t-h2l2-2x3", {"one_to_many_queries": 8, "backbone_width": 12}),
}


def build(kind: str) -> Detector:
    preset, options = KINDS[kind]
    torch.manual_seed(3)
    return Detector.from_preset(preset, **{**SMALL, **options})


def differences(whole: Trace, light: Trace) -> list[str]:
    """What a light trace makes otherwise than a whole one of the same run kept it."""
    found = [f"memory {index}" for index in range(-1, len(whole.encoder_steps))
             if not torch.equal(whole.memory(index), light.memory(index))]  # fmt: skip
    for expected, step in zip(whole.steps, light.steps, strict=True):
        assert isinstance(step, LightStep)
        assert isinstance(step.whole, AttentionStep)
        assert light.step(step.name) is step
        outline = ("name", "kind", "block", "query_levels", "first_query", "spatial_shapes", "queries", "scales", "query_scales")
        found += [f"{step.name} {name}" for name in outline if getattr(step, name) != getattr(expected, name)]
        for name in TENSORS:
            one, *others = (getattr(each, name) for each in (expected, step, step.whole))
            if any((one is None) != (other is None) or (one is not None and not torch.equal(one, other)) for other in others):
                found.append(f"{step.name} {name}")
    return found


@pytest.fixture(scope="module", params=KINDS)
def of_a_kind(request) -> Detector:
    return build(request.param)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
def test_a_light_trace_makes_what_the_run_had(of_a_kind, photo, fast, backend):
    detector = of_a_kind.optimize("float32") if fast else of_a_kind
    with ops.use(backend):
        whole = detector.predict(photo, 0.0, trace=True).trace
        nothing = step_cache(limit=1, least=3, written=0)
        light = detector.predict(photo, 0.0, trace="light", cache=nothing).trace
        assert differences(whole, light) == []
    assert light.nbytes < 0.6 * whole.nbytes
    for name in ("padding", "selected_tokens", "boxes", "logits", "queries", "query_positions", "proposal_logits"):
        one, other = getattr(whole, name), getattr(light, name)
        assert (one is None and other is None) or torch.equal(one, other)


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("kind", ["H3L1-2x3", "plain attention", "two stages"])
def test_a_padded_photo(kind, fast):
    detector = build(kind)
    detector = detector.optimize("float32") if fast else detector
    pixels, mask = torch.zeros(1, 3, 128, 192), torch.ones(1, 128, 192, dtype=torch.bool)
    pixels[..., :96, :128], mask[0, :96, :128] = torch.rand(3, 96, 128), False
    traces = [Trace(geometry=PhotoGeometry((96, 128), (96, 128), (128, 192)), replay=each) for each in (None, detector.replay())]
    with torch.inference_mode():
        for trace in traces:
            detector(pixels, mask, trace=trace)
    assert bool(traces[0].padding.any())
    assert differences(*traces) == []


def test_another_number_of_threads_and_a_full_cache_change_nothing(detector, photo):
    fast, threads = detector.optimize("float32"), torch.get_num_threads()
    one_step = step_cache(limit=1, written=0)
    try:
        torch.set_num_threads(2)
        whole, light = fast.predict(photo, 0.0, trace=True).trace, fast.predict(photo, 0.0, trace="light", cache=one_step).trace
        torch.set_num_threads(1)
        assert differences(whole, light) == []
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert len(one_step.steps) == 1
    assert light.steps[0].whole is light.steps[0].whole


def test_every_step_is_at_most_one_step_from_kept_tokens(photo):
    replay = build("H3L1-6x1").predict(photo, trace="light").trace.replay
    kept = [written is not None for written in replay.written[: len(replay.encoder.steps)]]
    assert kept[-1]
    assert all(one or other for one, other in pairwise(kept))
    assert kept.count(False) == 3


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
def test_what_is_not_kept_is_at_hand_while_there_is_room(photo, fast, monkeypatch):
    detector = build("H3L1-6x1").optimize("float32") if fast else build("H3L1-6x1")
    whole, light = (detector.predict(photo, 0.0, trace=trace).trace for trace in (True, "light"))
    monkeypatch.setattr(type(detector.encoder), "update_again", lambda *_: pytest.fail("made again, though it was at hand"))
    assert all(torch.equal(whole.memory(index), light.memory(index)) for index in range(len(whole.encoder_steps)))
    assert light.nbytes < 0.6 * whole.nbytes


def test_a_light_trace_outlives_its_detector_but_not_its_training(photo):
    detector = build("H3L1-2x3")
    light = detector.predict(photo, trace="light").trace
    alive = weakref.ref(detector)
    encoder = detector.encoder
    del detector
    gc.collect()
    assert alive() is None
    assert light.steps[0].weights.shape[0] == light.steps[0].queries
    with torch.no_grad():
        encoder.layers[0].attention.output_proj.bias.add_(1)
    with pytest.raises(RuntimeError, match=r"trained, loaded or moved since.*predict\(photo, trace=True\)"):
        _ = light.step("B1 all").weights


def test_a_light_trace_goes_when_nobody_has_it(detector, photo):
    light = detector.predict(photo, trace="light").trace
    assert light.step("B1 all").weights.isfinite().all()
    gone = weakref.ref(light)
    gc.disable()  # without a search for circles
    try:
        del light
        assert gone() is None
    finally:
        gc.enable()


def test_copies_need_no_detector(detector, photo):
    light = detector.predict(photo, trace="light").trace
    for made in (pickle.loads(pickle.dumps(light)), copy.deepcopy(light), light.whole()):
        assert made.replay is None
        assert differences(made, light) == []


def test_bfloat16_keeps_all(detector, photo):
    trace = detector.optimize("bfloat16").predict(photo, trace="light").trace
    assert all(isinstance(step, AttentionStep) for step in trace.steps)


@pytest.mark.parametrize("kind", [True, "light"])
@pytest.mark.parametrize("model", ["H3L1-2x3", "deformable"])
def test_a_trace_in_a_file(photo, tmp_path, kind, model):
    trace = build(model).predict(photo, trace=kind).trace
    trace.save(tmp_path / "trace.npz")
    read = Trace.load(tmp_path / "trace.npz")
    assert read.geometry == trace.geometry
    assert read.spatial_shapes == trace.spatial_shapes
    assert read.milliseconds == trace.milliseconds
    assert [step.name for step in read.steps] == [step.name for step in trace.steps]
    for step in trace.steps:
        for name, value in vars(step.whole).items():
            other = getattr(read.step(step.name), name)
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
    for name in ("tokens", "padding", "boxes", "logits", "selected_tokens", "proposal_boxes", "queries", "query_positions"):
        one, other = getattr(trace, name), getattr(read, name)
        assert (one is None and other is None) or torch.equal(one, other)
    assert read.step("B1 all").rebuild_error() < 1e-5
    with np.load(tmp_path / "trace.npz") as arrays:
        np.testing.assert_array_equal(arrays["B1 all/weights"], trace.step("B1 all").weights.numpy())


def test_another_file_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "text.npz").write_text("no file of arrays")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match=r"expected a trace as Trace\.save writes it, got .*" + name):
            Trace.load(tmp_path / name)
