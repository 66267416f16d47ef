"""Models on the Hub: uploaded, and compared with what was published."""

from __future__ import annotations

import argparse

from litedetr.weights.hub import push
from litedetr.weights.mirror import mirror
from litedetr.weights.verify import EXAMPLE, verify, verify_published


def run_push(options: argparse.Namespace) -> int:
    print(push(options.folder, options.name, options.private))
    return 0


def run_mirror(options: argparse.Namespace) -> int:
    for address in mirror(options.owner, options.only, options.private):
        _say(address)
    return 0


def run_verify(options: argparse.Namespace) -> int:
    if options.published:
        lines = list(map(_say, verify_published(options.photo or EXAMPLE)))
        return 1 if any("FAILED" in line for line in lines) else 0
    if options.model is None:
        raise ValueError("expected a model on the Hub or --published, got nothing: name what to verify")
    result = verify(options.model, options.photo)
    print(result)
    return 0 if result.ok else 1


def _say(line: str) -> str:
    print(line, flush=True)
    return line
