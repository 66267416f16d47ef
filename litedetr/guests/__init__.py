"""Other people's deformable DETRs: watched, and run on this project's kernels, as they are.

    with litedetr.watch(model) as trace:
        model(**inputs)

    litedetr.accelerate(model)

Every model of `transformers` with deformable attention is known, and every one that is built of the published modules
(Deformable DETR's `MSDeformAttn`, mmcv's and detrex's `MultiScaleDeformableAttention`). Nothing of these is imported here: a
module is known by the function that it calls, see `litedetr.guests.calls`.
"""
