"""The stage: the page's own component. Its html, css and js lie here; this is the thin Python around them."""

from app.stage.component import HEAD, events, stage

__all__ = ["HEAD", "events", "stage"]
