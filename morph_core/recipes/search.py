"""Even frames by search: no more are sampled than two passes have, and the most even of them are shown."""

import torch

from ..morphing.alphas import Alphas, alpha_schedule
from ..morphing.even_frames import alphas_between, evenest
from ..morphing.perceptual import perceptual_distances, perceptual_distances_of_pairs
from .morph_frames import MorphFrames

ROUNDS = 4  # about so many passes of few frames; more find a jump more exactly, and fill a batch less


def searched_alphas(frames: MorphFrames, count: int, metric: str) -> Alphas:
    """The alphas of `count` frames whose steps vary least, of 2·count − 2 that are sampled for it."""
    alphas = alpha_schedule(count)
    room = count - 2
    while room:
        distances = perceptual_distances(_pictures(frames, alphas), metric).tolist()
        found = alphas_between(alphas, distances, min(room, -(-count // ROUNDS)))
        if not found:
            break
        alphas, room = tuple(sorted((*alphas, *found))), room - len(found)
    pairs = perceptual_distances_of_pairs(_pictures(frames, alphas), metric)
    return tuple(alphas[frame] for frame in evenest(pairs, count))


def _pictures(frames: MorphFrames, alphas: Alphas) -> torch.Tensor:
    return torch.cat([frame.picture for frame in frames.at(alphas)])
