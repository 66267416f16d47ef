"""What models cost."""

from __future__ import annotations

import argparse
import json

from litedetr.commands import size_of
from litedetr.config import DetectorConfig, preset, presets
from litedetr.cost import catalogue, full_encoder, gmacs, paper, parameters
from litedetr.weights import published, read_config


def run_cost(options: argparse.Namespace) -> int:
    if options.paper:
        print(json.dumps(paper.table(), indent=2) if options.json else paper.text())
        return 0
    if options.model is None:
        raise ValueError("expected a preset, a weights folder or --paper, got nothing: name what to count")
    config: DetectorConfig = preset(options.model) if options.model in presets() else read_config(options.model)
    size = size_of(options.size)
    cost = gmacs(config, size)
    full = gmacs(full_encoder(config), size).encoder
    stages = {name: getattr(cost, name) for name in ("backbone", "neck", "encoder", "selection", "decoder", "heads", "total")}
    steps = {step.name: macs for step, macs in zip(config.encoder_schedule.steps(), cost.steps, strict=True)}
    if options.json:
        data = {"size": list(size), "gmacs": stages, "encoder_steps": steps, "full_encoder": full}
        print(json.dumps(data | {"parameters": parameters(config)}, indent=2))
        return 0
    for name, value in stages.items():
        print(f"{'  heads' if name == 'heads' else name:10} {value:8.2f} {'  (in the decoder)' if name == 'heads' else 'GMACs'}")
        if name == "encoder":
            for step, macs in steps.items():
                print(f"  {step:8} {macs:8.2f}")
            print(f"  {'(full)':8} {full:8.2f}   with every scale updated in every layer")
    print(f"{'parameters':10} {parameters(config) / 1e6:8.2f} million")
    return 0


def run_models(options: argparse.Namespace) -> int:
    print(catalogue.markdown(published.places()))
    return 0
