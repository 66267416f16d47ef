"""Names of the published implementations (Lite-DINO, DINO, Deformable DETR, H-DETR) -> this project's names."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from litedetr.backbones.swin import relative_position_index
from litedetr.config import DetectorConfig
from litedetr.meta import OnMeta
from litedetr.network import Network
from litedetr.weights.conversion.checkpoint import Checkpoint
from litedetr.weights.conversion.infer import Known, infer_config
from litedetr.weights.errors import WeightsError, check_state, why

log = logging.getLogger(__name__)
LABEL_BOOK = "label_embed.weight"
_TRAINING_ALONE = re.compile(
    r"^(criterion|loss|matcher|optimi[sz]er|teacher|ema|model_ema|aux(iliary)?_heads?|dense_head|mask_head|bbox_attention|dn_\w+|"
    r"one2many_\w+|o2m_\w+|(class|bbox)_embed_(one2many|o2m|aux))\."
)
"""Losses, auxiliary and one-to-many heads, masks, doubles, as training tools name them."""
# First match wins.
_ENCODER_LAYER = (
    (r"^self_attn\.", "attention."),
    (r"^norm1\.", "norm."),
    (r"^linear1\.", "ffn.linear1."),
    (r"^linear2\.", "ffn.linear2."),
    (r"^norm2\.", "ffn.norm."),
    (r"^linear12\.", "low_ffn.linear1."),
    (r"^linear22\.", "low_ffn.linear2."),
    (r"^norm22\.", "low_ffn.norm."),
)
_DECODER_LAYER = (
    (r"^self_attn\.", "self_attention."),
    (r"^cross_attn\.", "attention."),
    (r"^norm1\.", "norm."),
    (r"^norm2\.", "self_norm."),
    (r"^norm3\.", "ffn.norm."),
    (r"^linear1\.", "ffn.linear1."),
    (r"^linear2\.", "ffn.linear2."),
)
_TOP = (
    (r"^backbone\.0\.(?:body\.)?", "backbone."),
    (r"^input_proj\.", "neck.projections."),
    (r"^transformer\.level_embed$", "neck.level_embed"),
    (r"^transformer\.enc_output\.", "selection.project."),
    (r"^transformer\.enc_output_norm\.", "selection.norm."),
    (r"^transformer\.enc_out_class_embed\.", "selection.class_head."),
    (r"^transformer\.enc_out_bbox_embed\.", "selection.box_head."),
    (r"^transformer\.tgt_embed\.", "selection.content."),
    (r"^transformer\.pos_trans\.", "selection.position."),
    (r"^transformer\.pos_trans_norm\.", "selection.position_norm."),
    (r"^transformer\.reference_points\.", "selection.reference."),
    (r"^transformer\.decoder\.norm\.", "decoder.norm."),
    (r"^transformer\.decoder\.ref_point_head\.", "decoder.reference_head."),
    (r"^(?:transformer\.decoder\.)?class_embed\.", "heads.classes."),
    (r"^(?:transformer\.decoder\.)?bbox_embed\.", "heads.boxes."),
    (r"^label_enc\.", "label_embed."),
)


def reference_name(name: str) -> str:
    """Name in a published state dict -> name here, as far as one name tells."""
    layer = re.match(r"^transformer\.(encoder|decoder)\.layers\.(\d+)\.(.*)$", name)
    if layer:
        stack, index, rest = layer.groups()
        inner = _rename(rest, _ENCODER_LAYER if stack == "encoder" else _DECODER_LAYER)
        return f"{stack}.layers.{index}.{inner}"
    return _rename(name, _TOP)


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def convert_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a published state dict for a model whose own state dict is `expected`.

    Every key is accounted for: aliases of one tensor must be equal and become one; what takes no part in the computation is
    dropped (the ``query_proj`` of the published plain attention, counters of frozen batch norms), and so are tables that
    follow from the window size (Swin's ``relative_position_index``), if they hold what they must. What only training uses is
    dropped or cut with a line in the log: losses, auxiliary heads, doubles, denoising label books of any size.

    Raises:
        WeightsError: two aliases differ, or a key is left over, missing or misshaped.
    """
    training = [name for name in state if _TRAINING_ALONE.match(name)]
    if training:
        log.warning("%d weights that only training uses are left out (%s)", len(training), ", ".join(training[:3]))
        state = {name: value for name, value in state.items() if name not in training}
    first_stage = _first_stage_head(state, expected)
    single_stage = "transformer.reference_points.weight" in state
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        target = reference_name(name)
        head = re.match(r"^heads\.(classes|boxes)\.(\d+)\.(.*)$", target)
        if head and int(head[2]) == first_stage:
            target = f"selection.{'class_head' if head[1] == 'classes' else 'box_head'}.{head[3]}"
        elif head and target not in expected:
            target = f"heads.{head[1]}.0.{head[3]}"
        elif name == "query_embed.weight":
            target = "selection.queries.weight" if single_stage else "selection.content.weight"
        elif _takes_no_part(name, value, target, expected):
            continue
        if target in converted and not torch.equal(converted[target], value):
            raise WeightsError(
                f"expected {name} to equal its other copies (heads shared by all decoder layers), and it does not: "
                "build the model with shared_heads=False"
            )
        converted[target] = value
    if (wanted := expected.get(LABEL_BOOK)) is not None:
        converted[LABEL_BOOK] = _label_book(converted.get(LABEL_BOOK), wanted)
    check_state(dict(expected), converted)
    return converted


def _label_book(book: Tensor | None, wanted: Tensor) -> Tensor:
    """The contents of denoising queries, (K + 1, d): the first rows of a larger book; zeros where a smaller one, or none, ends.

    Fine-tuned checkpoints keep the book of the classes that they began with. Detecting never reads it.
    """
    if book is not None and (book.shape == wanted.shape or book.ndim != 2 or book.shape[1] != wanted.shape[1]):
        return book
    rows = 0 if book is None else min(len(book), len(wanted))
    log.warning("denoising label book: %d of %d rows are taken (training alone uses it)", rows, len(wanted))
    made = torch.zeros(wanted.shape)
    if book is not None:
        made[:rows] = book[:rows]
    return made


def _first_stage_head(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int | None:
    """Two-stage Deformable DETR and H-DETR keep the encoder's heads behind the decoder's: their index there.

    Raises:
        WeightsError: a layer's head is missing (its copies in other layers must not stand in for it).
    """
    layers = len({name.split(".")[2] for name in expected if name.startswith("decoder.layers.")})
    two_stage = "transformer.pos_trans.weight" in state
    wanted = set(range(layers + two_stage))
    for kind in ("class_embed", "bbox_embed"):
        pattern = re.compile(rf"^(?:transformer\.decoder\.)?{kind}\.(\d+)\.")
        found = {int(match[1]) for name in state if (match := pattern.match(name))}
        if found != wanted:
            raise WeightsError(
                f"expected {kind}.0 to {kind}.{max(wanted)}, one head for each of {layers} decoder layers"
                f"{' and one for the encoder' if two_stage else ''}, got {', '.join(map(str, sorted(found))) or 'none'}: "
                "the checkpoint is incomplete"
            )
    return layers if two_stage else None


def _takes_no_part(name: str, value: Tensor, target: str, expected: Mapping[str, Tensor]) -> bool:
    if name.endswith(".relative_position_index"):
        window = round(value.shape[0] ** 0.5)
        if not torch.equal(value, relative_position_index(window)):
            raise WeightsError(f"expected {name} to number the pairs of places in a {window} x {window} window, and it does not")
        return True
    return name.endswith(".num_batches_tracked") or (".attention.query_proj." in target and target not in expected)


def from_checkpoint(
    checkpoint: Checkpoint, schedule: str | None = None, heads: int | None = None
) -> tuple[DetectorConfig, dict[str, Tensor]]:
    """Config and state dict of the detector that a checkpoint holds; every key and shape is accounted for.

    Args:
        schedule, heads: what the checkpoint does not tell.

    Raises:
        WeightsError: it is no model of a known family, or not a whole one.
    """
    try:
        config = infer_config(checkpoint.state, Known(checkpoint.args, checkpoint.name, schedule, heads))
        with OnMeta():
            expected = Network(config).state_dict()
    except WeightsError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        raise WeightsError(
            f"expected the weights of a whole model in {checkpoint.origin}, got some that are missing or of shapes that fit none "
            f"({type(error).__name__}: {why(error)}): use the file as it was published"
        ) from error
    return config, {key: value.to(expected[key].dtype) for key, value in convert_state(checkpoint.state, expected).items()}
