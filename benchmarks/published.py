"""What two choices of the published code change: python -m benchmarks.published [--images N] [--pairs N]

Held-out toy drawings. The last alpha: inverted and sampled back with either. The LoRA blend: morphed with either, once
with LoRAs fitted from one seed, as both codes do, and once from two. Prints two tables.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.factor_network import load_factor_network
from benchmarks.fit_drawing import drawing_error
from benchmarks.held_out import held_out
from benchmarks.morph import LORA
from benchmarks.pictures import decibels, psnr
from benchmarks.runner import arguments, measured, table
from morph_core.lora.blend import BLENDS
from morph_core.recipes.image import prepare_image
from morph_core.recipes.morph import Morph, morph_prepared
from morph_core.sampling import ddim
from morph_core.sampling.schedule import ddim_sigmas
from morph_core.toy.model import IMAGE_SIZE, load_toy_model

STEPS = 50
LAST_ALPHAS = {"1": True, "ᾱ_0": False}
MORPH = Morph(frames=5, reschedule=False)  # so that both blends are seen at the same alphas
SEEDS = ("one", "two")  # of the two fits
HELD_OUT = 6  # offset among the held-out drawings


@torch.no_grad()
def round_trips(images: int) -> tuple[Tensor, Tensor]:
    """PSNR of the round trip (last alphas, images), and the noises' root mean square difference (images,)."""
    model, drawings = load_toy_model(), held_out(images, offset=HELD_OUT)
    latents = model.encode_images(drawings.render(IMAGE_SIZE))
    restored = model.decode_latents(latents)
    denoise, schedule = model.backbone.denoiser(model.encode_text(drawings.captions)), model.backbone.schedule
    noises, found = [], []
    for set_alpha_to_one in LAST_ALPHAS.values():
        sigmas = ddim_sigmas(schedule.sigmas, STEPS, set_alpha_to_one)
        scale = schedule.scale(sigmas[-1])
        noise = ddim.invert(denoise, latents * scale, sigmas, schedule)
        back = ddim.sample(denoise, noise, sigmas) / scale
        noises.append(noise / schedule.scale(sigmas[0]))
        found.append(psnr(model.decode_latents(back), restored))
    return torch.stack(found), (noises[0] - noises[1]).square().flatten(1).mean(1).sqrt()


def blends(pair: int, pairs: int) -> dict[tuple[str, str], Tensor]:
    """(seeds, blend) -> drawing error of the inner frames, and their difference from "delta", root mean square."""
    model, network, drawings = load_toy_model(), load_factor_network(), held_out(2 * pairs, offset=HELD_OUT)
    places = [2 * pair, 2 * pair + 1]
    images = [drawings.render(IMAGE_SIZE)[i : i + 1] for i in places]
    start, *ends = (
        prepare_image(model, images[end], drawings.captions[places[end]], replace(LORA, seed=seed))
        for end, seed in ((0, 0), (1, 0), (1, 1))
    )
    found = {}
    for name, end in zip(SEEDS, ends, strict=True):
        configs = [replace(MORPH, lora_blend=blend) for blend in BLENDS]
        frames = [morph_prepared(model, start, end, config).frames[1:-1] for config in configs]
        for blend, shown in zip(BLENDS, frames, strict=True):
            difference = (shown - frames[0]).square().flatten(1).mean(1).sqrt().mean()
            found[name, blend] = torch.stack([drawing_error(network, shown).mean(), difference])
    return found


def main() -> None:
    given = arguments(__doc__, images=16, pairs=4)
    jobs = [partial(round_trips, given.images), *(partial(blends, pair, given.pairs) for pair in range(given.pairs))]
    (values, difference), *results = measured(jobs, given.workers)
    medians = [decibels(row.quantile(0.5).item(), digits=2) for row in values]
    print(table(["last alpha", "inverted and sampled back, median"], zip(LAST_ALPHAS, medians, strict=True)))
    print(f"The two noises, of deviation 1, differ by {difference.mean():.3f} root mean square.\n")
    rows = []
    for seeds, blend in results[0]:
        error, difference = torch.stack([result[seeds, blend] for result in results]).mean(0).tolist()
        rows.append([seeds, blend, f"{error:.4f}", f"{difference:.4f}"])
    print(table(["seeds of the two LoRAs", "blend", "drawing error", "differs from delta by"], rows))


if __name__ == "__main__":
    main()
