"""Attention modules against golden data: locations, weights, outputs, gradients."""

import pytest
import torch

from litedetr import ops
from litedetr.attention import DeformableAttention, KeyAwareDeformableAttention
from tests import golden_data as golden


def build(config: dict, parameters: dict | None = None, dtype: torch.dtype = torch.float64):
    shape = (config["d_model"], config["n_heads"], config["n_levels"], config["n_points"], config["same_loc"])
    if config["key_aware"]:
        module = KeyAwareDeformableAttention(*shape, proj_key=config["proj_key"])
    else:
        module = DeformableAttention(*shape)
    if parameters is not None:
        own = module.state_dict()
        unused = set(parameters) - set(own)
        assert unused <= set(config["parameters_without_gradient"]), unused
        module.load_state_dict({key: value for key, value in parameters.items() if key in own})
    return module.to(dtype)


def run(module, arrays, dtype, **options):
    shapes = [tuple(shape) for shape in arrays["spatial_shapes"].tolist()]
    inputs = [arrays[name].to(dtype) for name in ("query", "reference_points", "input_flatten")]
    inputs = [tensor.requires_grad_(options.get("grad", False)) for tensor in inputs]
    query, reference, memory = inputs
    result = module(query, reference, memory, shapes, arrays.get("padding_mask"), return_sampling=True)
    return inputs, *result


@pytest.mark.parametrize("case", golden.cases("msda"))
def test_float64(case):
    config, arrays, parameters = golden.load("msda", case)
    module = build(config, parameters)
    with ops.use("reference"):
        inputs, output, sampling = run(module, arrays, torch.float64, grad=True)
        golden.assert_close(output, arrays["output_f64"], 1e-10, "output")
        golden.assert_close(sampling.weights, arrays["attention_weights_f64"], 1e-10, "weights")
        golden.assert_close(sampling.locations, arrays["sampling_locations"], 1e-5, "locations")
        shapes = [tuple(shape) for shape in arrays["spatial_shapes"].tolist()]
        core = ops.deformable_attention(sampling.value, shapes, sampling.locations, sampling.weights)
        golden.assert_close(core, arrays["core_output_f64"], 1e-10, "core rebuilt from locations and weights")
        output.backward(arrays["grad_output"].double())
    grads = dict(zip(("query", "reference_points", "input_flatten"), (i.grad for i in inputs), strict=True))
    grads |= {f"param.{name}": parameter.grad for name, parameter in module.named_parameters()}
    compared = 0
    for name, grad in grads.items():
        expected = arrays.get(f"grad.{name}")
        if expected is not None:
            golden.assert_close(grad, expected, 1e-6 * max(1.0, float(expected.abs().max())), f"gradient of {name}")
            compared += 1
    assert compared >= 3 + len(list(module.parameters())) - len(config["parameters_without_gradient"])


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("case", golden.cases("msda"))
def test_float32(case, backend):
    config, arrays, parameters = golden.load("msda", case)
    module = build(config, parameters, torch.float32)
    with ops.use(backend), torch.no_grad():
        _, output, _ = run(module, arrays, torch.float32)
    golden.assert_close(output, arrays["output"], golden.tolerance(config["max_abs_diff_float32_vs_float64"]), "output")


@pytest.mark.parametrize("case", golden.cases("msda"))
def test_initial_offsets(case):
    config, arrays, _ = golden.load("msda", case)
    module = build(config, dtype=torch.float32)
    golden.assert_close(module.sampling_offsets.bias.detach(), arrays["init.sampling_offsets.bias"], 1e-6)
    assert not module.sampling_offsets.weight.any()


def test_messages():
    with pytest.raises(ValueError) as error:
        DeformableAttention(width=30, heads=8)
    assert str(error.value) == "expected a width divisible by the number of heads, got width=30, heads=8"
    module = DeformableAttention(width=16, heads=2, levels=1)
    with pytest.raises(ValueError) as error:
        module(torch.zeros(1, 3, 16), torch.zeros(1, 3, 1, 3), torch.zeros(1, 4, 16), [(2, 2)])
    assert str(error.value) == (
        "expected reference points with 2 (x, y) or 4 (cx, cy, w, h) coordinates, got 3 in the shape (1, 3, 1, 3)"
    )
