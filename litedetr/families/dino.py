"""DINO and Lite-DINO: mixed query selection, look forward twice."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from litedetr.families.family import Family, Implementation, Rule
from litedetr.families.heads import Classes
from litedetr.families.selection import Selection, TokenHeads, best_tokens, gather
from litedetr.output import LayerOutput
from litedetr.pyramid import FeaturePyramid


class QuerySelection(TokenHeads):
    """The tokens with the best class become queries (DINO, section 3.4): their boxes are the queries' first references, their
    contents are learned ("mixed" selection: only positions come from the image) or the tokens themselves.

    Args:
        width: d; queries: Q; classes: K.
        learned_content: mixed selection.
        anchor_cells: see `TokenHeads`.
    """

    def __init__(
        self, width: int, queries: int, classes: Classes, learned_content: bool = True, anchor_cells: float | None = None
    ):
        super().__init__(width, classes, anchor_cells)
        self.queries = queries
        self.content = nn.Embedding(queries, width) if learned_content else None

    def forward(self, memory: Tensor, pyramid: FeaturePyramid, chosen: Tensor | None = None) -> Selection:
        """(B, S, d) memory -> `Selection` of at most as many queries as there are tokens; `chosen` (B, Q): of these instead."""
        tokens, logits, proposals = self.candidates(memory, pyramid)
        scores = best_class(logits)
        chosen = best_tokens(scores, self.queries) if chosen is None else chosen
        B, Q = chosen.shape
        anchors = gather(proposals, chosen)
        references = self.boxes(gather(tokens, chosen), anchors)
        content = gather(tokens, chosen).detach() if self.content is None else self.content.weight[None, :Q].expand(B, -1, -1)
        return Selection(
            content=content,
            references=references.detach(),
            scores=scores,
            tokens=chosen,
            anchors=anchors,
            output=LayerOutput(gather(logits, chosen), references.sigmoid()),
        )


def best_class(logits: Tensor) -> Tensor:
    """(..., K) -> (...)."""
    return logits.amax(-1)


_RULE = Rule(every_token_box=True, classes_again=True, last_refinement=False, masks=True)
FAMILY = Family(
    title="DINO",
    selection=lambda c: QuerySelection(c.width, c.queries, c.classes, c.learned_content, c.anchor_cells),
    token_scores=best_class,
    tokens_tell_classes=True,
    boxes_give_positions=True,
    look_forward_twice=True,
    denoising=True,
    eps=1e-3,
    published=Implementation("https://github.com/IDEA-Research/DINO", "arXiv 2203.03605", _RULE),
    published_lite=Implementation(
        "https://github.com/IDEA-Research/Lite-DETR", "arXiv 2303.07335", replace(_RULE, every_token_box=False)
    ),
)
