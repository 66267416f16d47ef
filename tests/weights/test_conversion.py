"""Published checkpoints: what they are, every key accounted for, the same numbers afterwards, and what is refused."""

import argparse
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from litedetr import Detector
from litedetr.backbones.swin import relative_position_index
from litedetr.cli import main
from litedetr.config import preset
from litedetr.cost import parameters
from litedetr.weights import WeightsError, convert
from litedetr.weights.conversion.checkpoint import Checkpoint, read_checkpoint
from litedetr.weights.conversion.infer import Known, infer_config
from litedetr.weights.conversion.reference import from_checkpoint
from tests import golden_data as golden
from tests.golden_data import config_of

CASES = golden.cases("model")
LISTS = sorted(path.stem for path in (golden.FOLDER / "state_dict").glob("*.json"))
PRESETS = {
    "deformable_detr_r50": preset("deformable-detr-r50"),
    "deformable_detr_r50_refine": preset("deformable-detr-r50-refine"),
    "deformable_detr_r50_refine_twostage": preset("deformable-detr-r50-two-stage"),
    "dino_r50_4scale": preset("dino-r50"),
    "h_detr_r50": preset("h-detr-r50"),
    "h_detr_swin_t": preset("h-detr-swin-t"),
    "lite_dino_r50_s2ex3_kda": preset("lite-dino-r50-h2l2-2x3"),
    "lite_dino_r50_s3ex1_kda": preset("lite-dino-r50-h3l1-6x1"),
    "lite_dino_r50_s3ex3_kda": preset("lite-dino-r50-h3l1-2x3"),
    "lite_dino_r50_s3ex1_da": replace(preset("lite-dino-r50-h3l1-6x1"), key_aware=False),
    "lite_dino_swin_t_s3ex3_kda": preset("lite-dino-swin-t-h3l1-2x3"),
}


def full_size(name: str) -> tuple[dict, dict, dict]:
    """A random checkpoint with the names and shapes of a published one, its args, and the list it was made from."""
    listed = json.loads((golden.FOLDER / "state_dict" / f"{name}.json").read_text())
    state = {}
    for key, shape in listed["state_dict"].items():
        state[key] = relative_position_index(round(shape[0] ** 0.5)) if key.endswith("position_index") else torch.rand(shape)
    for group in listed["shared_tensors"]:
        state |= dict.fromkeys(group, state[group[0]])
    return state, listed["config"], listed


@pytest.mark.parametrize("name", LISTS)
def test_full_size_lists(name):
    state, args, listed = full_size(name)
    config, converted = from_checkpoint(Checkpoint(state, args, f"{name}.pth", name))
    if name in PRESETS:
        assert config == PRESETS[name]
    unused = sum(value.numel() for key, value in state.items() if ".query_proj." in key) if not config.key_aware else 0
    assert parameters(config) == listed["parameters"] - unused
    assert torch.equal(converted["neck.level_embed"], state["transformer.level_embed"])


@pytest.mark.parametrize("case", CASES)
def test_small_models_are_recognised(case):
    entry, _, state = golden.load("model", case)
    config = infer_config(state, Known(entry["config"]))
    expected = config_of(entry)
    names = ("class_names", "top_k")
    ours = {key: value for key, value in config.to_dict().items() if key not in names}
    assert ours == {key: value for key, value in expected.to_dict().items() if key not in names}


@pytest.fixture(scope="module")
def published():
    return golden.load("model", "lite_dino_s3ex3_kda")


@pytest.mark.parametrize("layout", ["model", "ema_model", "bare", "module"])
def test_a_file_becomes_a_folder(published, layout, tmp_path, capsys):
    entry, arrays, parameters = published
    args = argparse.Namespace(**entry["config"], use_ema=layout == "ema_model", output=Path("logs"))
    saved = {
        "model": {"model": parameters, "args": args, "epoch": 35, "optimizer": {"state": {}}},
        "ema_model": {"model": {k: v + 1 for k, v in parameters.items()}, "ema_model": parameters, "args": args},
        "bare": parameters,
        "module": {"model": {f"module.{key}": value for key, value in parameters.items()}, "args": args},
    }[layout]
    file = tmp_path / "r50_s3ex3_50.4.pth"
    torch.save(saved, file)
    heads = ["--heads", str(entry["config"]["nheads"])] if layout == "bare" else []
    assert main(["convert", str(file), str(tmp_path / "out"), *heads]) == 0
    assert "encoder H3L1-(2+1)x3, 91 classes" in capsys.readouterr().out
    detector = Detector.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        output = detector(arrays["image"], arrays["mask"])
    limit = golden.tolerance(max(entry["max_abs_diff_float32_vs_float64"].values()))
    golden.assert_close(output.logits, arrays["out.pred_logits"], limit, "logits")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "# Lite-DINO, resnet50, H3L1-(2+1)x3" in card
    assert "Converted from `r50_s3ex3_50.4.pth`" in card
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as tensors:
        assert set(tensors.keys()) == set(detector.state_dict())


def test_what_is_unknown_is_asked_for(published):
    entry, _, parameters = published
    with pytest.raises(WeightsError) as error:
        infer_config(parameters, Known({"nheads": 4}, "weights.pth"))
    assert str(error.value) == (
        "expected to learn the encoder's schedule of weights.pth, and neither args nor name tell: give it with --schedule, e.g. "
        '--schedule "H3L1-(2+1)x3" (a wrong one loads and ruins the detections)'
    )
    with pytest.raises(WeightsError) as error:
        infer_config(parameters, Known({}, "s3ex3.pth"))
    assert str(error.value) == (
        "expected to learn the number of attention heads of s3ex3.pth, and neither args nor name tell: give it with --heads "
        "(8 in the published models)"
    )
    with pytest.raises(WeightsError) as error:
        infer_config(parameters, Known(entry["config"], "r50_s2ex3_49.9.pth"))
    assert str(error.value) == (
        "expected one schedule for r50_s2ex3_49.9.pth, got H3L1-(2+1)x3 from its args and H2L2-(2+1)x3 from its name: say which "
        "with --schedule"
    )
    assert infer_config(parameters, Known(entry["config"], "r50_s2ex3_49.9.pth", "H2L2-(2+1)x3")).schedule == "H2L2-(2+1)x3"
    with pytest.raises(WeightsError) as error:
        infer_config(parameters, Known(entry["config"], "", "H3L1-(6+1)x1"))
    assert str(error.value) == (
        "expected a schedule for 4 scales and 6 layers, of which 2, 4, 6 update every scale, got H3L1-(6+1)x1: give another with "
        "--schedule"
    )
    with pytest.raises(WeightsError) as error:
        infer_config(parameters, Known(entry["config"] | {"pre_norm": True}))
    assert str(error.value) == "expected a model trained with pre_norm=False, got True: it computes otherwise"
    with pytest.raises(WeightsError) as error:
        infer_config({"fc.weight": torch.zeros(1)}, Known({}))
    assert str(error.value) == (
        "expected a checkpoint of Lite-DINO, DINO, Deformable DETR or H-DETR, got the keys fc.weight, …: "
        "convert one of those"
    )


@pytest.mark.parametrize("classes", [1, 3, 80, 91, 365])
@pytest.mark.parametrize("book", [92, 4, None])
def test_fine_tuned_with_any_classes(published, classes, book, caplog):
    """Class heads of the new classes, and a label book of the old ones, a small one, or none."""
    entry, _, parameters = published
    state, args = dict(parameters), entry["config"] | {"num_classes": classes}
    heads = {part: torch.rand(classes, *parameters[f"class_embed.0.{part}"].shape[1:]) for part in ("weight", "bias")}
    for name in (name for name in parameters if "class_embed" in name):  # those that layers share are one
        part = heads[name.rsplit(".")[-1]]
        state[name] = part.clone() if "enc_out" in name else part
    del state["label_enc.weight"]
    if book is not None:
        state["label_enc.weight"] = torch.rand(book, parameters["label_enc.weight"].shape[1])
    config, converted = from_checkpoint(Checkpoint(state, args, "r50_s3ex3.pth", "r50_s3ex3.pth"))
    assert config.num_classes == classes
    assert converted["label_embed.weight"].shape[0] == classes + 1
    said = [record.getMessage() for record in caplog.records]
    if book == classes + 1:
        assert said == []
        assert torch.equal(converted["label_embed.weight"], state["label_enc.weight"])
    else:
        rows = min(book or 0, classes + 1)
        assert said == [f"denoising label book: {rows} of {classes + 1} rows are taken (training alone uses it)"]


@pytest.mark.parametrize("tool", ["doubles", "criterion", "lightning", "compiled", "ema alone"])
def test_what_only_training_uses_stops_nothing(published, tool, tmp_path, caplog):
    entry, _, parameters = published
    args = argparse.Namespace(**entry["config"])
    extra = {"criterion.empty_weight": torch.ones(92), "aux_head.conv.weight": torch.ones(3), "dn_embed.weight": torch.ones(3)}
    saved = {
        "doubles": {"model": {**parameters, **{f"ema.{name}": value + 1 for name, value in parameters.items()}}, "args": args},
        "criterion": {"model": {**parameters, **extra}, "args": args, "optimizer": {"state": {}, "param_groups": []}},
        "lightning": {"state_dict": {f"model.{name}": value for name, value in parameters.items()} | extra, "args": args},
        "compiled": {"model": {f"module._orig_mod.{name}": value for name, value in parameters.items()}, "args": args},
        "ema alone": {"ema": {"module": parameters, "updates": 7}, "args": args, "epoch": 3},
    }[tool]
    torch.save(saved, tmp_path / "r50_s3ex3_50.4.pth")
    _, state = from_checkpoint(read_checkpoint(tmp_path / "r50_s3ex3_50.4.pth"))
    assert torch.equal(state["neck.level_embed"], parameters["transformer.level_embed"])
    said = [record.getMessage() for record in caplog.records]
    assert said == {
        "doubles": [f"r50_s3ex3_50.4.pth: {len(parameters)} weights of a second copy of the model are left out (ema.…)"],
        "criterion": [f"3 weights that only training uses are left out ({', '.join(extra)})"],
        "lightning": [f"3 weights that only training uses are left out ({', '.join(extra)})"],
    }.get(tool, [])


class _Command:
    def __reduce__(self):
        return (print, ("this must not be printed",))


def test_what_is_refused(published, tmp_path, capsys):
    entry, _, parameters = published
    wanting = tmp_path / "wanting.pth"
    wanting.write_bytes(pickle.dumps({"model": _Command()}, protocol=2))
    torch.save({"model": parameters, "args": _Command()}, tmp_path / "zipped.pth")
    for file in ("wanting.pth", "zipped.pth"):
        assert main(["convert", str(tmp_path / file), str(tmp_path / "out")]) == 2
        caught = capsys.readouterr()
        assert caught.out == ""
        assert f"{file}, got a " in caught.err or f"{file}, got something else" in caught.err
    assert "a pickle that wants to run code, and it was refused" in caught.err
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(WeightsError, match=r"expected a PyTorch checkpoint in broken\.pth, got something else or a broken file"):
        read_checkpoint(tmp_path / "broken.pth")
    with pytest.raises(WeightsError, match=r"expected a checkpoint file, a folder with config\.json, or a Hub id, got"):
        read_checkpoint(tmp_path / "none.pth")
    lost = {key: value for key, value in parameters.items() if key != "transformer.enc_output.weight"} | {"more": torch.zeros(1)}
    torch.save({"model": lost, "args": argparse.Namespace(**entry["config"])}, tmp_path / "lost.pth")
    with pytest.raises(WeightsError) as error:
        convert(tmp_path / "lost.pth", tmp_path / "out")
    assert "1 missing: selection.project.weight; 1 unexpected: more" in str(error.value)
    one, width = "transformer.encoder.layers.0.linear1.weight", parameters["transformer.level_embed"].shape[1]
    for spoilt in (torch.zeros(()), torch.zeros(1).expand(10**7, width), torch.zeros(0, width), None):  # a number, repeated, none
        state = {key: value for key, value in (parameters | {one: spoilt}).items() if value is not None}
        torch.save({"model": state, "args": argparse.Namespace(**entry["config"])}, tmp_path / "spoilt.pth")
        assert main(["convert", str(tmp_path / "spoilt.pth"), str(tmp_path / "out")]) == 2
        assert "expected the weights of a whole model in spoilt.pth, got some that are " in capsys.readouterr().err
    incomplete = {key: value for key, value in parameters.items() if "class_embed.1." not in key}
    with pytest.raises(WeightsError) as error:
        from_checkpoint(Checkpoint(incomplete, entry["config"], "", ""))
    layers = entry["config"]["dec_layers"]
    others = ", ".join(str(index) for index in range(layers) if index != 1)
    assert str(error.value) == (
        f"expected class_embed.0 to class_embed.{layers - 1}, one head for each of {layers} decoder layers, got {others}: "
        "the checkpoint is incomplete"
    )
    differing = dict(parameters)
    differing["class_embed.1.weight"] = parameters["class_embed.1.weight"] + 1
    differing["transformer.decoder.class_embed.1.weight"] = parameters["class_embed.1.weight"] + 2
    with pytest.raises(WeightsError, match="to equal its other copies"):
        from_checkpoint(Checkpoint(differing, entry["config"], "", ""))
    assert not (tmp_path / "out").exists()


def test_a_hub_id_is_downloaded(published, tmp_path, monkeypatch):
    """The card names the repository, not the folder of the cache."""
    entry, _, parameters = published
    torch.save({"model": parameters, "args": argparse.Namespace(**entry["config"])}, tmp_path / "snapshot.pth")
    monkeypatch.setattr("litedetr.weights.source.find", lambda source: tmp_path / "snapshot.pth")
    convert("owner/name", tmp_path / "out")
    assert "Converted from `owner/name`" in (tmp_path / "out" / "README.md").read_text()


def test_a_folder_must_be_transformers(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "detr"}')
    with pytest.raises(WeightsError, match="expected a transformers model of the type deformable_detr in"):
        read_checkpoint(tmp_path)
