"""What a model costs: `macs` counts, `paper` compares with the paper, `catalogue` writes the table of models."""

from litedetr.cost.macs import OURS, Cost, Rule, full_encoder, gmacs, level_shapes, parameters, published_rule, step_macs

__all__ = ["OURS", "Cost", "Rule", "full_encoder", "gmacs", "level_shapes", "parameters", "published_rule", "step_macs"]
