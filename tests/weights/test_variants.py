"""The embedded model's variants: stored as what differs, loaded whole or not at all."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from litedetr import Detector
from litedetr.weights import VARIANTS, WeightsError, load, read_config
from litedetr.weights.variants import read_variant, write_variant
from tests.small_models import small

CHANGES = {"full": {"schedule": "H4L0-(1+1)x6", "low_ffn": None}, "plain": {"key_aware": False}}


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    detector = small("lite-dino-nanodet-g")
    detector.save_pretrained(tmp_path / "base", torch.float16)
    return Detector.from_pretrained(tmp_path / "base")


def variant_of(base: Detector, kind: str) -> Detector:
    """Another encoder and decoder with random weights, all else the base's."""
    made = Detector(replace(base.config, **CHANGES[kind])).half().float().eval()
    made.load_state_dict(
        {key: value for key, value in base.state_dict().items() if not key.startswith(("encoder.", "decoder."))}, strict=False
    )
    return made


@pytest.mark.parametrize("kind", CHANGES)
def test_a_variant_is_what_was_trained(base, tmp_path, kind):
    made, file = variant_of(base, kind), tmp_path / "variant.safetensors"
    write_variant(file, (base.config, base.state_dict()), (made.config, made.state_dict()))
    kept = load_file(file)
    assert {key.split(".")[0] for key in kept} <= {"encoder", "decoder"}, "what both share is stored once"
    assert {value.dtype for value in kept.values()} == {torch.float16}
    config, state = read_variant(file, tmp_path / "base")
    assert config == made.config
    assert set(state) == set(made.state_dict())
    assert all(torch.equal(value.float(), made.state_dict()[key]) for key, value in state.items())


def test_every_tensor_has_its_place_or_nothing_is_loaded(base, tmp_path):
    made, file = variant_of(base, "plain"), tmp_path / "variant.safetensors"
    write_variant(file, (base.config, base.state_dict()), (made.config, made.state_dict()))
    kept, metadata = load_file(file), {"changes": '{"key_aware": false}'}
    missing = {key: value for key, value in kept.items() if not key.endswith("attention_weights.bias")}
    for wrong, words in ((missing, "missing"), (kept | {"more": torch.zeros(1)}, "1 unexpected: more")):
        save_file(wrong, file, metadata)
        with pytest.raises(WeightsError, match=f"fit the model exactly, got .*{words}"):
            read_variant(file, tmp_path / "base")


@pytest.mark.parametrize("source", VARIANTS)
def test_those_that_are_embedded(source):
    """They see photos as the embedded model does, and differ from it in what their names say."""
    config, state = load(source)
    own, weights = load()
    assert config == read_config(source)
    same = {key for key, value in weights.items() if key in state and torch.equal(value, state[key])}
    # scores were given their meaning for each of them
    changed = {key for key in set(weights) - same if not key.startswith("heads.classes.")}
    assert {key.split(".")[0] for key in changed} == {"encoder", "decoder"}
    assert config.encoder_schedule.is_full == (source == "embedded/full")
    assert config.key_aware == (source != "embedded/plain")
    assert replace(config, schedule=own.schedule, key_aware=own.key_aware, low_ffn=own.low_ffn) == own
    assert VARIANTS[source].stat().st_size < 4e6
