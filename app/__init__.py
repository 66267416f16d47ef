"""Lite DETR, live: the page."""

from app import settings as settings  # before torch and gradio
