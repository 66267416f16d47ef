"""Lite DETR, live: start the page. ``python app.py --help`` says where it can be reached."""

import argparse
import logging
import threading

from app.engine.engine import Engine

logging.basicConfig(level=logging.INFO)
logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines would name every address that the page asks
engine = Engine()
if __name__ == "__main__":
    threading.Thread(target=engine.warm_up, daemon=True).start()  # the model and its kernel, while Gradio is imported

from app.ui import build, serve  # noqa: E402

demo = build(engine)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Lite DETR, live", epilog="A classroom: --host 0.0.0.0, or --share for a public link."
    )
    parser.add_argument("--host", help="address to listen at; 0.0.0.0 for the whole network (default: this machine alone)")
    parser.add_argument("--port", type=int, help="port to listen at (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="also a public link for a week, through Gradio's servers")
    given = parser.parse_args()
    serve(demo, engine, server_name=given.host, server_port=given.port, share=given.share or None)
