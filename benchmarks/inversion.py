"""Does an inversion lead back to its image? python -m benchmarks.inversion [--images N] [--steps N] [--pictures FOLDER]

Held-out toy drawings are inverted with their captions at guidance 1, and sampled back at guidance 1 and 7.5. Prints
medians of PSNR against the autoencoder's reconstruction, seconds an image on one thread of this machine, and each
method's lowest PSNR at guidance 1.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.held_out import held_out
from benchmarks.pictures import decibels, psnr, sheet
from benchmarks.runner import arguments, measured, table
from morph_core.denoise import Denoise
from morph_core.sampling import ddim
from morph_core.sampling.direct_inversion import DirectInversion
from morph_core.sampling.guidance import guided_denoiser
from morph_core.sampling.null_text import NullText, null_text_denoiser, null_text_inversion
from morph_core.sampling.trajectory import Trajectory
from morph_core.toy.model import IMAGE_SIZE, Network, ToyModel, load_toy_model

GUIDANCES = (1.0, 7.5)
BATCH = 4  # images at a time
INVERSIONS: dict[str, dict[str, Any]] = {  # how `ddim.trace` is called
    "DDIM": {},
    "warm start": {"warm_start": True},
    "fixed point, 1": {"iterations": 1},
    "fixed point, 1, warm start": {"iterations": 1, "warm_start": True},
    "fixed point, 3": {"iterations": 3},
    "fixed point, 5": {"iterations": 5},
}
METHODS = (*INVERSIONS, "Null-text", "Direct")
HELD_OUT = 5  # offset among the held-out drawings


class Captioned:
    """The toy model with some drawings' captions: their trajectories, and sampling back from their noise."""

    def __init__(self, model: ToyModel, captions: Sequence[str], steps: int) -> None:
        self._backbone = model.backbone
        self._empty = model.encode_text([""])
        self._conditional = self._backbone.denoiser(model.encode_text(captions))
        self._sigmas = self._backbone.schedule.spaced(steps)

    def trajectory(self, latents: Tensor, settings: dict[str, Any]) -> Trajectory:
        return ddim.trace(self._conditional, latents, self._sigmas, self._backbone.schedule, **settings)

    def sampled(self, trajectory: Trajectory, guidance: float) -> Tensor:
        return self._sampled(trajectory, guidance, self._backbone.denoiser(self._empty))

    def by_null_text(self, trajectory: Trajectory, guidance: float) -> Tensor:
        """At guidance 1 there is no embedding to optimise."""
        if guidance == 1:
            return self.sampled(trajectory, guidance)
        config = NullText(guidance=guidance)
        empty = self._empty.context
        result = null_text_inversion(self._conditional, self._unconditional, empty, trajectory, config)
        denoise = null_text_denoiser(self._unconditional, result.embeddings, self._sigmas)
        return self._sampled(trajectory, guidance, denoise)

    def by_direct_inversion(self, trajectory: Trajectory, guidance: float) -> Tensor:
        rows = range(trajectory.noise.shape[0])
        pinned = {row: replace(trajectory, latents=trajectory.latents[:, row : row + 1]) for row in rows}
        return self._sampled(trajectory, guidance, self._backbone.denoiser(self._empty), [DirectInversion(pinned)])

    def _unconditional(self, context: Tensor) -> Denoise:
        return self._backbone.denoiser(replace(self._empty, context=context))

    def _sampled(
        self,
        trajectory: Trajectory,
        guidance: float,
        unconditional: Denoise,
        corrections: Sequence[ddim.Correction] = (),
    ) -> Tensor:
        denoise = guided_denoiser(unconditional, self._conditional, guidance)
        return ddim.sample(denoise, trajectory.noise, self._sigmas, corrections=corrections)


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What it returns, and the seconds it took."""
    start = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - start


def round_trips(images: Captioned, latents: Tensor) -> dict[tuple[str, float], tuple[Tensor, float]]:
    """(method, guidance) -> latents, and the seconds they took, inversion included."""
    trajectories = [timed(images.trajectory, latents, settings) for settings in INVERSIONS.values()]
    ways_back = [(*inversion, images.sampled) for inversion in trajectories]
    ways_back += [(*trajectories[0], sampled) for sampled in (images.by_null_text, images.by_direct_inversion)]
    trips = {}
    for method, (trajectory, inverting, back) in zip(METHODS, ways_back, strict=True):
        for guidance in GUIDANCES:
            latent, sampling = timed(back, trajectory, guidance)
            trips[method, guidance] = latent, inverting + sampling
    return trips


@torch.no_grad()
def measure(network: Network, first: int, count: int, steps: int, folder: Path | None) -> tuple[Tensor, Tensor]:
    """PSNR (methods, guidances, images) and seconds an image (methods, guidances)."""
    model, drawings = load_toy_model(network), held_out(count, offset=HELD_OUT)
    chosen = slice(first, first + BATCH)
    latents = model.encode_images(drawings.render(IMAGE_SIZE)[chosen])
    restored = model.decode_latents(latents)
    trips = round_trips(Captioned(model, drawings.captions[chosen], steps), latents)
    shown = {key: model.decode_latents(back) for key, (back, _) in trips.items()}
    if folder:
        rows = [restored, *(shown[method, guidance] for guidance in GUIDANCES for method in METHODS)]
        sheet(torch.cat(rows), folder / f"round_trips_{first:02}.png", columns=len(restored))
    values = [[psnr(shown[method, guidance], restored) for guidance in GUIDANCES] for method in METHODS]
    seconds = [[trips[method, guidance][1] / len(latents) for guidance in GUIDANCES] for method in METHODS]
    return torch.stack([torch.stack(row) for row in values]), torch.tensor(seconds)


def main() -> None:
    given = arguments(__doc__, networks=True, images=32, steps=50, pictures="the restored images and the round trips")
    jobs = [
        partial(measure, given.network, first, given.images, given.steps, given.pictures)
        for first in range(0, given.images, BATCH)
    ]
    results = measured(jobs, given.workers)
    values = torch.cat([values for values, _ in results], dim=2)
    medians = values.quantile(0.5, dim=2).tolist()
    seconds = torch.stack([seconds for _, seconds in results]).mean(0).tolist()
    rows = [
        [method, *map(decibels, reached), *(f"{took:.2f}" for took in taken)]
        for method, reached, taken in zip(METHODS, medians, seconds, strict=True)
    ]
    print(table(["inversion", "guidance 1", "guidance 7.5", "seconds an image", "at guidance 7.5"], rows))
    lowest = zip(METHODS, values[:, 0].amin(1).tolist(), strict=True)
    print("lowest at guidance 1:", "; ".join(f"{method} {decibels(least)}" for method, least in lowest))
    print(f"lowest of Direct at any: {decibels(values[METHODS.index('Direct')].min().item())}")


if __name__ == "__main__":
    main()
