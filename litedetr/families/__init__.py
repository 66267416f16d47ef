"""What differs between the detector families, above all how queries are made. `litedetr.config.FAMILIES` lists them."""

from __future__ import annotations

from importlib import import_module

from litedetr.config import DetectorConfig
from litedetr.families.family import Family, Implementation, Rule

__all__ = ["Family", "Implementation", "Rule", "family_of"]


def family_of(config: DetectorConfig) -> Family:
    """What there is to know about the family that a config names."""
    return import_module(f"{__name__}.{config.family}").FAMILY
