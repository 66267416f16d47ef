"""The page's endpoints for programs: `/detect` and `/explain`, for gradio_client, plain HTTP and MCP (docs/api.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import anyio
import gradio as gr

from app.engine.engine import Engine
from app.engine.jobs import OF_AN_ADDRESS
from app.engine.out_of_memory import NoMemory
from app.engine.queue import Client, QueueFull
from app.engine.time_limit import TooSlow
from app.i18n import say
from app.run.state import AUTO
from app.server.explain import ExplainError
from app.server.explain import explain as explanation
from app.server.guard import client_of
from app.server.uploads import PhotoGone, arrived, photo_box
from litedetr.image import PhotoError
from litedetr.weights import WeightsError

MCP = find_spec("mcp") is not None
"""Whether the packages of ``gradio[mcp]`` are here: without them Gradio has no MCP server."""


def add_endpoints(engine: Engine) -> None:
    """Add both to the page that is being built. They wait in the engine's own queue, in threads of their own.

    Gradio makes their documentation out of names, labels and docstrings.
    """
    threads = anyio.CapacityLimiter(4 * OF_AN_ADDRESS)

    async def answered(request: gr.Request | None, act: Callable[[Client], dict[str, Any]]) -> dict[str, Any]:
        client = client_of(request)

        def work() -> dict[str, Any]:
            with _sentences(), engine.jobs.place(client):
                return act(client)

        return await anyio.to_thread.run_sync(work, limiter=threads)

    async def detect(photo: str, threshold: float | None, request: gr.Request) -> dict[str, Any]:
        """Find objects in a photo: their names, scores and boxes (x1, y1, x2, y2 in the photo's pixels), best first.

        Args:
            photo: the picture file.
            threshold: lowest score to give, from 0 to 1.
        """

        def act(client: Client) -> dict[str, Any]:
            return engine.detect(_given(photo, client), _score(threshold), client).to_dict()

        return await answered(request, act)

    async def explain(
        photo: str,
        x: float | None = None,
        y: float | None = None,
        detection: float | None = None,
        step: str | None = AUTO,
        scale: str | None = AUTO,
        request: gr.Request | None = None,
    ) -> dict[str, Any]:
        """Show where the detector looked: the sampling points of one query at one step, in the photo's pixels, with their
        attention weights, per scale and head.

        Args:
            photo: the picture file.
            x: of a point in the photo's pixels, to ask what this place looked at; needs y.
            y: of the point.
            detection: instead of a point, the place of a detection in the answer of detect, 0 for the best.
            step: an encoder update like "B1 high" or a decoder layer like "decoder 3"; "auto" for the last one that fits.
            scale: which scale's token asks in the encoder, "S1" (coarsest) to "S4" (finest); "auto" for the one that fits.
        """

        def act(client: Client) -> dict[str, Any]:
            for name, value in (("x", x), ("y", y), ("detection", detection)):
                _number(name, value)
            run = engine.run(_given(photo, client), keep=False, client=client)
            return explanation(run, x, y, detection, step, scale)

        return await answered(request, act)

    _endpoint(detect, [photo_box(label="photo"), gr.Number(0.3, visible=False, label="threshold")], "detections")
    place = [gr.Number(visible=False, label=axis) for axis in "xy"]
    which = gr.Number(visible=False, label="detection")
    names = [gr.Textbox(AUTO, visible=False, label=label, max_length=40) for label in ("step", "scale")]
    _endpoint(explain, [photo_box(label="photo"), *place, which, *names], "explanation")


def _endpoint(function: Callable[..., Awaitable[dict[str, Any]]], inputs: list[Any], label: str) -> None:
    answer = gr.JSON(visible=False, label=label)
    gr.Button(visible=False).click(function, inputs=inputs, outputs=[answer], api_name=function.__name__, concurrency_limit=None)


def _given(photo: str | None, client: Client) -> str:
    if not photo:
        raise PhotoError(say("en", "error.no_photo"))
    return arrived(photo, client)


def _score(threshold: float | None) -> float | None:
    """A threshold as programs may give it; None is the model's own."""
    if threshold is not None and not 0 <= _number("threshold", threshold) <= 1:
        raise ExplainError(f"expected a threshold from 0 to 1, got {threshold:g}: choose one, or leave it out.")
    return threshold


def _number(name: str, value: float | None) -> float | None:
    """What came for a number: Gradio lets anything through."""
    if value is not None and not (isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)):
        raise ExplainError(f"expected {name} as a number, got {str(value)[:40]!r}: give one, or leave it out.")
    return value


@contextmanager
def _sentences() -> Iterator[None]:
    """What a program may know of an error: its sentence."""
    try:
        yield
    except (ExplainError, PhotoError, WeightsError) as error:
        raise gr.Error(str(error), print_exception=False) from None
    except PhotoGone:
        raise gr.Error(say("en", "error.gone"), print_exception=False) from None
    except QueueFull:
        raise gr.Error(say("en", "error.queue"), print_exception=False) from None
    except NoMemory:
        raise gr.Error(say("en", "error.memory"), print_exception=False) from None
    except TooSlow as error:
        raise gr.Error(say("en", "error.slow", seconds=round(error.seconds)), print_exception=False) from None
