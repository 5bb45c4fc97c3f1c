"""What of the pack is measured in ComfyUI: each work does a number of steps or updates with one network."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.comfyui import pack_module, run
from benchmarks.cost import finish, forget_peak, peak_memory, timed
from benchmarks.gpu_models import Kind, bytes_of, latent_of, new_model, normal, prompt_of

RANK = 16
SPACING = {"steps": 50, "scheduler": "ddim_uniform", "start_at_step": 15}  # of a drag, as published
NEVER = 1e-6  # a reach in which no handle ever is
LONG = 0.8  # seconds that a measured run shall take, about
MOST_UNITS = 20  # in a measured run


@dataclass(frozen=True)
class Subject:
    """A network of one precision and what goes into it. notes: what a work has to say beside its time."""

    kind: Kind
    model: Any
    positive: list[Any]
    notes: list[str] = field(default_factory=list)

    def latent(self, rows: int = 1, deviation: float = 1.0) -> dict[str, Tensor]:
        return latent_of(self.kind, self.model, rows, deviation)


@dataclass(frozen=True)
class Measured:
    """seconds: a unit. peak, weights: in bytes."""

    seconds: float
    peak: int
    weights: int
    note: str


Work = Callable[[Subject, int], object]  # int: how many units


def subject(kind: Kind, precision: str) -> Subject:
    return Subject(kind, new_model(kind, precision), prompt_of(kind))


def measure(work: Work, place: Subject, most: int = MOST_UNITS) -> Measured:
    """One unit that does not count; then what more units take longer than one: what a run begins with falls out."""
    finish()
    forget_peak()
    work(place, 1)
    one = timed(partial(work, place, 1))
    more = max(1, min(most, int(LONG / one)))
    seconds = (timed(partial(work, place, 1 + more)) - one) / more
    return Measured(seconds, peak_memory(), bytes_of(place.model.model.diffusion_model), "; ".join(place.notes))


def sample(place: Subject, steps: int, rows: int, model: Any = None) -> None:
    """KSampler (Advanced) at cfg 1."""
    import nodes

    with torch.inference_mode():
        nodes.KSamplerAdvanced().sample(
            *(model or place.model, "enable", 0, steps, 1.0, "euler", "simple", place.positive, place.positive),
            *(place.latent(rows), 0, 10000, "disable"),
        )


def morph(place: Subject, steps: int, rows: int) -> None:
    """A row a frame, with LoRA Blend and Attention KV Inject in every step."""
    alphas = torch.linspace(0, 1, rows).tolist()
    loras = [random_lora(place.model, seed) for seed in (0, 1)]
    (blended,) = run("LoraBlend", model=place.model, start=loras[0], end=loras[1], alphas=alphas)
    injected = {"strength": 1.0, "end_percent": 1.0, "blocks": "up blocks", "alphas": alphas}
    sample(place, steps, rows, run("AttentionKVInject", model=blended, **injected)[0])


def random_lora(model: Any, seed: int) -> dict[str, Tensor]:
    """As Fit Image LoRA would name it."""
    with torch.inference_mode(), pack_module("nodes.host.backbone").shadowed(model) as backbone:
        shapes = {path: layer.weight.shape for path, layer in backbone.attention_projections().items()}
    lora = {}
    for path, (out, inner) in shapes.items():
        name = f"lora_unet_{path.replace('.', '_')}"
        lora[f"{name}.lora_down.weight"] = normal(RANK, inner, seed=seed) / inner**0.5
        lora[f"{name}.lora_up.weight"] = normal(out, RANK, seed=seed) * 0.02
        lora[f"{name}.alpha"] = torch.tensor(float(RANK))
    return lora


def invert(place: Subject, steps: int) -> Tensor:
    """DDIM Invert; the noise that it finds."""
    given = {"model": place.model, "positive": place.positive, "latent_image": place.latent()}
    return run("DdimInvert", **given, steps=steps, scheduler="simple", start_at_step=0)[1].trajectory.noise


def fit(place: Subject, steps: int, checkpointing: bool = False) -> None:
    """Fit Image LoRA, which raises when its loss is not finite."""
    given = {"model": place.model, "positive": place.positive, "latent": place.latent(), "seed": 0}
    settings = {"rank": RANK, "learning_rate": 2e-4, "gradient_checkpointing": checkpointing}
    _, losses = run("FitImageLora", **given, **settings, steps=steps)
    place.notes[:] = [f"loss {losses['loss'][0]:.3f} to {losses['loss'][-1]:.3f}"]


def bare(place: Subject, steps: int, checkpointing: bool = False) -> None:
    """Forward and backward through what a fit works on, without all else that a fit does."""
    fitting = pack_module("morph_core.lora.fit")
    host = pack_module("nodes.host.backbone")
    samples = place.latent()["samples"]
    prompt = pack_module("nodes.host.prompt").read_prompt(place.model, place.positive, "positive", samples)
    with torch.inference_mode(), host.shadowed(place.model) as backbone:
        if checkpointing:
            backbone.enable_gradient_checkpointing()
        denoise, x0 = backbone.denoiser(prompt.to(backbone.device)), host.scaled_latent(place.model, samples)
        sigma = backbone.schedule.sigmas[len(backbone.schedule.sigmas) // 2].to(x0)
        with fitting.trainable_lora(backbone, fitting.LoraFit(rank=RANK)):
            for _ in range(steps):
                (denoise(x0 + sigma, sigma).float() - x0).square().mean().backward()


def drag(place: Subject, updates: int, checkpointing: bool = False) -> None:
    """Drag Latent Optimize with GoodDrag's settings, one handle, at one noise level."""
    from comfy.samplers import calculate_sigmas

    side, fields = place.kind.side, pack_module("morph_core.dragging.latent").DragLatent.__dataclass_fields__
    numbers = {name: -1 for name in fields if name != "objective"}
    changed = {"iterations": updates, "levels": 1, "reach": NEVER, "gradient_checkpointing": checkpointing}
    options = run("DragOptions", feature_block="second to last up block", **{**numbers, **changed})[0]
    sampling = place.model.get_model_object("model_sampling")
    sigma = calculate_sigmas(sampling, SPACING["scheduler"], SPACING["steps"])[SPACING["start_at_step"]].item()
    ends = [{"x": 0.3 * side, "y": 0.5 * side}, {"x": 0.7 * side, "y": 0.5 * side}]
    given = {"model": place.model, "positive": place.positive, "latent": place.latent(deviation=(1 + sigma**2) ** 0.5)}
    given |= {"image": torch.full((1, side, side, 3), 0.5), "points": json.dumps(ends), "options": options}
    run("DragLatentOptimize", **given, **SPACING, objective="GoodDrag")


WORKS: dict[str, tuple[Work, str]] = {  # and the work beside which it is set
    "forward and backward": (bare, ""),
    "Fit Image LoRA": (fit, "forward and backward"),
    "forward and backward, checkpointing": (partial(bare, checkpointing=True), ""),
    "Fit Image LoRA, checkpointing": (partial(fit, checkpointing=True), "forward and backward, checkpointing"),
    "Drag Latent Optimize, GoodDrag": (drag, "forward and backward"),
    "Drag Latent Optimize, GoodDrag, checkpointing": (
        partial(drag, checkpointing=True),
        "forward and backward, checkpointing",
    ),
    "KSampler, 1 row": (partial(sample, rows=1), ""),
    "KSampler, 2 rows": (partial(sample, rows=2), ""),
    "KSampler, 8 rows": (partial(sample, rows=8), ""),
    "morph, 8 rows": (partial(morph, rows=8), "KSampler, 8 rows"),
    "KSampler, 16 rows": (partial(sample, rows=16), ""),
    "morph, 16 rows": (partial(morph, rows=16), "KSampler, 16 rows"),
    "DDIM Invert": (invert, "KSampler, 1 row"),
}


def tasks(name: str, kind: Kind) -> list[tuple[str, str]]:
    """Precision and work, the most telling first."""
    works = list(WORKS)
    if not kind.is_unet:
        works = [work for work in works if not work.startswith("Drag") and "16 rows" not in work]
    if name == "flux":  # which fills an H100 with what its backward pass needs
        works = [
            work for work in works if work.endswith("checkpointing") or "backward" not in work and "Fit" not in work
        ]
    again = ["Fit Image LoRA", "Drag Latent Optimize, GoodDrag", "KSampler, 8 rows", "morph, 8 rows", "DDIM Invert"]
    if not kind.is_unet:
        again = ["Fit Image LoRA, checkpointing", "KSampler, 1 row", "DDIM Invert"]
    in_half = [] if kind.config == "Lumina2" else [("fp16", work) for work in again]  # ComfyUI has it in bf16 alone
    in_single = [] if name == "flux" else [("fp32", "DDIM Invert")]  # whose 48 GB leave no room
    return [*(("bf16", work) for work in works), *in_half, *in_single]
