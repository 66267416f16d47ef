"""Training and measuring a detector: matching, denoising, losses, photos, the loop, COCO AP.

Needs the ``train`` extra (scipy, opencv, pycocotools, tqdm); nothing else in the package imports from here.
"""
