"""Lite DETR, live: the page."""

import os

# Waiting OpenMP threads would spin and take the web server's share of a two-core host; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
