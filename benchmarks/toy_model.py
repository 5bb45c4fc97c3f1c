"""How good the bundled toy model is: python -m benchmarks.toy_model [--pictures FOLDER]

Autoencoder on held-out drawings, DDIM inversion and back, and what samples show as read by the factor network.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks.factor_network import load_factor_network, read_colours
from morph_core.denoise import Denoise, unet_denoiser
from morph_core.sampling import ddim
from morph_core.sampling.schedule import ddim_sigmas, sigmas_of
from morph_core.toy.drawing import KINDS, Drawings, sample_drawings
from morph_core.toy.model import IMAGE_SIZE, ToyModel, load_toy_model

HELD_OUT_SEED = 10**9
STEPS = 50


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(B,) in dB, of pictures in 0..1."""
    return -10 * torch.log10((a - b).square().flatten(1).mean(1))


def held_out(count: int, offset: int = 0) -> Drawings:
    """Drawings that the training never saw."""
    return sample_drawings(count, torch.Generator().manual_seed(HELD_OUT_SEED + offset))


def denoiser(model: ToyModel, captions: tuple[str, ...], guidance: float = 1.0) -> tuple[Denoise, Tensor]:
    """The model's `Denoise` for these captions, with classifier-free guidance, and the sigmas of 50 DDIM steps."""
    train_sigmas = sigmas_of(model.train_alphas)
    told = unet_denoiser(model.unet, model.encode_text(captions), train_sigmas)
    untold = unet_denoiser(model.unet, model.encode_text([""]), train_sigmas)

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.lerp(untold(x, sigma), told(x, sigma), guidance)

    return (told if guidance == 1 else guided), ddim_sigmas(train_sigmas, STEPS)


def sheet(pictures: Tensor, path: Path, columns: int = 16) -> None:
    """Save (B, 3, H, W) in 0..1 as one picture."""
    rows, side = len(pictures) // columns, pictures.shape[-1]
    tiles = pictures[: rows * columns].reshape(rows, columns, 3, side, side).permute(0, 3, 1, 4, 2)
    pixels = (tiles.reshape(rows * side, columns * side, 3) * 255).round().byte().numpy()
    Image.fromarray(pixels).resize((columns * side * 2, rows * side * 2), Image.Resampling.BICUBIC).save(path)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="save what was made into this folder")
    folder = parser.parse_args().pictures
    model, network = load_toy_model(), load_factor_network()

    drawings = held_out(32)
    pictures = drawings.render(IMAGE_SIZE)
    latents = model.encode_images(pictures)
    restored = model.decode_latents(latents)
    values = psnr(restored, pictures)
    print(f"autoencoder, 32 held-out drawings: median {values.quantile(0.5):.1f} dB, lowest {values.min():.1f} dB")

    denoise, sigmas = denoiser(model, drawings.captions)
    back = model.decode_latents(ddim.sample(denoise, ddim.invert(denoise, latents, sigmas), sigmas))
    values = psnr(back, restored)
    print(f"DDIM inversion and back, {STEPS} steps: median {values.quantile(0.5):.1f} dB, lowest {values.min():.1f} dB")

    drawings = held_out(128, offset=1)
    denoise, sigmas = denoiser(model, drawings.captions, guidance=2.5)
    noise = torch.randn(128, 4, *latents.shape[-2:], generator=torch.Generator().manual_seed(0))
    samples = model.decode_latents(ddim.sample(denoise, noise * (1 + sigmas[0] ** 2) ** 0.5, sigmas))
    for name, shown in (("samples at guidance 2.5", samples), ("drawings themselves", drawings.render(IMAGE_SIZE))):
        logits, factors = network(shown)
        kinds = [KINDS[i] for i in logits.argmax(1).tolist()]
        right = [
            sum(word in caption.split() for word, caption in zip(words, drawings.captions, strict=True)) / 128
            for words in (kinds, read_colours(factors))
        ]
        print(f"128 {name}: animal right {right[0]:.0%}, colour right {right[1]:.0%}")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        sheet(torch.cat([pictures[:16], restored[:16], back[:16]]), folder / "round_trip.png")
        sheet(samples[:64], folder / "samples.png")


if __name__ == "__main__":
    main()
