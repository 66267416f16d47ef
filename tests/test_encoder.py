"""The interleaved encoder against golden data, step by step."""

import pytest
import torch

from litedetr.encoder import InterleavedEncoder, query_range
from litedetr.positions import reference_points
from litedetr.pyramid import FeaturePyramid
from litedetr.schedule import EncoderSchedule
from litedetr.trace import Trace
from litedetr.weights.conversion.reference import reference_name
from tests import golden_data as golden


def schedule_of(config: dict) -> EncoderSchedule:
    levels = len(config["spatial_shapes"])
    updates = config["num_layers"] // config["num_expansion"]
    return EncoderSchedule(config["enc_scale"], levels - config["enc_scale"], updates, config["num_expansion"])


def build(config: dict, parameters: dict) -> InterleavedEncoder:
    encoder = InterleavedEncoder(
        schedule_of(config),
        config["d_model"],
        config["n_heads"],
        config["n_points"],
        config["ffn"],
        config["small_ffn"] if config["small_expand"] else None,
        config["key_aware"],
        config["same_loc"],
        config["proj_key"],
    )
    state = {}
    for name, value in parameters.items():
        _, index, rest = name.split(".", 2)
        state[reference_name(f"transformer.encoder.layers.{index}.{rest}").removeprefix("encoder.")] = value
    own = encoder.state_dict()
    unused = [name for name in state if name not in own]
    # Plain attention has a query projection that takes no part; a full encoder has no low tokens for a second network.
    assert all(".query_proj." in name or (".low_ffn." in name and not schedule_of(config).low) for name in unused), unused
    encoder.load_state_dict({name: value for name, value in state.items() if name in own})
    return encoder


def pyramid_of(arrays: dict) -> FeaturePyramid:
    return FeaturePyramid(
        tokens=arrays["src"],
        positions=arrays["pos"],
        shapes=tuple(tuple(shape) for shape in arrays["spatial_shapes"].tolist()),
        mask=arrays["mask"],
        valid_ratios=arrays["valid_ratios"],
        reference_points=arrays["reference_points"],
    )


@pytest.mark.parametrize("case", golden.cases("encoder"))
def test_every_step(case):
    config, arrays, parameters = golden.load("encoder", case)
    encoder, pyramid = build(config, parameters), pyramid_of(arrays)
    limit = golden.tolerance(config["max_abs_diff_float32_vs_float64"])
    assert [step.kind for step in encoder.steps] == config["schedule"]
    golden.assert_close(reference_points(pyramid.shapes, pyramid.valid_ratios), pyramid.reference_points, 1e-6, "references")
    memory = pyramid.tokens
    with torch.no_grad():
        for step, layer in zip(encoder.steps, encoder.layers, strict=True):
            first, low_tokens = query_range(encoder.schedule, step, pyramid)
            before, memory = memory, layer(memory, first, low_tokens, pyramid, pyramid.padding)
            assert torch.equal(memory[:, :first], before[:, :first]), "tokens of scales that are not updated must stay"
            if step.kind == "high":
                assert first == config["first_high_token"]
            if step.index < len(encoder.steps) - 1:
                golden.assert_close(memory[:, first:], arrays[f"layer{step.index}.query_out"], limit, step.name)
        golden.assert_close(memory, arrays["memory"], limit, "memory")
        assert torch.equal(encoder(pyramid), memory)


def test_trace_changes_nothing_and_rebuilds_every_output():
    case = golden.cases("encoder")[0]
    config, arrays, parameters = golden.load("encoder", case)
    encoder, batch = build(config, parameters), pyramid_of(arrays)
    one = FeaturePyramid(
        batch.tokens[:1], batch.positions[:1], batch.shapes, batch.mask[:1], batch.valid_ratios[:1], batch.reference_points[:1]
    )
    trace = Trace(spatial_shapes=one.shapes)
    with torch.no_grad():
        assert torch.equal(encoder(one), encoder(one, trace))
    assert [step.kind for step in trace.steps] == config["schedule"]
    for step in trace.steps:
        assert step.rebuild_error() < 1e-5
        total = step.weights.sum((-2, -1))
        assert torch.allclose(total, torch.ones_like(total), atol=1e-5)
