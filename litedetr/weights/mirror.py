"""``python -m litedetr mirror OWNER``: everything that is published, converted, to an account of one's own on the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from litedetr.weights import hub
from litedetr.weights.published import catalogue, converted, lookup
from litedetr.weights.source import convert


def mirror(owner: str, names: Iterable[str] = (), private: bool | None = None, token: str | bool | None = None) -> Iterable[str]:
    """Upload each model with its card (origin, licence, AP, fingerprint of the published file).

    Args:
        owner: of the repositories, which are called as in the catalogue.
        names: of the catalogue; all of them if none is given.
        private, token: see `litedetr.weights.hub.push`.

    Yields:
        The address of each model's page.

    Raises:
        WeightsError: one cannot be had, or the Hub does not take it; those before it are there.
    """
    for entry in [lookup(name) for name in (names or catalogue())]:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if entry.repo is None:
                folder = converted(entry)
            else:
                convert(entry.name, folder)
            yield hub.push(folder, f"{owner}/{entry.name}", private, token)
