"""Is the morph a morph? Frames between held-out toy drawings, measured: python -m benchmarks.morph [--pairs N]

Prints a table, averages over the pairs. Perceptual distances are those of the factor network's features (no LPIPS:
its trunk cannot be bundled); the drawing error is the distance to the nearest genuine drawing, by fitting its factors.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.factor_network import FactorNetwork, feature_distances, load_factor_network
from benchmarks.fit_drawing import drawing_error
from benchmarks.held_out import held_out
from benchmarks.pictures import sheet
from benchmarks.runner import arguments, measured, table
from morph_core.lora.fit import LoraFit
from morph_core.recipes.image import PreparedImage, prepare_image
from morph_core.recipes.morph import Morph, morph_prepared
from morph_core.recipes.morph_settings import quick_morph
from morph_core.toy.drawing import Drawings
from morph_core.toy.model import IMAGE_SIZE, Network, ToyModel, load_toy_model

FRAMES = 9
LORA = LoraFit(steps=100, learning_rate=1e-3)
SLERP = Morph(frames=FRAMES, lora=None, attention=0, adain=False, reschedule=True)
WITH_LORA = replace(SLERP, lora=LORA, reschedule=False)
WITH_ATTENTION = replace(WITH_LORA, attention=0.6)
FULL = replace(WITH_ATTENTION, adain=True, reschedule=True)
EXACT = replace(FULL, exact_ends=True)
QUICK = quick_morph(FRAMES)


def cross_fade(start: Tensor, end: Tensor) -> Tensor:
    """(1, 3, H, W) twice to (FRAMES, 3, H, W)."""
    return torch.lerp(start, end, torch.linspace(0, 1, FRAMES)[:, None, None, None])


def prepared_pair(model: ToyModel, drawings: Drawings, pair: int) -> list[PreparedImage]:
    """Drawings 2·pair and 2·pair + 1, each with its LoRA."""
    places, images = (2 * pair, 2 * pair + 1), drawings.render(IMAGE_SIZE)
    return [prepare_image(model, images[i : i + 1], drawings.captions[i], LORA) for i in places]


def morphs(model: ToyModel, drawings: Drawings, pair: int) -> dict[str, Tensor]:
    """Method -> (FRAMES, 3, H, W) between drawings 2·pair and 2·pair + 1."""
    ends = prepared_pair(model, drawings, pair)
    bare = [replace(end, lora={}) for end in ends]
    slerp, full = morph_prepared(model, *bare, SLERP), morph_prepared(model, *ends, FULL)
    return {
        "cross-fade": cross_fade(*(model.decode_latents(end.latent) for end in ends)),  # from end to end as they are
        "latent slerp": slerp.first_pass.frames,
        "latent slerp, rescheduled": slerp.frames,
        "+ LoRA": morph_prepared(model, *ends, WITH_LORA).frames,
        "+ LoRA + attention": morph_prepared(model, *ends, WITH_ATTENTION).frames,
        "+ LoRA + attention + AdaIN": full.first_pass.frames,
        "full: + rescheduling": full.frames,
        "full, exact ends": morph_prepared(model, *ends, EXACT).frames,
        "quick": morph_prepared(model, *bare, QUICK).frames,
    }


def measure(network: FactorNetwork, frames: Tensor, ends: Tensor) -> Tensor:
    """Path length, variance of the steps (×1000), longest step over mean step, drawing error of the inner frames.

    And the greatest difference of the first and last frame from `ends`, the autoencoder's.
    """
    steps = feature_distances(network, frames[:-1], frames[1:])
    return torch.stack(
        [
            steps.sum(),
            1000 * steps.var(unbiased=False),
            steps.max() / steps.mean(),
            drawing_error(network, frames[1:-1]).mean(),
            (frames[[0, -1]] - ends).abs().max(),
        ]
    )


def measure_pair(kind: Network, pair: int, pairs: int, folder: Path | None) -> dict[str, Tensor]:
    """Method -> `measure` of one pair's frames."""
    network = load_factor_network()
    frames = morphs(load_toy_model(kind), held_out(2 * pairs, offset=2), pair)
    if folder:
        sheet(torch.cat(list(frames.values())), folder / f"pair_{pair:02}.png", columns=FRAMES)
    ends = frames["cross-fade"][[0, -1]]
    return {name: measure(network, shown, ends) for name, shown in frames.items()}


def exact_against_free(results: list[dict[str, Tensor]]) -> str:
    """What holding the ends to their inversions does to them and to the path."""
    free, exact = (
        torch.stack([result[name] for result in results]) for name in ("full: + rescheduling", "full, exact ends")
    )
    rougher = exact[:, 1] - free[:, 1]
    error = f", standard error {rougher.std() / len(rougher) ** 0.5:.1f}" if len(rougher) > 1 else ""
    return (
        f"Ends differ from the autoencoder's by up to {free[:, 4].max():.3f}, exact ones by {exact[:, 4].max():.0e}. "
        f"Variance of steps ×1000, exact less free: mean {rougher.mean():.1f}{error}, median "
        f"{rougher.quantile(0.5):.1f}."
    )


def main() -> None:
    given = arguments(__doc__, networks=True, pairs=16, pictures="each pair's frames, a row a method,")
    jobs = [partial(measure_pair, given.network, pair, given.pairs, given.pictures) for pair in range(given.pairs)]
    results = measured(jobs, given.workers)
    rows = []
    for name in results[0]:
        length, variance, longest, error, _ = torch.stack([result[name] for result in results]).mean(0).tolist()
        rows.append([name, f"{length:.2f}", f"{variance:.0f}", f"{longest:.2f}", f"{error:.4f}"])
    header = ["method", "path length", "variance of steps ×1000", "longest / mean step", "drawing error"]
    print(table(header, rows))
    print(exact_against_free(results))


if __name__ == "__main__":
    main()
