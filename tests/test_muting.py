"""Muting points: nothing muted is the run itself, all of them is the bias alone, and the parts sum to the whole."""

import pytest
import torch
from torch.testing import assert_close

from litedetr.muting import contributions, rerun
from tests.pictures import scene
from tests.small_models import KINDS, small_detector, small_result

ALL = pytest.mark.parametrize("kind", KINDS)


def traced(kind: str):
    return small_detector(kind), small_result(kind).trace


@ALL
def test_the_points_and_the_bias_sum_to_the_output(kind):
    _, trace = traced(kind)
    for step in trace.steps:
        parts = contributions(step, 3)
        assert parts.shape == (*step.weights.shape[1:], step.output.shape[-1])
        assert_close(parts.sum((0, 1, 2)) + step.output_bias, step.output[3], atol=1e-5, rtol=1e-4)


@ALL
def test_nothing_muted_is_the_run_itself(kind):
    detector, trace = traced(kind)
    width = trace.steps[0].output.shape[-1]
    for index in (0, len(trace.encoder_steps) - 1, len(trace.encoder_steps), len(trace.steps) - 1):
        output = rerun(detector, trace, index, 5, torch.zeros(2, width))
        for variant in range(2):
            assert_close(output.logits[variant], trace.logits[-1], atol=1e-4, rtol=1e-4)
            assert_close(output.boxes[variant], trace.boxes[-1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["B1 high", "B2 all", "decoder 1", "decoder 3"])
def test_all_points_muted_is_an_attention_that_gives_its_bias(name):
    detector, trace = traced("H3L1")
    step = trace.step(name)
    index, row = trace.steps.index(step), 4
    got = rerun(detector, trace, index, row, contributions(step, row).sum((0, 1, 2))[None])

    def bias_alone(module, inputs, output):
        attended = output[0] if isinstance(output, tuple) else output
        attended[:, row] = step.output_bias
        return output

    layers = [layer.attention for layer in (*detector.encoder.layers, *detector.decoder.layers)]
    hook = layers[index].register_forward_hook(bias_alone)
    expected = detector.predict(scene(180, 120), threshold=0.0, trace=True).trace
    hook.remove()
    assert not torch.allclose(expected.logits[-1], trace.logits[-1], atol=1e-5)
    assert_close(got.logits[0], expected.logits[-1], atol=1e-4, rtol=1e-4)
    assert_close(got.boxes[0], expected.boxes[-1], atol=1e-5, rtol=1e-4)


def test_an_optimized_detector_is_refused():
    detector, trace = traced("H2L2")
    with pytest.raises(ValueError) as error:
        rerun(detector.optimize("float32"), trace, 0, 0, torch.zeros(1, 128))
    assert str(error.value) == (
        "expected a plain detector, got one that was optimized for inference; give the one it was made from"
    )


def test_progress_is_told_and_many_variants_go_in_batches():
    detector, trace = traced("H2L2")
    told = []
    removed = torch.zeros(30, trace.steps[0].output.shape[-1])
    assert len(rerun(detector, trace, len(trace.steps) - 1, 0, removed, told.append).logits) == 30
    assert told == [0.0, 12 / 30, 24 / 30]
