"""`watch` on the real code of every kind of model, tiny and with random weights."""

import threading

import pytest
import torch
import transformers
from torch import Tensor, nn

from litedetr import Detector, watch
from litedetr.guests.calls import TRANSFORMERS, UnknownModelError
from tests.guests import published, zoo
from tests.guests.conftest import guest


def outputs(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a model gives, as far as it is tensors."""
    with torch.no_grad():
        return {name: value for name, value in model(**inputs).items() if isinstance(value, Tensor)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name].nan_to_num(), other[name].nan_to_num()) for name in one)


def attributes(model: nn.Module) -> dict[str, dict[str, object]]:
    """Everything that stands in any module, by identity; the dicts of hooks by what is in them."""
    return {
        name: {key: dict(value) if isinstance(value, dict) else id(value) for key, value in vars(module).items()}
        for name, module in model.named_modules()
    }


def test_results_stay_bit_for_bit_and_every_step_can_be_rebuilt(every):
    before, alone = attributes(every.model), outputs(every.model, every.inputs)
    with watch(every.model) as trace:
        watched = outputs(every.model, every.inputs)
    assert same(alone, watched)
    assert attributes(every.model) == before
    assert trace.steps
    assert trace.rebuild_error() < 1e-5
    for step in trace.steps:
        assert step.output.abs().max() > 0.01  # otherwise the line above says nothing
        assert torch.allclose(step.weights.sum((-2, -1)), torch.ones(()), atol=1e-5)
        assert step.spatial_shapes == tuple(sorted(step.spatial_shapes, reverse=True))
        queries, heads, levels, points, _ = step.locations.shape
        assert step.weights.shape == (queries, heads, levels, points)
        assert step.reference_points.shape[:2] == (queries, levels)
        assert not step.locations.requires_grad


def test_the_version_of_transformers_is_the_one_that_is_stated():
    assert transformers.__version__.startswith(f"{TRANSFORMERS}.")


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("rt_detr", ["decoder 1", "decoder 2"]),
        ("deformable_detr", ["encoder 1", "encoder 2", "decoder 1", "decoder 2"]),
        ("mask2former", ["encoder 1", "encoder 2"]),
        ("mmcv", ["encoder 1", "decoder 1"]),
    ],
)
def test_steps_have_the_names_of_their_layers(kind, names):
    model = guest(kind)
    with watch(model.model) as trace:
        outputs(model.model, model.inputs)
    assert [step.name for step in trace.steps] == names
    assert [step.name for step in trace.decoder_steps] == [name for name in names if name.startswith("decoder")]


def test_an_encoders_queries_are_its_tokens_from_the_finest_level():
    model = guest("mask2former")  # whose own order begins with the coarsest
    with watch(model.model) as trace:
        outputs(model.model, model.inputs)
    step = trace.steps[0]
    middle, start = step.reference_points[:, 0], 0
    for height, width in step.spatial_shapes:
        rows = middle[start : start + height * width].view(height, width, 2)
        assert torch.allclose(rows[0, :, 0], (torch.arange(width) + 0.5) / width)
        assert torch.allclose(rows[:, 0, 1], (torch.arange(height) + 0.5) / height)
        start += height * width
    assert start == len(middle)


def test_levels_with_fewer_points_repeat_their_last_one_with_weight_0():
    model = guest("d_fine")  # 3, 6 and 3 points
    with watch(model.model) as trace:
        outputs(model.model, model.inputs)
    step = trace.steps[0]
    assert step.weights.shape[2:] == (3, 6)
    assert (step.weights[:, :, 0, 3:] == 0).all()
    assert (step.weights[:, :, 1] > 0).all()
    assert torch.equal(step.locations[:, :, 2, 3:], step.locations[:, :, 2, 2:3].expand(-1, -1, 3, -1))


def test_discrete_sampling_is_recorded_at_the_tokens_that_it_takes():
    torch.manual_seed(0)
    model = zoo.spread(zoo.d_fine("discrete"))
    alone = outputs(model.model, model.inputs)
    with watch(model.model) as trace:
        assert same(alone, outputs(model.model, model.inputs))
    assert trace.rebuild_error() < 1e-5
    assert trace.steps[0].output.abs().max() > 0.01


def test_boxes_and_logits_come_with_a_detectors_trace():
    model = guest("rt_detr_v2")
    with watch(model.model) as trace, torch.no_grad():
        output = model.model(**model.inputs)
    assert torch.equal(trace.boxes[-1], output.pred_boxes[0])
    assert torch.equal(trace.boxes[1:], output.intermediate_reference_points[0])
    assert torch.equal(trace.logits, output.intermediate_logits[0])


def test_one_picture_of_a_batch_is_watched():
    model = guest("MSDeformAttn")
    traces = []
    for item in range(2):
        with watch(model.model, item=item) as trace:
            outputs(model.model, model.inputs)
        traces.append(trace)
    one = {name: tensor[1:] for name, tensor in model.inputs.items()}
    with watch(model.model) as alone:
        outputs(model.model, one)
    assert torch.allclose(traces[1].steps[1].output, alone.steps[1].output, atol=1e-6)
    assert not torch.allclose(traces[0].steps[1].output, alone.steps[1].output, atol=1e-3)
    with pytest.raises(ValueError, match="one of the batch's 2 pictures, from 0, got 2"), watch(model.model, item=2):
        outputs(model.model, model.inputs)


@pytest.mark.parametrize("kind", ["rt_detr", "d_fine", "mask2former"])
def test_nothing_stays_in_the_model_when_the_block_raises(kind):
    model = guest(kind)
    before = attributes(model.model)
    with pytest.raises((RuntimeError, ValueError), match="channel"), watch(model.model):
        model.model(pixel_values=torch.zeros(1, 5, 64, 64))
    assert attributes(model.model) == before
    block = watch(model.model)
    block.__enter__()
    assert not block.__exit__(KeyError, KeyError("mine"), None)
    assert attributes(model.model) == before


@pytest.mark.parametrize("kind", ["rt_detr", "d_fine", "mask2former"])
def test_blocks_may_be_nested_and_left_in_any_order(kind):
    model = guest(kind)
    before = attributes(model.model)
    outer, inner = watch(model.model), watch(model.model)
    first, second = outer.__enter__(), inner.__enter__()
    outputs(model.model, model.inputs)
    outer.__exit__(None, None, None)
    seen = first.steps[0].locations
    outputs(model.model, {"pixel_values": zoo.photo()})
    inner.__exit__(None, None, None)
    assert first.steps[0].locations is seen
    assert len(first.steps) == len(second.steps) == 2
    assert not torch.equal(first.steps[1].locations, second.steps[1].locations)
    assert attributes(model.model) == before


def test_each_thread_records_its_own_calls():
    model, both = guest("rt_detr_v2"), threading.Barrier(2)
    photos = [zoo.photo(), zoo.photo()]
    alone, together = [], [None, None]
    for photo in photos:
        with watch(model.model) as trace:
            outputs(model.model, {"pixel_values": photo})
        alone.append(trace)

    def work(index: int) -> None:
        with watch(model.model) as trace:
            both.wait(60)
            outputs(model.model, {"pixel_values": photos[index]})
            both.wait(60)
        together[index] = trace

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for one, other in zip(alone, together, strict=True):
        assert len(other.steps) == 2
        assert torch.equal(one.steps[1].locations, other.steps[1].locations)


def test_the_trace_is_that_of_the_last_call():
    model = guest("rt_detr")
    with watch(model.model) as trace:
        outputs(model.model, {"pixel_values": zoo.photo()})
        outputs(model.model, model.inputs)
    with watch(model.model) as last:
        outputs(model.model, model.inputs)
    assert len(trace.steps) == 2
    assert torch.equal(trace.steps[0].locations, last.steps[0].locations)


def test_a_block_without_a_call_says_so():
    with pytest.raises(RuntimeError, match="expected the model to be called in the block"), watch(guest("rt_detr").model):
        pass


def test_a_model_without_deformable_attention_is_refused():
    with pytest.raises(UnknownModelError, match="expected a model with multi-scale deformable attention, got Linear"):
        watch(nn.Linear(1, 1)).__enter__()


def test_this_projects_own_detectors_are_refused():
    detector = Detector.from_preset("deformable-detr-r50", width=32, queries=5)
    with pytest.raises(UnknownModelError, match=r"Detector.predict\(photo, trace=True\)"), watch(detector):
        pass


def test_a_compiled_model_is_refused():
    with pytest.raises(UnknownModelError, match=r"before torch.compile"), watch(torch.compile(guest("rt_detr").model)):
        pass


def test_another_version_of_a_function_is_refused(monkeypatch):
    def multi_scale_deformable_attn_pytorch(value, shapes, locations, weights, sigma):
        raise AssertionError

    monkeypatch.setattr(published, "multi_scale_deformable_attn_pytorch", multi_scale_deformable_attn_pytorch)
    with pytest.raises(UnknownModelError, match=r"got multi_scale_deformable_attn_pytorch\(value, shapes, locations, weights"):
        watch(published.make("mmcv").model).__enter__()


def test_a_module_that_calls_something_else_is_refused():
    class Other(published.MSDeformAttn):
        def forward(self, query, reference_points):
            return query

    with pytest.raises(UnknownModelError, match=r"expected Other \(encoder.self_attn\) to call one of "):
        watch(published.Transformer(Other)).__enter__()
