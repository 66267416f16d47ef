"""The page's environment variables: those that the host sets are read here; those that Gradio reads when it is imported are set
here, before that."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

ALL_UPLOADS = Path(tempfile.gettempdir()) / f"litedetr-uploads-{os.getuid() if hasattr(os, 'getuid') else 'all'}"
UPLOADS = ALL_UPLOADS / str(os.getpid())
"""Where visitors' photos lie while they are needed (app/server/uploads.py), unless GRADIO_TEMP_DIR names another folder. Each
process has one, so that the next start knows what an earlier one left behind."""

os.environ.setdefault("GRADIO_TEMP_DIR", str(UPLOADS))
if os.environ.get("SPACE_ID"):  # the proxy of Spaces says for whom it asks; read by uvicorn
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "127.0.0.1,10.0.0.0/8")


def number(name: str, default: float, former: str = "") -> float:
    """The variable LITEDETR_<name>, or the one of its former name; the default where neither is a sensible number."""
    for variable in (name, former):
        try:
            value = float(os.environ.get(f"LITEDETR_{variable}", ""))
        except ValueError:
            continue
        if 0 <= value < 1e9:
            return value
    return default
