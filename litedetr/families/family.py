"""What there is to know about a detector family; each file here says it of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from litedetr.config import DetectorConfig


@dataclass(frozen=True)
class Rule:
    """What is counted where implementations differ.

    Attributes:
        every_token_box: the first stage predicts a box for every token, else for the chosen ones.
        classes_again: the chosen tokens' classes are predicted a second time.
        last_refinement: the last decoder layer, too, moves the references.
        query_key_products: q . k of the decoder's self-attention is counted (with an attention mask PyTorch adds it in one
            operation that the published counters do not know).
        masks: one operation per token for resampling the padding mask.
        plain_sampling: grid sampling of plain deformable attention.
    """

    every_token_box: bool = False
    classes_again: bool = False
    last_refinement: bool = True
    query_key_products: bool = True
    masks: bool = False
    plain_sampling: bool = False


@dataclass(frozen=True)
class Implementation:
    """The authors' own: its address, the paper, the licence of code and weights, and what it computes."""

    home: str
    paper: str
    rule: Rule
    licence: str = "Apache-2.0"


@dataclass(frozen=True)
class Family:
    """A kind of detector.

    Attributes:
        title: how it is called.
        selection: config -> the module that makes the decoder's queries: (memory, pyramid) -> `Selection`.
        token_scores: (..., K) class logits of tokens -> (...) the logit by which they are ranked.
        tokens_tell_classes: that is the logit of a class, and not of "an object".
        boxes_give_positions: query positions are made in every decoder layer, from the present boxes, and a norm follows the last
            layer (DAB-DETR).
        look_forward_twice: a layer's box loss reaches the layer before.
        denoising: in training, noisy copies of the labelled boxes are queries, too.
        eps: of the inverse sigmoid.
        published, published_lite: the authors' implementations, with the full encoder and with an interleaved one.
    """

    title: str
    selection: Callable[[DetectorConfig], nn.Module]
    token_scores: Callable[[Tensor], Tensor]
    tokens_tell_classes: bool
    boxes_give_positions: bool
    look_forward_twice: bool
    denoising: bool
    eps: float
    published: Implementation
    published_lite: Implementation

    def implementation(self, config: DetectorConfig) -> Implementation:
        """The one that a config's weights were published with."""
        return self.published if config.encoder_schedule.is_full else self.published_lite
