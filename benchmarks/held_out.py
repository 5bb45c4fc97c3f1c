"""Drawings that no training saw."""

import torch

from morph_core.toy.drawing import Drawings, sample_drawings

HELD_OUT_SEED = 10**9  # the training's seeds stay far below it


def held_out(count: int, offset: int = 0) -> Drawings:
    """The same for the same count and offset."""
    return sample_drawings(count, torch.Generator().manual_seed(HELD_OUT_SEED + offset))
