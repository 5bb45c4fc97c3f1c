"""How good the bundled toy model is: python -m benchmarks.toy_model [--images N] [--samples N] [--pictures FOLDER]

Held-out drawings through the autoencoder, and inverted and sampled back. Samples, and for comparison the drawings of
their captions, as the factor network reads them.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.factor_network import load_factor_network, read_colours
from benchmarks.held_out import held_out
from benchmarks.pictures import decibels, psnr, sheet
from benchmarks.runner import arguments, measured, table
from morph_core.sampling import ddim
from morph_core.sampling.guidance import guided_denoiser
from morph_core.toy.drawing import KINDS
from morph_core.toy.model import IMAGE_SIZE, Network, load_toy_model

STEPS = 50
GUIDANCE = 2.5
LATENT = (4, IMAGE_SIZE // 4, IMAGE_SIZE // 4)
COLUMNS = 16  # of the pictures saved


@torch.no_grad()
def round_trips(network: Network, images: int, folder: Path | None) -> list[list[str]]:
    """Table rows: the autoencoder against the drawings, inversion and back against the autoencoder."""
    model, drawings = load_toy_model(network), held_out(images)
    pictures, schedule = drawings.render(IMAGE_SIZE), model.backbone.schedule
    latents = model.encode_images(pictures)
    restored = model.decode_latents(latents)
    denoise = model.backbone.denoiser(model.encode_text(drawings.captions))
    sigmas = schedule.spaced(STEPS)
    noise = ddim.invert(denoise, latents, sigmas, schedule)
    back = model.decode_latents(ddim.sample(denoise, noise, sigmas))
    if folder:
        shown = [some[:COLUMNS] for some in (pictures, restored, back)]
        sheet(torch.cat(shown), folder / "round_trip.png", columns=len(shown[0]))
    return [
        [f"autoencoder, {images} held-out drawings", median_and_lowest(psnr(restored, pictures))],
        [f"inversion and back, {STEPS} steps", median_and_lowest(psnr(back, restored))],
    ]


def median_and_lowest(values: Tensor) -> str:
    return f"median {decibels(values.quantile(0.5).item())}, lowest {decibels(values.min().item())}"


@torch.no_grad()
def samples(network: Network, count: int, folder: Path | None) -> list[list[str]]:
    """Table rows: how many samples, and how many drawings, read as their captions say."""
    model, drawings = load_toy_model(network), held_out(count, offset=1)
    pictures, schedule = drawings.render(IMAGE_SIZE), model.backbone.schedule
    texts = [model.encode_text(captions) for captions in ([""], drawings.captions)]
    denoise = guided_denoiser(*map(model.backbone.denoiser, texts), GUIDANCE)
    sigmas = schedule.spaced(STEPS)
    noise = torch.randn(count, *LATENT, generator=torch.Generator().manual_seed(0)) * schedule.scale(sigmas[0])
    made = model.decode_latents(ddim.sample(denoise, noise, sigmas))
    if folder:
        sheet(made[: 4 * COLUMNS], folder / "samples.png", columns=min(count, COLUMNS))
    return [
        [f"{count} samples at guidance {GUIDANCE}", read_right(made, drawings.captions)],
        [f"{count} drawings themselves", read_right(pictures, drawings.captions)],
    ]


def read_right(pictures: Tensor, captions: Sequence[str]) -> str:
    """In how many the factor network reads what the caption says."""
    logits, factors = load_factor_network()(pictures)
    shares = []
    for words in ([KINDS[i] for i in logits.argmax(1).tolist()], read_colours(factors)):
        right = sum(word in caption.split() for word, caption in zip(words, captions, strict=True))
        shares.append(right / len(captions))
    return f"animal right {shares[0]:.0%}, colour right {shares[1]:.0%}"


def main() -> None:
    given = arguments(__doc__, networks=True, images=32, samples=128, pictures="what was made")
    counts = ((round_trips, given.images), (samples, given.samples))
    jobs = [partial(work, given.network, count, given.pictures) for work, count in counts]
    print(table(["measure", "reached"], [row for rows in measured(jobs, given.workers) for row in rows]))


if __name__ == "__main__":
    main()
