"""How many updates does a LoRA need? python -m benchmarks.lora_fit [--images N] [--updates N] [--network NETWORK]

LoRAs are fitted to held-out toy drawings at the rates of `RATES`, and looked at after 0, 8, 16, 32, ... updates. Work
is how many rows the network computed forwards and backwards, one an update. Prints means: the loss, in relation to that
without a LoRA, at noise levels and with noises that are the same for all and in no training; and PSNR of the drawing
inverted and sampled back, with LoRA and caption, against the autoencoder's reconstruction.
"""

from functools import partial

import torch
from torch import Tensor

from benchmarks.held_out import held_out
from benchmarks.pictures import decibels, psnr
from benchmarks.runner import arguments, measured, table
from morph_core.lora.fit import LoraFit, fit_lora
from morph_core.models.backbone import EditableBackbone
from morph_core.models.text import Text
from morph_core.sampling import ddim
from morph_core.toy.model import IMAGE_SIZE, Network, load_toy_model

RATES = {2e-4: "DiffMorpher's", 5e-4: "DragDiffusion's", 1e-3: "the other benchmarks'", 3e-3: ""}
LOOKS = (0, 8, 16, 32, 50, 100, 200)  # after how many updates
STEPS = 50  # of an inversion
LEVELS, NOISES = 16, 4  # of the loss
HELD_OUT = 7  # offset among the held-out drawings


@torch.no_grad()
def loss(backbone: EditableBackbone, latent: Tensor, text: Text) -> float:
    """The network's mean square error, at evenly spaced training timesteps and with fixed noises."""
    schedule, denoise = backbone.schedule, backbone.denoiser(text)
    noises = torch.randn((NOISES, *latent.shape[1:]), generator=torch.Generator().manual_seed(HELD_OUT))
    apart = len(schedule.sigmas) // LEVELS
    errors = [
        (denoise(schedule.noised(latent, noises, sigma), sigma) - latent) * schedule.error_scale(sigma)
        for sigma in schedule.sigmas[apart // 2 :: apart]
    ]
    return torch.stack(errors).square().mean().item()


@torch.no_grad()
def sampled_back(backbone: EditableBackbone, latent: Tensor, text: Text) -> Tensor:
    """What a latent's inversion is sampled to."""
    denoise, sigmas = backbone.denoiser(text), backbone.schedule.spaced(STEPS)
    return ddim.sample(denoise, ddim.invert(denoise, latent, sigmas, backbone.schedule), sigmas)


def looks_for(updates: int) -> list[int]:
    return [look for look in LOOKS if look <= updates]


def measure(network: Network, rate: float, image: int, images: int, updates: int) -> Tensor:
    """(looks, 2): the loss in relation to that without a LoRA, and the round trip's PSNR."""
    model, drawings = load_toy_model(network), held_out(images, offset=HELD_OUT)
    latent = model.encode_images(drawings.render(IMAGE_SIZE)[image : image + 1])
    text, backbone = model.encode_text(drawings.captions[image : image + 1]), model.backbone
    restored = model.decode_latents(latent)
    found = []

    def look(step: int, total: int) -> None:
        """The network has its LoRA beside it while it is fitted."""
        if step in LOOKS:
            back = model.decode_latents(sampled_back(backbone, latent, text))
            found.append([loss(backbone, latent, text), psnr(back, restored).item()])

    look(0, updates)
    fit_lora(backbone, latent, text, LoraFit(steps=updates, learning_rate=rate), look)
    values = torch.tensor(found)
    values[:, 0] /= values[0, 0].clone()
    return values


def main() -> None:
    given = arguments(__doc__, networks=True, images=8, updates=200)
    jobs = [
        partial(measure, given.network, rate, image, given.images, given.updates)
        for rate in RATES
        for image in range(given.images)
    ]
    results = torch.stack(measured(jobs, given.workers)).unflatten(0, (len(RATES), given.images)).mean(1)
    rows = [
        [f"{rate:g}" + (f", {whose}" if whose else ""), str(work), f"{share:.3f}", decibels(trip)]
        for (rate, whose), values in zip(RATES.items(), results.tolist(), strict=True)
        for work, (share, trip) in zip(looks_for(given.updates), values, strict=True)
    ]
    print(table(["rate", "work", "loss", "round trip"], rows))


if __name__ == "__main__":
    main()
