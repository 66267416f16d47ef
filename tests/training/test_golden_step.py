"""A whole training step of the detector against the published implementation: outputs, losses, every gradient."""

import pytest

from litedetr import Detector, DetectorConfig, EncoderSchedule
from litedetr.training.denoising import DenoisingSettings, make_denoising
from litedetr.training.losses import detection_losses, total_loss
from litedetr.weights.conversion.reference import reference_name
from tests import golden_data as golden
from tests.training.golden import STEPS, check_losses, draws_of, settings_of, targets_of

LEVELS = 4
RELATIVE = 2e-3  # of a parameter's gradient norm: our float32 against the reference's float64


def config_of(case: dict, parameters: dict) -> DetectorConfig:
    c = case["config"]
    schedule = EncoderSchedule(c["enc_scale"], LEVELS - c["enc_scale"], c["enc_layers"] // c["num_expansion"], c["num_expansion"])
    offsets = parameters["transformer.decoder.layers.0.cross_attn.sampling_offsets.bias"].numel()
    return DetectorConfig(
        backbone_width=case["resnet_width"],
        width=c["hidden_dim"],
        heads=c["nheads"],
        levels=LEVELS,
        points=offsets // (c["nheads"] * LEVELS * 2),
        schedule=str(schedule),
        key_aware=c["key_aware"],
        same_loc=c["same_loc"],
        proj_key=c["proj_key"],
        encoder_ffn=c["dim_feedforward_enc"],
        low_ffn=c["hidden_dim"] if c["small_expand"] else None,
        decoder_ffn=c["dim_feedforward_dec"],
        decoder_layers=c["dec_layers"],
        queries=c["num_queries"],
        learned_content=c["embed_init_tgt"],
        num_classes=c["num_classes"],
    )


@pytest.fixture(scope="module", params=STEPS)
def step(request):
    case, arrays, parameters = golden.load("train", request.param)
    detector = Detector(config_of(case, parameters))
    golden.load_published(detector, parameters)
    detector.train()
    config, targets = case["config"], targets_of(case, arrays)
    denoising = make_denoising(
        targets,
        detector.label_embed,
        config["num_classes"],
        detector.num_queries,
        DenoisingSettings(config["dn_number"], config["dn_label_noise_ratio"], config["dn_box_noise_scale"]),
        draws=draws_of(arrays),
    )
    output = detector(arrays["image"], arrays["mask"], denoising=denoising.queries)
    settings = settings_of(config)
    losses = detection_losses(output, targets, denoising, settings, diagnostics=True)
    total_loss(losses, settings).backward()
    return case, arrays, detector, output, losses


def test_outputs(step):
    case, arrays, _, output, _ = step
    limit = golden.tolerance(1e-5)
    pairs = [("out.", output), ("out.interm_outputs.", output.proposals), ("dn.out.", output.denoising[-1])]
    pairs += [(f"out.aux_outputs.{i}.", layer) for i, layer in enumerate(output.auxiliary)]
    pairs += [(f"dn.out.aux_outputs.{i}.", layer) for i, layer in enumerate(output.denoising[:-1])]
    for prefix, layer in pairs:
        golden.assert_close(layer.logits, arrays[f"{prefix}pred_logits"], limit, f"{prefix}pred_logits")
        golden.assert_close(layer.boxes, arrays[f"{prefix}pred_boxes"], limit, f"{prefix}pred_boxes")


def test_losses(step):
    case, _, _, _, losses = step
    check_losses(case, losses, settings_of(case["config"]))


def test_gradients(step):
    case, arrays, detector, _, _ = step
    ours = dict(detector.named_parameters())
    floor = 1e-6 * max(norm for norm in case["grad_norms_float64"].values() if norm is not None)
    compared = 0
    for name, norm in case["grad_norms_float64"].items():
        if norm is None or name in case["frozen_parameters"]:
            continue
        mine = reference_name(name)
        if mine not in ours:  # one copy of heads shared by all layers
            head, _, rest = mine.removeprefix("heads.").partition(".")
            mine = f"heads.{head}.0.{rest.partition('.')[2]}"
        gradient = ours[mine].grad
        assert gradient is not None, name
        assert float(gradient.double().norm()) == pytest.approx(norm, rel=RELATIVE, abs=floor), name
        if f"grad.{name}" in arrays:
            difference = float((gradient - arrays[f"grad.{name}"]).double().norm())
            assert difference <= RELATIVE * norm + floor, (name, difference, norm)
        compared += 1
    assert compared > 100
