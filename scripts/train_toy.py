"""Train the bundled toy model and the benchmark's factor network from nothing: drawings are made on the fly.

    python scripts/train_toy.py all           # every stage in order, or one at a time:
    python scripts/train_toy.py autoencoder
    python scripts/train_toy.py diffusion     # UNet and text encoder, on the trained autoencoder's latents
    python scripts/train_toy.py factors       # the network that reads factors off a drawing (benchmarks only)
    python scripts/train_toy.py export        # their fp16 weights into the pack
    python scripts/train_toy.py transformer   # the flow-matching network, over what is in the pack; and into it

Every stage is seeded, saves a checkpoint every few minutes under --work and goes on from it when run again.
It uses a GPU when torch sees one.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.held_out import HELD_OUT_SEED, held_out  # noqa: E402
from benchmarks.pictures import psnr  # noqa: E402
from morph_core.models.flux import FluxBackbone  # noqa: E402
from morph_core.sampling.schedule import FlowMatching, alphas_cumprod, flow_train_sigmas  # noqa: E402
from morph_core.toy.drawing import Drawings, draw, sample_drawings  # noqa: E402
from morph_core.toy.model import (  # noqa: E402
    IMAGE_SIZE,
    TEXT_WIDTH,
    WEIGHTS,
    TextEncoder,
    load_toy_model,
    new_autoencoder,
    new_unet,
)
from morph_core.toy.transformer import new_transformer  # noqa: E402
from morph_core.toy.words import tokenize  # noqa: E402

log = logging.getLogger("train_toy")


@dataclass
class Run:
    """What every stage shares: where, how long, how fast."""

    work: Path
    device: torch.device
    steps: int
    batch: int
    rate: float
    minutes: float
    pool: int

    def learning_rate(self, step: int) -> float:
        """Short warm-up, constant, then a linear fall to zero over the last third."""
        left = (self.steps - step) / (self.steps / 3)
        return self.rate * min(1.0, (step + 1) / 100, max(left, 0.0))


def batch_of(run: Run, step: int) -> Drawings:
    return sample_drawings(run.batch, torch.Generator().manual_seed(step))


def train(
    run: Run,
    name: str,
    parts: nn.Module,
    loss_of: Callable[[int], Tensor],
    report: Callable[[], str],
    average: float = 0.0,
) -> None:
    """The loop every stage shares: AdamW, clipping, checkpoints, an optional moving average of the weights."""
    parts.to(run.device)
    optimiser = torch.optim.AdamW(parts.parameters(), lr=run.rate, weight_decay=1e-4, betas=(0.9, 0.99))
    mean = {k: v.detach().clone() for k, v in parts.state_dict().items()} if average else {}
    checkpoint, step = run.work / f"{name}.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=run.device, weights_only=True)
        parts.load_state_dict(saved["parts"])
        optimiser.load_state_dict(saved["optimiser"])
        mean, step = saved["mean"], saved["step"]
        log.info("%s: going on from step %d", name, step)

    def save() -> None:
        state = {"parts": parts.state_dict(), "optimiser": optimiser.state_dict(), "mean": mean, "step": step}
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)

    start = saved_at = time.monotonic()
    first = step
    while step < run.steps and time.monotonic() - start < 60 * run.minutes:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate(step)
        with torch.autocast(run.device.type, torch.bfloat16):
            loss = loss_of(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimiser.step()
        step += 1
        if average:
            weight = min(average, (step + 1) / (step + 10))
            for key, value in parts.state_dict().items():
                mean[key].lerp_(value, 1 - weight)
        if step % 200 == 0:
            speed = run.batch * (step - first) / (time.monotonic() - start)
            log.info("%s %d/%d loss %.4f, %.1f pictures/s", name, step, run.steps, loss.item(), speed)
        if step % 1000 == 0:
            log.info("%s %d: %s", name, step, report())
        if time.monotonic() - saved_at > 120:
            save()
            saved_at = time.monotonic()
    save()
    log.info("%s ended at step %d of %d: %s", name, step, run.steps, report())


def train_autoencoder(run: Run) -> None:
    torch.manual_seed(0)
    autoencoder = new_autoencoder()
    with torch.no_grad():
        autoencoder.quant_conv.bias[4:] = -6  # start with almost no noise on the latents
    pool = nn.AvgPool2d(4)

    def loss_of(step: int) -> Tensor:
        pictures = batch_of(run, step).render(IMAGE_SIZE).to(run.device) * 2 - 1
        latents = autoencoder.encode(pictures).latent_dist
        noise = torch.Generator(run.device).manual_seed(step)
        restored = autoencoder.decode(latents.sample(noise)).sample
        edges = (pictures - nn.functional.avg_pool2d(pictures, 5, 1, 2)).abs().mean(1, keepdim=True)
        error = restored.float() - pictures
        fidelity = ((1 + 6 * edges) * (error.abs() + 4 * error.square())).mean()
        hint = max(0.0, 1 - step / 1500)  # early on, three channels are pooled RGB: a way out of grey
        tie = (latents.mean[:, :3].float() - 1.5 * pool(pictures)).square().mean() if hint else 0.0
        return fidelity + 1e-6 * latents.kl().mean() + 0.2 * hint * tie

    @torch.no_grad()
    def report() -> str:
        pictures = held_out(run.batch).render(IMAGE_SIZE).to(run.device)
        latents = autoencoder.encode(pictures * 2 - 1).latent_dist.mean
        values = psnr((autoencoder.decode(latents).sample / 2 + 0.5).clamp(0, 1), pictures)
        return (
            f"held-out PSNR median {values.quantile(0.5):.2f} dB, lowest {values.min():.2f} dB, "
            f"latent std {latents.std((0, 2, 3)).tolist()}"
        )

    train(run, "autoencoder", autoencoder, loss_of, report)


@torch.no_grad()
def finish_autoencoder(run: Run) -> nn.Module:
    """The trained autoencoder with its latents' mean and spread folded away, so that they are 0 and 1."""
    autoencoder = new_autoencoder()
    saved = torch.load(run.work / "autoencoder.pt", map_location="cpu", weights_only=True)
    autoencoder.load_state_dict(saved["parts"])
    autoencoder.to(run.device).eval()
    pictures = sample_drawings(2048, torch.Generator().manual_seed(1)).render(IMAGE_SIZE)
    means = torch.cat([autoencoder.encode(p.to(run.device) * 2 - 1).latent_dist.mean for p in pictures.split(64)])
    mean, std = means.mean((0, 2, 3)), means.std((0, 2, 3))
    before, after = autoencoder.quant_conv, autoencoder.post_quant_conv
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= std[None, :, None, None]
    before.weight[:4] /= std[:, None, None, None]
    before.bias[:4] = (before.bias[:4] - mean) / std
    before.bias[4:] -= 2 * std.log()  # these channels are log variances
    return autoencoder.requires_grad_(False)


@torch.no_grad()
def encoded_pool(run: Run, autoencoder: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    """Latents (count, 4, h, w) and tokens (count, T) of the training drawings; made once, then read from disk."""
    path = run.work / "latents.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        return saved["latents"], saved["tokens"]
    latents, tokens = [], []
    for start in range(0, count, 64):
        drawings = sample_drawings(64, torch.Generator().manual_seed(start))
        pictures = draw(drawings.kinds.to(run.device), drawings.factors.to(run.device), IMAGE_SIZE) * 2 - 1
        with torch.autocast(run.device.type, torch.bfloat16):
            latents.append(autoencoder.encode(pictures).latent_dist.mean.float().cpu())
        tokens.append(torch.tensor(tokenize(drawings.captions)))
    pool = {"latents": torch.cat(latents), "tokens": torch.cat(tokens)}
    torch.save(pool, path)
    return pool["latents"], pool["tokens"]


def train_diffusion(run: Run) -> None:
    """Noise prediction (Ho et al. 2020) with min-SNR-5 weights (Hang et al. 2023) and 10 % caption dropout."""
    torch.manual_seed(0)
    autoencoder = finish_autoencoder(run)
    latents, tokens = (part.to(run.device) for part in encoded_pool(run, autoencoder, run.pool))
    parts = nn.ModuleDict({"unet": new_unet(), "text_encoder": TextEncoder()})
    alphas = alphas_cumprod().to(run.device)
    snr = alphas / (1 - alphas)
    empty = torch.tensor(tokenize([""]), device=run.device)

    def noised(step: int, x: Tensor, seen: Tensor) -> Tensor:
        """(B,) squared errors of the predicted noise."""
        generator = torch.Generator(run.device).manual_seed(step)
        noise = torch.randn(x.shape, generator=generator, device=run.device)
        t = torch.randint(len(alphas), (len(x),), generator=generator, device=run.device)
        alpha = alphas[t, None, None, None]
        dropped = torch.rand(len(x), 1, generator=generator, device=run.device) < 0.1
        context = parts["text_encoder"](torch.where(dropped, empty, seen))
        predicted = parts["unet"](alpha.sqrt() * x + (1 - alpha).sqrt() * noise, t, context).sample
        weight = snr[t].clamp(max=5) / snr[t]
        return weight * (predicted.float() - noise).square().mean((1, 2, 3))

    def loss_of(step: int) -> Tensor:
        rows = torch.randint(len(latents), (run.batch,), generator=torch.Generator().manual_seed(step))
        return noised(step, latents[rows], tokens[rows]).mean()

    unseen = held_out(64)
    unseen_latents = autoencoder.encode(unseen.render(IMAGE_SIZE).to(run.device) * 2 - 1).latent_dist.mean
    unseen_tokens = torch.tensor(tokenize(unseen.captions), device=run.device)

    @torch.no_grad()
    def report() -> str:
        return f"held-out weighted noise error {noised(HELD_OUT_SEED, unseen_latents, unseen_tokens).mean():.4f}"

    train(run, "diffusion", parts, loss_of, report, average=0.999)


def export(run: Run) -> None:
    """Write the bundled weights: fp16, and for UNet and text encoder the moving average."""
    from safetensors.torch import save_file

    WEIGHTS.mkdir(exist_ok=True)
    mean = torch.load(run.work / "diffusion.pt", map_location="cpu", weights_only=True)["mean"]
    states = {"autoencoder": finish_autoencoder(run).state_dict()}
    for name in ("unet", "text_encoder"):
        prefix = name + "."
        states[name] = {k.removeprefix(prefix): v for k, v in mean.items() if k.startswith(prefix)}
    for name, state in states.items():
        path = WEIGHTS / f"{name}.safetensors"
        save_file({key: value.half().contiguous().cpu() for key, value in state.items()}, path)
        log.info("%s: %.2f MB", path.name, path.stat().st_size / 1e6)
    preview = json.dumps(fit_preview(run, finish_autoencoder(run)))
    (WEIGHTS / "preview.json").write_text(preview + "\n")


@torch.no_grad()
def fit_preview(run: Run, autoencoder: nn.Module) -> dict[str, list[list[float]] | list[float]]:
    """Least squares from a latent cell to its mean colour, for cheap previews while sampling."""
    pictures = sample_drawings(256, torch.Generator().manual_seed(2)).render(IMAGE_SIZE).to(run.device) * 2 - 1
    latents = autoencoder.encode(pictures).latent_dist.mean
    colours = nn.functional.adaptive_avg_pool2d(pictures, latents.shape[-2:])
    cells, targets = (x.movedim(1, -1).flatten(0, 2) for x in (latents, colours))
    known = torch.cat([cells, torch.ones_like(cells[:, :1])], dim=1)
    *factors, bias = [[round(v, 4) for v in row] for row in torch.linalg.lstsq(known, targets).solution.tolist()]
    return {"factors": factors, "bias": bias}


def train_transformer(run: Run) -> None:
    """Velocity prediction (Liu et al. 2023) at logit-normal sigmas (Esser et al. 2024), with 10 % caption dropout."""
    from safetensors.torch import save_file

    model = load_toy_model(device=run.device)
    torch.manual_seed(0)
    transformer = new_transformer(TEXT_WIDTH).to(run.device)
    for path, layer in transformer.named_modules():  # adaLN-Zero (Peebles & Xie 2023): blocks begin as the identity
        if isinstance(layer, nn.Linear) and ("norm" in path or path == "proj_out"):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    network = FluxBackbone(transformer, FlowMatching(flow_train_sigmas()))
    generator = torch.Generator(run.device)
    latents, tokens = (part.to(run.device) for part in encoded_pool(run, model.autoencoder, run.pool))
    empty = torch.tensor(tokenize([""]), device=run.device)

    def noised(step: int, x0: Tensor, seen: Tensor) -> Tensor:
        """(B,) squared errors of the predicted velocity, which are those of x0 over sigma²."""
        generator.manual_seed(step)
        noise = torch.randn(x0.shape, generator=generator, device=run.device)
        sigma = torch.randn(len(x0), 1, 1, 1, generator=generator, device=run.device).sigmoid()
        dropped = torch.rand(len(x0), 1, generator=generator, device=run.device) < 0.1
        with torch.no_grad():
            text = model.text_encoder.text(torch.where(dropped, empty, seen))
        predicted = network.velocity(torch.lerp(x0, noise, sigma), sigma.flatten(), text)
        return (predicted.float() - (noise - x0)).square().mean((1, 2, 3))

    def loss_of(step: int) -> Tensor:
        rows = torch.randint(len(latents), (run.batch,), generator=torch.Generator().manual_seed(step))
        return noised(step, latents[rows], tokens[rows]).mean()

    unseen = held_out(64)
    unseen_latents = model.encode_images(unseen.render(IMAGE_SIZE))
    unseen_tokens = torch.tensor(tokenize(unseen.captions), device=run.device)

    @torch.no_grad()
    def report() -> str:
        return f"held-out velocity error {noised(HELD_OUT_SEED, unseen_latents, unseen_tokens).mean():.4f}"

    train(run, "transformer", transformer, loss_of, report, average=0.999)
    mean = torch.load(run.work / "transformer.pt", map_location="cpu", weights_only=True)["mean"]
    save_file({key: value.half().contiguous() for key, value in mean.items()}, WEIGHTS / "transformer.safetensors")


def train_factors(run: Run) -> None:
    """Read kind and factors off drawings as drawn, blurred, noisy, and as the autoencoder restores them."""
    from safetensors.torch import save_file

    from benchmarks import factor_network

    torch.manual_seed(0)
    network = factor_network.FactorNetwork()
    autoencoder = finish_autoencoder(run)
    low, high = (edge.to(run.device) for edge in factor_network.factor_range())

    def spoiled(pictures: Tensor, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        restored = pictures[: len(pictures) // 4]
        with torch.no_grad():
            restored = autoencoder.decode(autoencoder.encode(restored * 2 - 1).latent_dist.mean).sample / 2 + 0.5
        blurred = nn.functional.avg_pool2d(pictures[len(restored) : 2 * len(restored)], 3, 1, 1)
        pictures = torch.cat([restored, blurred, pictures[2 * len(restored) :]])
        noise = torch.randn(pictures.shape, generator=generator).to(run.device)
        return (pictures + 0.03 * torch.rand(1, generator=generator).item() * noise).clamp(0, 1)

    def loss_of(step: int) -> Tensor:
        drawings = batch_of(run, step)
        logits, factors = network(spoiled(drawings.render(IMAGE_SIZE).to(run.device), step))
        wrong = ((factors - drawings.factors.to(run.device)) / (high - low)).float().square().mean()
        return nn.functional.cross_entropy(logits.float(), drawings.kinds.to(run.device)) + 10 * wrong

    @torch.no_grad()
    def report() -> str:
        drawings = held_out(256)
        logits, factors = network(drawings.render(IMAGE_SIZE).to(run.device))
        kinds = (logits.argmax(1).cpu() == drawings.kinds).float().mean()
        pairs = zip(factor_network.read_colours(factors.cpu()), drawings.captions, strict=True)
        colours = sum(colour in caption for colour, caption in pairs) / len(drawings.captions)
        wrong = ((factors - drawings.factors.to(run.device)) / (high - low)).abs().mean()
        return f"held-out: kind {kinds:.1%}, colour {colours:.1%} right, mean factor error {wrong:.3f} of its range"

    train(run, "factors", network, loss_of, report)
    state = {key: value.half().contiguous().cpu() for key, value in network.state_dict().items()}
    save_file(state, factor_network.WEIGHTS)


STAGES = {
    "autoencoder": train_autoencoder,
    "diffusion": train_diffusion,
    "factors": train_factors,
    "export": export,
    "transformer": train_transformer,
}
DEFAULTS = {  # optimiser steps, batch, highest learning rate
    "autoencoder": (5700, 8, 1.5e-3),
    "diffusion": (6200, 32, 1e-3),
    "factors": (1500, 32, 2e-3),
    "export": (0, 0, 0.0),
    "transformer": (6200, 32, 1e-3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["all", *STAGES])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "toy", help="checkpoints and logs")
    parser.add_argument("--steps", type=int, help="optimiser steps in all")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float, help="highest learning rate")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop (and save) after this long")
    parser.add_argument("--pool", type=int, default=30000, help="drawings the diffusion stage learns from")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for stage in STAGES if given.stage == "all" else [given.stage]:
        steps, batch, rate = DEFAULTS[stage]
        run = Run(
            work=given.work,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            steps=given.steps or steps,
            batch=given.batch or batch,
            rate=given.rate or rate,
            minutes=given.minutes,
            pool=given.pool,
        )
        STAGES[stage](run)


if __name__ == "__main__":
    main()
