"""`accelerate` on the real code of every kind of model: equal results and gradients, by the kernel."""

import copy

import pytest
import torch
from torch import Tensor, nn

from litedetr import accelerate, ops, watch
from litedetr.guests import calls
from litedetr.ops import native
from tests.guests import published, zoo
from tests.guests.conftest import guest
from tests.guests.test_watch import attributes, outputs, same


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of any number of any tensor; infinite ones must be in the same places."""
    numbers = [name for name, tensor in one.items() if tensor.is_floating_point()]
    assert all(torch.equal(one[name].isfinite(), other[name].isfinite()) for name in numbers)
    return max(float((one[name] - other[name]).nan_to_num(0.0).abs().max()) for name in numbers)


def test_results_are_equal_and_undone(every):
    before, alone = attributes(every.model), outputs(every.model, every.inputs)
    with accelerate(every.model):
        fast = outputs(every.model, every.inputs)
    assert farthest(alone, fast) < 1e-4
    assert attributes(every.model) == before
    assert same(alone, outputs(every.model, every.inputs))


def test_the_kernel_is_what_runs(every, monkeypatch):
    seen, original = [], ops.deformable_attention
    monkeypatch.setattr(ops, "deformable_attention", lambda *arguments: seen.append(arguments) or original(*arguments))
    with accelerate(every.model), watch(every.model) as trace, ops.use("native"):
        outputs(every.model, every.inputs)
    assert len(seen) == len(trace.steps)
    assert trace.rebuild_error() < 1e-4


@pytest.mark.parametrize("kind", ["rt_detr", "d_fine", "mask2former"])
def test_gradients_are_equal(kind):
    model = guest(kind)
    grads = []
    for fast in (False, True):
        handle = accelerate(model.model) if fast else None
        model.model.zero_grad()
        output = model.model(**model.inputs)
        (output["logits"] if "logits" in output else output["masks_queries_logits"]).square().sum().backward()
        grads.append({name: p.grad.clone() for name, p in model.model.named_parameters() if p.grad is not None})
        if handle is not None:
            handle.undo()
    model.model.zero_grad()
    assert any("sampling_offsets" in name and grad.abs().max() > 0 for name, grad in grads[0].items())
    largest = max(float(grad.abs().max()) for grad in grads[0].values())
    for name, grad in grads[0].items():
        assert torch.allclose(grad, grads[1][name], rtol=1e-3, atol=1e-3 * float(grad.abs().max()) + 1e-5 * largest), name


def test_an_extension_that_cannot_go_backward_gets_gradients():
    model = published.make("MSDeformAttn")
    with accelerate(model.model):
        model.model(**model.inputs)["out"].sum().backward()
    assert model.model.encoder.self_attn.sampling_offsets.weight.grad.abs().max() > 0


class Attention(nn.Module):
    """A model's attention alone, called as the model calls it."""

    def __init__(self, site: calls.Site):
        super().__init__()
        self.attention = site.module

    def forward(self, *args, **kwargs) -> Tensor:
        return self.attention(*args, **kwargs)[0]


@pytest.mark.parametrize("kind", ["deformable_detr", "mask2former"])
def test_it_can_be_compiled(kind):
    model = copy.deepcopy(guest(kind).model)
    site = calls.find(model)[0]
    seen = {}
    hook = site.module.register_forward_pre_hook(lambda _, args, kwargs: seen.update(args=args, kwargs=kwargs), with_kwargs=True)
    with torch.no_grad():
        model(**guest(kind).inputs)
        hook.remove()
        expected = Attention(site)(*seen["args"], **seen["kwargs"])
        accelerate(model)
        nodes = []

        def backend(graph, inputs):
            nodes.extend(str(node.target) for node in graph.graph.nodes)
            return graph.forward

        compiled = torch.compile(Attention(site), backend=backend, fullgraph=True)
        assert torch.allclose(compiled(*seen["args"], **seen["kwargs"]), expected, atol=1e-5)
    assert "litedetr.deformable_attention" in nodes
    assert not any("grid_sample" in node for node in nodes)


def test_accelerated_twice_is_accelerated_once():
    model = guest("rt_detr")
    before = attributes(model.model)
    first, second = accelerate(model.model), accelerate(model.model)
    second.undo()
    assert attributes(model.model) != before
    first.undo()
    first.undo()
    assert attributes(model.model) == before


def test_watched_before_or_after_it_is_watched():
    model = guest("rt_detr_v2")
    with watch(model.model) as trace, accelerate(model.model):
        fast = outputs(model.model, model.inputs)
    with watch(model.model) as plain:
        alone = outputs(model.model, model.inputs)
    assert 0 < farthest(alone, fast) < 1e-4
    assert torch.allclose(trace.steps[1].locations, plain.steps[1].locations, atol=1e-4)


def test_a_copy_of_an_accelerated_model_stands_alone():
    model = guest("mask2former")
    with accelerate(model.model):
        other = copy.deepcopy(model.model)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(1.0)
        try:
            changed = outputs(other, model.inputs)
        finally:
            for parameter in model.model.parameters():
                parameter.sub_(1.0)
    assert farthest(changed, outputs(model.model, model.inputs)) < 1e-3


def test_discrete_sampling_is_refused():
    model = zoo.d_fine("discrete").model
    before = attributes(model)
    with pytest.raises(RuntimeError, match='has the method "discrete", which takes the nearest token'):
        accelerate(model)
    assert attributes(model) == before


def test_a_dtype_without_a_kernel_is_refused():
    model = published.make("mmcv").model.double()
    with pytest.raises(RuntimeError, match=r"\(encoder.self_attn\) in float32, bfloat16 on cpu, got float64"):
        accelerate(model)


def test_where_there_is_no_kernel_it_says_why(monkeypatch):
    monkeypatch.setattr(native, "reason_unavailable", lambda: "no C++ compiler was found")
    with pytest.raises(RuntimeError, match="would not be faster: no C\\+\\+ compiler was found"):
        accelerate(guest("rt_detr").model)
