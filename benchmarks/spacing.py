"""How even can a morph be? Spacings beside the best there is: python -m benchmarks.spacing [--pairs N]

Each pair of held-out toy drawings is morphed in so many frames that the path itself is known, by the full method. Of
those frames nine are shown, placed by what a method knew of them; the best are found with the very distances that
measure, the factor network's, by a dynamic programme. The longest dense step is the part of the path that no spacing
can part.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.factor_network import FactorNetwork, feature_distances, load_factor_network
from benchmarks.held_out import held_out
from benchmarks.morph import FRAMES, FULL, prepared_pair
from benchmarks.runner import arguments, measured, table
from morph_core.morphing.alphas import Alphas, alpha_schedule, reschedule_alphas
from morph_core.morphing.even_frames import alphas_within, evenest, least_longest
from morph_core.morphing.perceptual import perceptual_distances, perceptual_distances_of_pairs
from morph_core.recipes.keyframe import keyframes_of
from morph_core.recipes.morph_frames import MorphFrames
from morph_core.recipes.search import searched_alphas
from morph_core.toy.model import Network, load_toy_model

DENSE = 65  # frames of the path itself


def measure_pair(kind: Network, pair: int, pairs: int, dense: int) -> tuple[dict[str, tuple[float, float]], float]:
    """Method -> variance of the steps and longest step over mean step; and the share of the longest dense step."""
    model, network = load_toy_model(kind), load_factor_network()
    config = replace(FULL, frames=FRAMES)
    start, end = keyframes_of(model, prepared_pair(model, held_out(2 * pairs, offset=7), pair), config)
    frames = MorphFrames(model, start, end, config)
    known = alpha_schedule(dense)
    path = pictures(frames, known)
    steps = feature_distances(network, path[:-1], path[1:])
    even = alpha_schedule(FRAMES)
    of_path = reschedule_alphas(known, perceptual_distances(path).tolist(), FRAMES)
    placed = {
        "even alphas": even,
        "one pass rescheduled, as published": reschedule_alphas(even, first_pass(frames), FRAMES),
        "long steps, and the most even of both passes": of_two_passes(frames),
        "search, as many frames": searched_alphas(frames, FRAMES, config.metric),
        "rescheduled from all dense frames": of_path,
    }
    found = {name: spread(network, pictures(frames, alphas)) for name, alphas in placed.items()}
    between = torch.stack([feature_distances(network, frame[None].expand_as(path), path) for frame in path])
    found["the best of all dense frames, longest step"] = spread(network, path[least_longest(between, FRAMES)])
    found["the best of all dense frames, variance"] = spread(network, path[evenest(between, FRAMES)])
    return found, (steps.max() / steps.sum()).item()


def pictures(frames: MorphFrames, alphas: Alphas) -> Tensor:
    """(F, 3, H, W)."""
    return torch.cat([frame.picture for frame in frames.at(alphas)])


def first_pass(frames: MorphFrames) -> list[float]:
    """The distances that the published rescheduling knows."""
    return perceptual_distances(pictures(frames, alpha_schedule(FRAMES))).tolist()  # type: ignore[no-any-return]


def of_two_passes(frames: MorphFrames) -> Alphas:
    """As Reschedule Alphas by long steps and Even Frames do."""
    even = alpha_schedule(FRAMES)
    both = tuple(sorted((*even, *alphas_within(even, first_pass(frames), FRAMES - 2))))
    return tuple(both[frame] for frame in evenest(perceptual_distances_of_pairs(pictures(frames, both)), FRAMES))


def spread(network: FactorNetwork, shown: Tensor) -> tuple[float, float]:
    """Variance of the steps (×1000) and longest step over mean step."""
    steps = feature_distances(network, shown[:-1], shown[1:])
    return 1000 * steps.var(unbiased=False).item(), (steps.max() / steps.mean()).item()


def main() -> None:
    given = arguments(__doc__, networks=True, pairs=12, dense=DENSE)
    jobs = [partial(measure_pair, given.network, pair, given.pairs, given.dense) for pair in range(given.pairs)]
    results, shares = zip(*measured(jobs, given.workers), strict=True)
    rows = []
    for name in results[0]:
        variance, longest = torch.tensor([result[name] for result in results]).mean(0).tolist()
        rows.append([name, f"{variance:.0f}", f"{longest:.2f}"])
    print(table(["nine frames", "variance of steps ×1000", "longest / mean step"], rows))
    share = torch.tensor(shares)
    print(f"The longest dense step is {share.median():.0%} of the path at the median, {share.max():.0%} at most.")


if __name__ == "__main__":
    main()
