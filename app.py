"""Lite DETR, live: start the page."""

import logging

from app.engine import Engine
from app.ui import build, launch_options

logging.basicConfig(level=logging.INFO)
engine = Engine()
demo = build(engine)

if __name__ == "__main__":
    demo.launch(**launch_options(engine))
