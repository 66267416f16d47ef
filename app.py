"""Lite DETR, live: start the page."""

import logging
import threading

from app.engine.engine import Engine
from app.ui import build, serve

logging.basicConfig(level=logging.INFO)
logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines would name every address that the page asks
engine = Engine()
demo = build(engine)

if __name__ == "__main__":
    threading.Thread(target=engine.warm_up, daemon=True).start()
    serve(demo, engine)
