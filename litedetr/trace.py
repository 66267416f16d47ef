"""Trace: what was sampled, with which weight, on which scale, at which step of one photo's run."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from litedetr.image import PhotoGeometry
from litedetr.notebook import table
from litedetr.schedule import EncoderStep
from litedetr.steps import AttentionStep, LightStep, StepMaker, stored_bytes

if TYPE_CHECKING:
    from litedetr.attention import DeformableAttention, Sampling
    from litedetr.pyramid import FeaturePyramid


@dataclass(repr=False)
class Trace:
    """Every encoder update and decoder layer of one photo.

    Attributes:
        steps: encoder steps in order, then decoder layers; those of a light trace make their tensors when these are read.
        geometry: from coordinates of the padded image to the photo's pixels.
        spatial_shapes: (height, width) per level, finest first.
        padding: (S,) bool, True = padding token.
        selected_tokens: (Q,) the encoder tokens that became queries, best first (two-stage models).
        boxes: (layers + 1, Q, 4) the queries' boxes before the decoder and after each layer, cxcywh in [0, 1] of the photo
            (without padding, unlike the points).
        logits: (layers, Q, K) after each decoder layer.
        tokens: (S, d) before the encoder; `memory` gives them after each of its steps.
        queries: (Q, d) the decoder queries' contents before its first layer, and
        query_positions: (Q, d) their positions, None where they are made from the boxes.
        proposal_logits: (S, K) and proposal_boxes: (S, 4) cxcywh in [0, 1], what every token proposed (two-stage models; the box
            is 1, 1, 1, 1 where a token may propose none: in padding and where its box would leave the picture).
        milliseconds: wall-clock of "backbone", "neck", "encoder", "selection", "decoder", and of each step by its name.
        replay: makes the steps of a light trace; None where they are whole. A light trace becomes a whole one when it is pickled.
    """

    steps: list[AttentionStep] | list[LightStep] = field(default_factory=list)
    geometry: PhotoGeometry | None = None
    spatial_shapes: tuple[tuple[int, int], ...] = ()
    padding: Tensor | None = None
    selected_tokens: Tensor | None = None
    boxes: Tensor | None = None
    logits: Tensor | None = None
    tokens: Tensor | None = None
    queries: Tensor | None = None
    query_positions: Tensor | None = None
    proposal_logits: Tensor | None = None
    proposal_boxes: Tensor | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    replay: StepMaker | None = None

    @property
    def encoder_steps(self) -> list[AttentionStep] | list[LightStep]:
        return [step for step in self.steps if step.kind != "decoder"]

    @property
    def decoder_steps(self) -> list[AttentionStep] | list[LightStep]:
        return [step for step in self.steps if step.kind == "decoder"]

    @property
    def nbytes(self) -> int:
        """Bytes held, counting memory that several tensors share once."""
        own = [value for value in vars(self).values() if isinstance(value, Tensor)]
        return stored_bytes([*own, *(tensor for step in self.steps for tensor in step.tensors())])

    def rebuild_error(self) -> float:
        """Largest of all steps' `AttentionStep.rebuild_error`."""
        return max((step.rebuild_error() for step in self.steps), default=0.0)

    def memory(self, step: int) -> Tensor:
        """(S, d): the tokens of all scales after encoder step `step`, counted from 0; -1 for before the encoder."""
        if self.replay is not None:
            return self.replay.memory(step)
        tokens = self.tokens
        for done in self.encoder_steps[: step + 1]:
            tokens = torch.cat((tokens[: done.first_query], done.tokens))
        return tokens

    def step(self, name: str) -> AttentionStep | LightStep:
        """The step called `name`."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(f"expected one of the steps {', '.join(step.name for step in self.steps)}, got {name!r}")

    def whole(self) -> Trace:
        """The same with all tensors of all steps, which needs no detector any more; itself where it is that already."""
        if self.replay is None:
            return self
        return replace(self, steps=[step.whole for step in self.steps], replay=None)

    def __getstate__(self) -> dict:
        return dict(vars(self.whole()))

    def __repr__(self) -> str:
        return f"Trace({len(self.steps)} steps: {', '.join(step.name for step in self.steps)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row for each step."""
        rows = [
            (step.name, " ".join(step.query_scales) or "objects", step.queries, self.milliseconds.get(step.name, float("nan")))
            for step in self.steps
        ]
        return table(("step", "updates", "queries", "ms"), rows)

    def save(self, path: str | Path) -> None:
        """Write everything to an .npz file: `numpy.load` reads it, and `Trace.load`.

        The arrays are called as the attributes are: "tokens", "boxes", …, and those of a step by its name before that:
        "B1 high/locations", "decoder 1/weights", … The array "about" is a text, the rest as JSON. Steps are written one after
        the other, so that a light trace never holds all of them. bfloat16 becomes float32.
        """
        about = {
            "steps": [{name: getattr(step, name) for name in _OUTLINE} for step in self.steps],
            "geometry": None if self.geometry is None else asdict(self.geometry),
            "spatial_shapes": self.spatial_shapes,
            "milliseconds": self.milliseconds,
        }
        with zipfile.ZipFile(path, "w") as file:
            _write(file, "about", np.array(json.dumps(about)))
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    _write(file, name, _array(value))
            for step in self.steps:
                for name, value in vars(step.whole).items():
                    if isinstance(value, Tensor):
                        _write(file, f"{step.name}/{name}", _array(value))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """What `save` wrote, with all tensors of all steps.

        Raises:
            ValueError: the file is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: torch.from_numpy(file[name]) for name in file.files if name != "about"}
                about = json.loads(str(file["about"]))
        except (KeyError, zipfile.BadZipFile, ValueError) as error:
            raise ValueError(f"expected a trace as Trace.save writes it, got {path}: {error}") from error
        shapes = _tuples(about["spatial_shapes"])
        steps = []
        for outline in about["steps"]:
            own = {name.rpartition("/")[2]: value for name, value in arrays.items() if name.startswith(f"{outline['name']}/")}
            outline["query_levels"] = tuple(outline["query_levels"])
            steps.append(AttentionStep(**outline, spatial_shapes=shapes, **own))
        geometry = None if about["geometry"] is None else PhotoGeometry(**{k: _tuples(v) for k, v in about["geometry"].items()})
        own = {name: value for name, value in arrays.items() if "/" not in name}
        return cls(steps=steps, geometry=geometry, spatial_shapes=shapes, milliseconds=about["milliseconds"], **own)

    @contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Measure a stage's wall-clock."""
        start = time.perf_counter()
        yield
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + 1000 * (time.perf_counter() - start)

    @property
    def samples(self) -> bool:
        """Whether attention modules are asked for what they sampled."""
        return self.replay is None

    def begin(self, pyramid: FeaturePyramid) -> None:
        """What goes into the encoder."""
        self.spatial_shapes, self.padding, self.tokens = pyramid.shapes, _keep(pyramid.mask[0]), _keep(pyramid.tokens[0])
        if self.replay is not None:
            padding = self.padding if bool(self.padding.any()) else None
            self.replay.shapes, self.replay.padding, self.replay.tokens = self.spatial_shapes, padding, self.tokens

    def begin_decoder(self, queries: Tensor, positions: Tensor | None) -> None:
        """What goes into the decoder, (1, Q, d) each."""
        self.queries, self.query_positions = _keep(queries[0]), None if positions is None else _keep(positions[0])
        if self.replay is not None:
            self.replay.queries, self.replay.query_positions = self.queries, self.query_positions

    def add_encoder_step(
        self,
        step: EncoderStep,
        first_query: int,
        reference_points: Tensor,
        sampling: Sampling | None,
        output: Tensor,
        attention: DeformableAttention,
    ) -> None:
        """An update of the encoder, with `sampling` where the trace `samples`."""
        outline = (step.name, step.kind, step.block, step.query_levels, first_query)
        self._add(outline, reference_points, sampling, output, attention)

    def add_decoder_layer(
        self, index: int, reference_points: Tensor, sampling: Sampling | None, output: Tensor, attention: DeformableAttention
    ) -> None:
        """A layer of the decoder, with `sampling` where the trace `samples`."""
        self._add((f"decoder {index + 1}", "decoder", None, (), 0), reference_points, sampling, output, attention)
        if self.replay is not None:
            self.replay.references.append(self.steps[-1].reference_points)

    def _add(
        self,
        outline: tuple,
        reference_points: Tensor,
        sampling: Sampling | None,
        output: Tensor,
        attention: DeformableAttention,
    ) -> None:
        if output.shape[0] != 1:
            raise ValueError(f"expected one photo to trace, got a batch of {output.shape[0]}: trace photos one at a time")
        outline = (*outline, self.spatial_shapes, _keep(reference_points[0]))
        if self.replay is not None:
            self.steps.append(LightStep(*outline, len(self.steps), self.replay))
            return
        self.steps.append(
            AttentionStep(
                *outline,
                locations=_keep(sampling.locations[0]),
                weights=_keep(sampling.weights[0]),
                value=_keep(sampling.value[0]),
                output=_keep(output[0]),
                output_weight=_keep(attention.output_proj.weight),
                output_bias=_keep(attention.output_proj.bias),
                query=None if sampling.query is None else _keep(sampling.query[0]),
                key=None if sampling.key is None else _keep(sampling.key[0]),
            )
        )

    def end_step(self, tokens: Tensor, overwritten: bool = False) -> None:
        """What the last step's queries (1, Q, d) became; `overwritten` where that tensor will not last."""
        step = self.steps[-1]
        kept = _keep(tokens[0].clone() if overwritten else tokens[0])
        if self.replay is None:
            self.steps[-1] = replace(step, tokens=kept)
        elif step.kind == "decoder" or self.replay.keeps(tokens.shape[1]):
            self.replay.written.append(kept)
        else:
            self.replay.drop(kept)


_OUTLINE = ("name", "kind", "block", "query_levels", "first_query")


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _tuples(value):
    """JSON's lists as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _write(file: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
        np.lib.format.write_array(entry, array, allow_pickle=False)


def _keep(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


def stage(trace: Trace | None, name: str):
    """``with stage(trace, "encoder"):`` measures the stage if there is a trace, and does nothing if not."""
    return nullcontext() if trace is None else trace.timing(name)
