"""What LoRA Blend and Attention KV Inject cost in a real ComfyUI, in a process of its own."""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.comfyui import load_comfyui, pack_module, run
from benchmarks.gpu_models import KINDS, SD15, new_model, prompt_of
from benchmarks.gpu_works import Subject, random_lora, sample
from benchmarks.speed_networks import CONTEXT_WIDTH, LARGER_SIDE, LARGER_WIDTHS, ratios

LARGER = replace(
    KINDS["sd15"],
    network={
        **SD15,
        "model_channels": LARGER_WIDTHS[0],
        "channel_mult": [w // LARGER_WIDTHS[0] for w in LARGER_WIDTHS],
    },
    side=8 * LARGER_SIDE,
    text_width=CONTEXT_WIDTH,
)
STEPS = {"toy": 10, "larger": 1}  # of a run


def over_the_bare_sampler(comfyui: Path, repeats: int, network: str, rows: int, threads: int) -> list[str]:
    """KSampler's time with LoRA Blend, with Attention KV Inject and with both, over that without."""
    with tempfile.TemporaryDirectory() as folder:
        torch.set_num_threads(threads)
        load_comfyui(comfyui, folder, *(() if torch.cuda.is_available() else ("--cpu",)))
        place = subject_of(network)
        alphas = torch.linspace(0, 1, rows).tolist()
        loras = {"start": random_lora(place.model, 0), "end": random_lora(place.model, 1)}
        injected = {"strength": 1.0, "end_percent": 1.0, "blocks": "up blocks", "alphas": alphas}
        (blend,) = run("LoraBlend", model=place.model, **loras, alphas=alphas)
        models = blend, *(run("AttentionKVInject", model=model, **injected)[0] for model in (place.model, blend))
        bare = partial(sample, place, STEPS[network], rows)
        return [f"{value:.2f}" for value in ratios([partial(bare, model) for model in models], bare, repeats)]


def subject_of(network: str) -> Subject:
    if network == "larger":
        return Subject(LARGER, new_model(LARGER, "fp32"), prompt_of(LARGER))
    toy, module, words = KINDS["sd15"].small(), pack_module("morph_core.toy.model"), pack_module("morph_core.toy.words")
    model: Any = pack_module("nodes.host.toy").load_model("UNet")
    kind = replace(toy, side=8 * (module.IMAGE_SIZE // 4), text_width=module.TEXT_WIDTH, tokens=words.MAX_TOKENS)
    return Subject(kind, model, prompt_of(kind))
