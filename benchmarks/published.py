"""What two choices of the published code change: python -m benchmarks.published [--images N] [--pairs N]

Held-out toy drawings. The last alpha: inverted and sampled back with either. The LoRA blend: morphed with either, once
with LoRAs fitted from one seed, as both codes do, and once from two. Prints two tables.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.factor_network import load_factor_network
from benchmarks.fit_drawing import drawing_error
from benchmarks.morph import LORA
from benchmarks.toy_model import STEPS, held_out, psnr
from morph_core.denoise import unet_denoiser
from morph_core.lora.blend import BLENDS
from morph_core.recipes.morph import Morph, morph_ends, prepare_end
from morph_core.sampling import ddim
from morph_core.sampling.schedule import ddim_sigmas, latent_scale, sigmas_of
from morph_core.toy.model import IMAGE_SIZE, load_toy_model

LAST_ALPHAS = {"1": True, "ᾱ_0": False}
MORPH = Morph(frames=5, reschedule=False)  # so that both blends are seen at the same alphas
SEEDS = ("one", "two")  # of the two fits
HELD_OUT = 6  # offset among the held-out drawings


@torch.no_grad()
def round_trips(images: int) -> tuple[Tensor, Tensor]:
    """PSNR of the round trip (last alphas, images), and the noises' root mean square difference (images,).

    In a process of its own, as `blends`.
    """
    torch.set_num_threads(1)
    model, drawings = load_toy_model(), held_out(images, offset=HELD_OUT)
    latents = model.encode_images(drawings.render(IMAGE_SIZE))
    restored = model.decode_latents(latents)
    train_sigmas = sigmas_of(model.train_alphas)
    denoise = unet_denoiser(model.unet, model.encode_text(drawings.captions), train_sigmas)
    noises, found = [], []
    for set_alpha_to_one in LAST_ALPHAS.values():
        sigmas = ddim_sigmas(train_sigmas, STEPS, set_alpha_to_one)
        noise = ddim.invert(denoise, latents * latent_scale(sigmas[-1]), sigmas)
        back = ddim.sample(denoise, noise, sigmas) / latent_scale(sigmas[-1])
        noises.append(noise / latent_scale(sigmas[0]))
        found.append(psnr(model.decode_latents(back), restored))
    return torch.stack(found), (noises[0] - noises[1]).square().flatten(1).mean(1).sqrt()


def blends(pair: int, pairs: int) -> dict[tuple[str, str], Tensor]:
    """(seeds, blend) -> drawing error of the inner frames, and their difference from "delta", root mean square."""
    torch.set_num_threads(1)
    model, network, drawings = load_toy_model(), load_factor_network(), held_out(2 * pairs, offset=HELD_OUT)
    places = [2 * pair, 2 * pair + 1]
    images = [drawings.render(IMAGE_SIZE)[i : i + 1] for i in places]
    start, *ends = (
        prepare_end(model, images[end], drawings.captions[places[end]], replace(LORA, seed=seed))
        for end, seed in ((0, 0), (1, 0), (1, 1))
    )
    found = {}
    for name, end in zip(SEEDS, ends, strict=True):
        frames = [morph_ends(model, start, end, replace(MORPH, lora_blend=blend)).frames[1:-1] for blend in BLENDS]
        for blend, shown in zip(BLENDS, frames, strict=True):
            difference = (shown - frames[0]).square().flatten(1).mean(1).sqrt().mean()
            found[name, blend] = torch.stack([drawing_error(network, shown).mean(), difference])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    given = parser.parse_args()

    with ProcessPoolExecutor(given.workers) as pool:
        ways = pool.submit(round_trips, given.images)
        results = list(pool.map(blends, range(given.pairs), [given.pairs] * given.pairs))
    values, difference = ways.result()
    print("| last alpha | inverted and sampled back, median |")
    print("|---|---|")
    for name, row in zip(LAST_ALPHAS, values, strict=True):
        print(f"| {name} | {row.quantile(0.5):.2f} dB |")
    print(f"The two noises, of deviation 1, differ by {difference.mean():.3f} root mean square.\n")

    print("| seeds of the two LoRAs | blend | drawing error | differs from delta by |")
    print("|---|---|---|---|")
    for seeds, blend in results[0]:
        error, difference = torch.stack([result[seeds, blend] for result in results]).mean(0).tolist()
        print(f"| {seeds} | {blend} | {error:.4f} | {difference:.4f} |")


if __name__ == "__main__":
    main()
