"""Denoising queries, matching, losses and gradients against the published implementation's."""

import pytest
import torch
from torch import nn

from litedetr.output import DetectorOutput, LayerOutput
from litedetr.training.denoising import DenoisingSettings, make_denoising
from litedetr.training.losses import detection_losses
from litedetr.training.matching import match
from tests import golden_data as golden
from tests.training.golden import STEPS, check_losses, draws_of, settings_of, targets_of

DENOISING = golden.cases("train", "cdn_")


def published_output(arrays: dict) -> DetectorOutput:
    """The published model's outputs as ours, so that matching and losses are tested on their own."""

    def layer(prefix: str) -> LayerOutput:
        return LayerOutput(arrays[f"{prefix}pred_logits"], arrays[f"{prefix}pred_boxes"])

    def earlier(prefix: str) -> list[LayerOutput]:
        count = sum(key.startswith(f"{prefix}aux_outputs.") and key.endswith("pred_logits") for key in arrays)
        return [layer(f"{prefix}aux_outputs.{i}.") for i in range(count)]

    last = layer("out.")
    return DetectorOutput(
        logits=last.logits,
        boxes=last.boxes,
        auxiliary=tuple(earlier("out.")),
        proposals=layer("out.interm_outputs."),
        denoising=(*earlier("dn.out."), layer("dn.out.")),
    )


@pytest.mark.parametrize("name", DENOISING)
def test_denoising_queries(name):
    case, arrays, _ = golden.load("train", name)
    embed = nn.Embedding.from_pretrained(arrays["label_enc.weight"], freeze=False)
    settings = DenoisingSettings(case["dn_number"], case["label_noise_ratio"], case["box_noise_scale"])
    made = make_denoising(
        targets_of(case, arrays), embed, case["num_classes"], case["num_queries"], settings, draws=draws_of(arrays)
    )
    assert made.groups == case["num_dn_group"]
    assert made.queries.content.shape[1] == case["pad_size"]
    assert torch.equal(made.queries.attention_mask, arrays["attn_mask"])
    golden.assert_close(made.queries.content, arrays["input_query_label"], 0.0, "content")
    golden.assert_close(made.queries.reference_points, arrays["input_query_bbox"], 1e-5, "reference points")


@pytest.mark.parametrize("name", STEPS)
def test_matching(name):
    case, arrays, _ = golden.load("train", name)
    output = published_output(arrays)
    layers = {"pred": LayerOutput(output.logits, output.boxes), "interm_outputs": output.proposals}
    layers |= {f"aux_outputs.{i}": layer for i, layer in enumerate(output.auxiliary)}
    targets = targets_of(case, arrays)
    pairs = match(
        torch.stack([layer.logits for layer in layers.values()]),
        torch.stack([layer.boxes for layer in layers.values()]),
        targets,
        settings_of(case["config"]).cost,
    )
    slots = targets.slots
    for number, layer in enumerate(layers):
        for image in range(len(targets.counts)):
            here = (pairs.layer == number) & (pairs.image == image)
            found = sorted(zip(pairs.query[here].tolist(), slots[pairs.target[here]].tolist(), strict=True))
            expected = (arrays[f"match.{layer}.{image}.{side}"].tolist() for side in ("query", "target"))
            assert found == sorted(zip(*expected, strict=True)), (layer, image)


@pytest.mark.parametrize("name", STEPS)
def test_losses_of_published_outputs(name):
    case, arrays, _ = golden.load("train", name)
    targets, output = targets_of(case, arrays), published_output(arrays)
    config, settings = case["config"], settings_of(case["config"])
    noise = DenoisingSettings(config["dn_number"], config["dn_label_noise_ratio"], config["dn_box_noise_scale"])
    embed = nn.Embedding(config["dn_labelbook_size"] + 1, config["hidden_dim"])
    made = make_denoising(targets, embed, config["num_classes"], config["num_queries"], noise, draws=draws_of(arrays))
    assert torch.equal(made.queries.attention_mask, arrays["dn.attn_mask"])
    golden.assert_close(made.queries.reference_points, arrays["dn.input_query_bbox"], 1e-5, "reference points")
    check_losses(case, detection_losses(output, targets, made, settings, diagnostics=True), settings)


def test_cases_are_there():
    assert DENOISING
    assert STEPS
