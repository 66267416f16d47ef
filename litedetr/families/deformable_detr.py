"""Deformable DETR: learned queries (single-stage), or the best tokens' boxes turned into queries (two-stage)."""

from __future__ import annotations

from torch import Tensor, nn

from litedetr.config import DetectorConfig
from litedetr.families.family import Family, Implementation, Rule
from litedetr.families.heads import Classes
from litedetr.families.selection import Selection, TokenHeads, best_tokens, gather
from litedetr.output import LayerOutput
from litedetr.positions import coordinate_sine
from litedetr.pyramid import FeaturePyramid


class LearnedQueries(nn.Module):
    """Single-stage (section 4.1): contents, positions, and the points made from the positions, are the same for every photo.

    Args:
        width: d; queries: Q.
    """

    def __init__(self, width: int, queries: int):
        super().__init__()
        self.queries = nn.Embedding(queries, 2 * width)  # positions, then contents
        self.reference = nn.Linear(width, 2)
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)

    def forward(self, memory: Tensor, pyramid: FeaturePyramid) -> Selection:
        """(B, S, d) memory, of which only the batch size matters -> `Selection`."""
        B = memory.shape[0]
        positions, content = self.queries.weight[None].expand(B, -1, -1).chunk(2, dim=-1)  # (B, Q, d) each
        return Selection(content=content, references=self.reference(positions), positions=positions)


class ProposalSelection(TokenHeads):
    """Two-stage (appendix A.4): the tokens whose first class, "an object", is likeliest; positions and contents of the queries
    are made from their boxes.

    Args:
        width: d; queries: Q; classes: K.
        learned_content: contents are learned instead (mixed selection, as H-DETR has it).
    """

    def __init__(self, width: int, queries: int, classes: Classes, learned_content: bool = False):
        super().__init__(width, classes)
        self.queries = queries
        self.position = nn.Linear(2 * width, 2 * width)
        self.position_norm = nn.LayerNorm(2 * width)
        self.content = nn.Embedding(queries, width) if learned_content else None
        nn.init.xavier_uniform_(self.position.weight)

    def forward(self, memory: Tensor, pyramid: FeaturePyramid, chosen: Tensor | None = None) -> Selection:
        """(B, S, d) memory -> `Selection` of at most as many queries as there are tokens; `chosen` (B, Q): of these instead."""
        return self.select(memory, pyramid, self.queries, chosen)

    def select(self, memory: Tensor, pyramid: FeaturePyramid, queries: int, chosen: Tensor | None = None) -> Selection:
        """The best `queries` tokens, or those that are `chosen`."""
        d = memory.shape[-1]
        tokens, logits, proposals = self.candidates(memory, pyramid)
        scores = first_class(logits)
        chosen = best_tokens(scores, queries) if chosen is None else chosen
        B, Q = chosen.shape
        anchors = gather(proposals, chosen)
        boxes = self.box_head(gather(tokens, chosen)).to(anchors.dtype) + anchors
        references = boxes.detach()
        embedded = coordinate_sine(references.sigmoid(), d // 2).to(memory.dtype)  # (B, Q, 2 * d)
        positions, content = self.position_norm(self.position(embedded)).chunk(2, dim=-1)
        return Selection(
            content=content if self.content is None else self.content.weight[None, :Q].expand(B, -1, -1),
            references=references,
            positions=positions,
            scores=scores,
            tokens=chosen,
            anchors=anchors,
            output=LayerOutput(gather(logits, chosen), boxes.sigmoid()),
        )


def first_class(logits: Tensor) -> Tensor:
    """(..., K) -> (...): whether there is "an object"."""
    return logits[..., 0]


def _selection(c: DetectorConfig) -> nn.Module:
    if c.two_stage:
        return ProposalSelection(c.width, c.queries, c.classes, c.learned_content)
    return LearnedQueries(c.width, c.queries)


_AUTHORS = Implementation(
    "https://github.com/fundamentalvision/Deformable-DETR", "arXiv 2010.04159", Rule(every_token_box=True, masks=True)
)
FAMILY = Family(
    title="Deformable DETR",
    selection=_selection,
    token_scores=first_class,
    tokens_tell_classes=False,
    boxes_give_positions=False,
    look_forward_twice=False,
    denoising=False,
    eps=1e-5,
    published=_AUTHORS,
    published_lite=_AUTHORS,
)
