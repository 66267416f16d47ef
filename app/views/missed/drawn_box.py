"""What became of an object inside a box that somebody drew: the tokens that proposed it, the queries near it, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from app.run.run import Run
from app.run.state import ViewState
from app.run.token_place import token_place
from litedetr.boxes import iou

NEAR = 0.5
"""A box is near the drawn one from this IoU on: COCO's weakest match."""
PROPOSALS, QUERIES = 6, 4
"""How many of the nearest tokens and queries are shown."""


@dataclass(frozen=True)
class Proposal:
    """A token of a two-stage model.

    Attributes:
        token: its index among all; scale, centre: its own, the latter x, y in the photo's pixels.
        box: what it proposed, xyxy in the photo's pixels; overlap: its IoU with the drawn box.
        rank: among all tokens, from 1; score: by which it is ranked; label: of the class that scored, None for "an object".
        query: the decoder query that it became, None where the cut left it out.
    """

    token: int
    scale: str
    centre: tuple[float, float]
    box: tuple[float, float, float, float]
    overlap: float
    rank: int
    score: float
    label: int | None
    query: int | None


@dataclass(frozen=True)
class DrawnBox:
    """A drawn box in a run. T stages: before the decoder, then after each of its layers. Q queries, S tokens, K classes.

    Attributes:
        drawn: xyxy in the photo's pixels.
        classes: those that count; empty for every class.
        threshold: score from which a detection is shown.
        boxes: (T, Q, 4) xyxy in the photo's pixels, clipped to the photo.
        overlaps: (T, Q) IoU with the drawn box.
        scores, labels: (T, Q) the best score of a class that counts, and which; NaN and -1 before the decoder where tokens do not
            tell classes.
        ranks: (T, Q) place of the score among the queries', from 1; before the decoder, the token's among all tokens, or 0.
    """

    run: Run
    drawn: tuple[float, float, float, float]
    classes: tuple[int, ...]
    threshold: float
    boxes: np.ndarray
    overlaps: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    ranks: np.ndarray

    @property
    def queries(self) -> int:
        """The cut: so many tokens become queries."""
        return self.boxes.shape[1]

    @property
    def token_ranks(self) -> np.ndarray | None:
        """(S,) every token's rank, from 1: the chosen ones in their order, then the others by score; None in one-stage models."""
        if self.run.trace.selected_tokens is None:
            return None
        return self.run.extras.memo("token ranks", lambda: _token_ranks(self.run))

    @property
    def token_boxes(self) -> np.ndarray:
        """(S, 4) xyxy in the photo's pixels, clipped to it; without area where a token may propose none."""
        return self.run.extras.memo("token boxes", lambda: _token_boxes(self.run))

    @cached_property
    def token_overlaps(self) -> np.ndarray:
        """(S,) IoU with the drawn box."""
        return overlap(self.token_boxes, self.drawn)

    def proposal(self, token: int) -> Proposal:
        """Everything about one token."""
        logits = self.run.trace.proposal_logits[token].float()
        label = _best(logits[None], self.classes)[1][0] if self.run.tokens_tell_classes else None
        score = logits[0 if label is None else int(label)].sigmoid()
        rank = int(self.token_ranks[token])
        place = token_place(self.run, token)
        return Proposal(
            token=token,
            scale=place.scale,
            centre=place.centre,
            box=tuple(self.token_boxes[token].tolist()),
            overlap=float(self.token_overlaps[token]),
            rank=rank,
            score=float(score),
            label=None if label is None else int(label),
            query=rank - 1 if rank <= self.queries else None,
        )

    def nearest_tokens(self, count: int) -> list[int]:
        """Tokens whose proposals overlap the drawn box most; none that does not."""
        if self.token_ranks is None:
            return []
        order = np.lexsort((self.token_ranks, -self.token_overlaps))[:count]
        return [int(token) for token in order if self.token_overlaps[token] > 0]

    def nearest_queries(self, count: int) -> list[int]:
        """Queries whose last boxes overlap the drawn box most; where too few do, those that once did."""
        best = np.lexsort((-self.overlaps.max(0), -self.overlaps[-1]))[:count]
        return [int(query) for query in best if self.overlaps[:, query].max() > 0]

    @cached_property
    def verdict(self) -> tuple[str, dict[str, Any]]:
        """The first rule that applies, and its numbers. A query's score is that of its best class that counts.

        - "found": a detection above the threshold, of a class that counts, is near.
        - "otherwise": one of another class is.
        - Among the queries that are near at the end, the one with the best score:
          "crowded": it is above the threshold, but not among the detections that the model keeps;
          "duplicate": a shown detection of its class lies over its box (`NEAR`), though not over the drawn one;
          "fell": it was above the threshold after an earlier stage; "weak": it never was.
        - "left": a query was near at an earlier stage, the one that was nearest.
        - "cut": tokens proposed a near box, but none of them was chosen; the one with the best rank.
        - "unseen": no token proposed a near box. "no_query": the same in a model whose queries are learned.
        """
        shown = self._detection(self.classes)
        if shown is not None:
            return "found", shown
        other = self._detection(())
        if self.classes and other is not None:
            return "otherwise", other | self._best_guess()
        near = np.flatnonzero(self.overlaps[-1] >= NEAR)
        if len(near):
            return self._among_near(int(near[np.argmax(self.scores[-1, near])]))
        if self.overlaps.max(initial=0.0) >= NEAR:
            return self._left()
        return self._without_query()

    def _detection(self, classes: tuple[int, ...]) -> dict[str, Any] | None:
        found = self.run.detections
        shown = self.run.shown(self.threshold, classes)
        near = shown[overlap(found.boxes[shown], self.drawn) >= NEAR]
        if not len(near):
            return None
        best = int(near[0])
        values = {"name": found.names[best], "score": float(found.scores[best]), "query": int(found.queries[best])}
        return {**values, "overlap": float(overlap(found.boxes[best], self.drawn))}

    def _best_guess(self) -> dict[str, Any]:
        """Of the classes that count, among the queries that are near at the end."""
        near = np.flatnonzero(self.overlaps[-1] >= NEAR)
        if not len(near):
            return {"wanted": self._name(self.classes[0]), "best": 0.0}
        query = int(near[np.argmax(self.scores[-1, near])])
        return {"wanted": self._name(self.labels[-1, query]), "best": float(self.scores[-1, query])}

    def _among_near(self, query: int) -> tuple[str, dict[str, Any]]:
        last, label = len(self.scores) - 1, int(self.labels[-1, query])
        score = float(self.scores[-1, query])
        values = {"query": query, "name": self._name(label), "score": score, "overlap": float(self.overlaps[-1, query])}
        values["threshold"] = self.threshold
        if score >= self.threshold:
            return "crowded", values | {"kept": len(self.run.detections)}
        found = self.run.detections
        for place in self.run.shown(self.threshold, (label,)):
            shared = float(overlap(found.boxes[place], self.boxes[-1, query]))
            if shared >= NEAR:
                winner = {"winner": int(found.queries[place]), "winning": float(found.scores[place]), "shared": shared}
                return "duplicate", values | winner
        above = np.flatnonzero(self.scores[:last, query] >= self.threshold)
        if len(above):
            stage = int(above[-1])
            before = {"stage": stage, "before": float(self.scores[stage, query]), "after": float(self.scores[stage + 1, query])}
            return "fell", values | before
        stage = int(np.nanargmax(self.scores[:, query]))
        return "weak", values | {"stage": stage, "best": float(self.scores[stage, query])}

    def _left(self) -> tuple[str, dict[str, Any]]:
        query = int(self.overlaps.max(0).argmax())
        stage = int(np.flatnonzero(self.overlaps[:, query] >= NEAR)[-1])
        before, after = (float(self.overlaps[index, query]) for index in (stage, stage + 1))
        end = {"overlap": float(self.overlaps[-1, query]), "score": float(self.scores[-1, query])}
        return "left", {"query": query, "stage": stage, "before": before, "after": after, **end}

    def _without_query(self) -> tuple[str, dict[str, Any]]:
        if self.token_ranks is None:
            query = int(self.overlaps[-1].argmax())
            return "no_query", {"query": query, "overlap": float(self.overlaps[-1, query]), "queries": self.queries}
        ranks = self.token_ranks
        near = np.flatnonzero((self.token_overlaps >= NEAR) & (ranks > self.queries))
        token = int(near[ranks[near].argmin()] if len(near) else self.token_overlaps.argmax())
        best = self.proposal(token)
        values = {"rank": best.rank, "queries": self.queries, "tokens": len(ranks), "scale": best.scale}
        values |= {"overlap": best.overlap, "score": best.score, "token": token}
        if not len(near):
            return "unseen", values
        worst = int(self.run.trace.selected_tokens[-1])
        ranked = {key: _strength(self.run, [each]).item() for key, each in (("own", token), ("needed", worst))}
        ranked = {key: 1 / (1 + np.exp(-logit)) for key, logit in ranked.items()}
        return "cut", values | ranked | {"count": len(near)}

    def _name(self, label: int) -> str:
        return self.run.config.names[int(label)]


def drawn_box(run: Run, state: ViewState) -> DrawnBox | None:
    """The state's drawn box in the run; None without one."""
    if state.box is None:
        return None
    height, width = run.size
    trace = run.trace
    drawn = tuple(float(value) for value in np.array(state.box) * [width, height, width, height])
    classes = tuple(label for label in state.classes if label < run.config.num_classes)
    boxes = np.stack([_on_photo(run, stage) for stage in trace.boxes])
    T, Q = boxes.shape[:2]
    scores, labels = np.full((T, Q), np.nan), np.full((T, Q), -1)
    ranks = np.zeros((T, Q), dtype=np.int64)
    if trace.selected_tokens is not None:
        ranks[0] = np.arange(1, Q + 1)
        if run.tokens_tell_classes:
            scores[0], labels[0] = _best(trace.proposal_logits[trace.selected_tokens].float(), classes)
    for stage, logits in enumerate(trace.logits.float(), start=1):
        scores[stage], labels[stage] = _best(logits, classes)
        ranks[stage, np.argsort(-scores[stage], kind="stable")] = np.arange(1, Q + 1)
    threshold = run.threshold(state.threshold)
    return DrawnBox(run, drawn, classes, threshold, boxes, overlap(boxes, drawn), scores, labels, ranks)


def nearest(found: DrawnBox) -> tuple[list[int], list[int]]:
    """Tokens and queries to show: by overlap, and the verdict's own first."""
    _, values = found.verdict
    tokens, queries = found.nearest_tokens(PROPOSALS), found.nearest_queries(QUERIES)
    for own, listed, count in ((values.get("token"), tokens, PROPOSALS), (values.get("query"), queries, QUERIES)):
        if own is not None:
            listed[:] = [own, *[each for each in listed if each != own]][:count]
    return tokens, queries


def overlap(boxes: np.ndarray, drawn: tuple[float, float, float, float] | np.ndarray) -> np.ndarray:
    """IoU of (..., 4) xyxy boxes with one box; 0 where both are empty."""
    return iou(torch.from_numpy(np.asarray(boxes, np.float64)), torch.tensor(drawn, dtype=torch.float64), eps=1e-9).numpy()


def _on_photo(run: Run, boxes: torch.Tensor) -> np.ndarray:
    """(..., 4) cxcywh in [0, 1] -> xyxy in the photo's pixels, clipped to the photo."""
    height, width = run.size
    return run.on_photo(boxes).clip(0, [width, height, width, height])


def _token_ranks(run: Run) -> np.ndarray:
    chosen, strength = run.trace.selected_tokens.numpy(), _strength(run)
    rest = np.ones(len(strength), dtype=bool)
    rest[chosen] = False
    others = np.flatnonzero(rest)
    order = np.concatenate((chosen, others[np.argsort(-strength[others], kind="stable")]))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def _token_boxes(run: Run) -> np.ndarray:
    boxes = run.trace.proposal_boxes
    none = (boxes == 1).all(dim=1)
    return _on_photo(run, boxes.masked_fill(none[:, None], 0.0))


def _best(logits: torch.Tensor, classes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) logits -> score and index of the best class that counts, (N,) each."""
    if not classes:
        best, labels = logits.max(dim=1)
        return best.sigmoid().numpy(), labels.numpy()
    best, places = logits[:, list(classes)].max(dim=1)
    return best.sigmoid().numpy(), np.array(classes)[places.numpy()]


def _strength(run: Run, tokens: list[int] | slice = slice(None)) -> np.ndarray:
    """The logit by which tokens are ranked."""
    return run.family.token_scores(run.trace.proposal_logits[tokens].float()).numpy()
