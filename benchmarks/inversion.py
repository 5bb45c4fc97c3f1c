"""Does an inversion lead back to its image? python -m benchmarks.inversion [--images N] [--pictures FOLDER]

Held-out toy drawings are inverted with their captions, 50 steps at guidance 1, and sampled back at guidance 1 and 7.5.
Prints medians of PSNR against the autoencoder's reconstruction, and seconds an image on one thread of this machine.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.toy_model import STEPS, held_out, psnr, sheet
from morph_core.denoise import Denoise, unet_denoiser
from morph_core.sampling import ddim
from morph_core.sampling.null_text import NullText, null_text_inversion
from morph_core.sampling.schedule import ddim_sigmas, sigmas_of
from morph_core.sampling.trajectory import Trajectory, put_back
from morph_core.toy.model import IMAGE_SIZE, ToyModel, load_toy_model

GUIDANCES = (1.0, 7.5)
ITERATIONS = (0, 1, 3, 5)
BATCH = 4  # images at a time
METHODS = (*("DDIM" if not n else f"fixed point, {n}" for n in ITERATIONS), "Null-text", "Direct")
HELD_OUT = 5  # offset among the held-out drawings


class Captioned:
    """The toy model with some drawings' captions."""

    def __init__(self, model: ToyModel, captions: tuple[str, ...]) -> None:
        self.unet, self.train_sigmas = model.unet, sigmas_of(model.train_alphas)
        self.sigmas = ddim_sigmas(self.train_sigmas, STEPS)
        self.empty = model.encode_text([""])
        self.told = self.with_text(model.encode_text(captions))

    def with_text(self, embedding: Tensor) -> Denoise:
        return unet_denoiser(self.unet, embedding, self.train_sigmas)

    def guided(self, guidance: float, untold: list[Tensor] | None = None) -> Denoise:
        """untold: an embedding a step in place of the empty prompt's."""
        if guidance == 1:
            return self.told
        step_of = {float(sigma): i for i, sigma in enumerate(self.sigmas)}

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            embedding = untold[step_of[float(sigma)]] if untold else self.empty
            return torch.lerp(self.with_text(embedding)(x, sigma), self.told(x, sigma), guidance)

        return denoise


def null_text(images: Captioned, way: Trajectory, guidance: float) -> list[Tensor]:
    """An embedding a step; at guidance 1 there is none to find."""
    if guidance == 1:
        return []
    config = NullText(guidance=guidance)
    return list(null_text_inversion(images.told, images.with_text, images.empty, way, config).embeddings)


def pinned(way: Trajectory, images: Captioned, guidance: float) -> Tensor:
    pins = {row: Trajectory(way.latents[:, row : row + 1], way.sigmas, way.residuals) for row in range(len(way.noise))}
    return ddim.sample(images.guided(guidance), way.noise, way.sigmas, adjust=lambda i, x: put_back(x, pins, i))


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What it returns, and the seconds it took."""
    start = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - start


def round_trips(images: Captioned, latents: Tensor) -> dict[tuple[str, float], tuple[Tensor, float]]:
    """(method, guidance) -> latents, and the seconds they took, inversion included."""
    ways = {n: timed(ddim.trace, images.told, latents, images.sigmas, None, n) for n in ITERATIONS}
    plain, inverting = ways[0]
    found = {}
    for guidance in GUIDANCES:
        for method, (way, seconds) in zip(METHODS, ways.values(), strict=False):
            back, more = timed(ddim.sample, images.guided(guidance), way.noise, way.sigmas)
            found[method, guidance] = back, seconds + more
        embeddings, optimising = timed(null_text, images, plain, guidance)
        back, more = timed(ddim.sample, images.guided(guidance, embeddings), plain.noise, plain.sigmas)
        found["Null-text", guidance] = back, inverting + optimising + more
        back, more = timed(pinned, plain, images, guidance)
        found["Direct", guidance] = back, inverting + more
    return found


@torch.no_grad()
def measure(first: int, count: int, pictures: Path | None) -> tuple[Tensor, Tensor]:
    """PSNR (methods, guidances, images) and seconds an image (methods, guidances), in a process of its own."""
    torch.set_num_threads(1)
    model, drawings = load_toy_model(), held_out(count, offset=HELD_OUT)
    chosen = slice(first, first + BATCH)
    latents = model.encode_images(drawings.render(IMAGE_SIZE)[chosen])
    restored = model.decode_latents(latents)
    found = round_trips(Captioned(model, drawings.captions[chosen]), latents)
    shown = {key: model.decode_latents(back) for key, (back, _) in found.items()}
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
        rows = [restored, *(shown[method, guidance] for guidance in GUIDANCES for method in METHODS)]
        sheet(torch.cat(rows), pictures / f"round_trips_{first:02}.png", columns=len(restored))
    values = [[psnr(shown[method, guidance], restored) for guidance in GUIDANCES] for method in METHODS]
    seconds = [[found[method, guidance][1] / len(latents) for guidance in GUIDANCES] for method in METHODS]
    return torch.stack([torch.stack(row) for row in values]), torch.tensor(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--pictures", type=Path, help="save the restored images and the round trips into this folder")
    given = parser.parse_args()
    firsts = range(0, given.images, BATCH)
    with ProcessPoolExecutor(given.workers) as pool:
        results = list(pool.map(measure, firsts, [given.images] * len(firsts), [given.pictures] * len(firsts)))
    values = torch.cat([values for values, _ in results], dim=2)
    seconds = torch.stack([seconds for _, seconds in results]).mean(0)
    print("| inversion | guidance 1 | guidance 7.5 | seconds an image | at guidance 7.5 |")
    print("|---|---|---|---|---|")
    for name, row, took in zip(METHODS, values.quantile(0.5, dim=2).tolist(), seconds.tolist(), strict=True):
        shown = [f"{value:.1f} dB" if value < 100 else "exact" for value in row]
        print(f"| {name} | {shown[0]} | {shown[1]} | {took[0]:.2f} | {took[1]:.2f} |")
    print(f"lowest of Direct: {values[METHODS.index('Direct')].min():.0f} dB")


if __name__ == "__main__":
    main()
