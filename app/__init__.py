"""Lite DETR, live: the page."""

import os
import tempfile
from pathlib import Path

UPLOADS = Path(tempfile.gettempdir()) / f"litedetr-uploads-{os.getuid() if hasattr(os, 'getuid') else 'all'}"
"""Where visitors' photos lie while they are needed (app/server/uploads.py), unless GRADIO_TEMP_DIR names another folder."""

# Waiting OpenMP threads would spin and take the web server's share of a two-core host; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRADIO_TEMP_DIR", str(UPLOADS))  # read when gradio is imported
