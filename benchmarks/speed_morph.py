"""What a morph costs beside its network: over the bare network, in evaluations, against frames and in parts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.cost import peak_memory
from benchmarks.held_out import held_out
from benchmarks.morph import LORA
from benchmarks.speed_networks import Place, place, ratios, seconds
from morph_core.attention.end_frames import mixed_self_attention
from morph_core.lora.blend import StackedLoras
from morph_core.lora.low_rank import PREFIX, LoraWeights, read_lora
from morph_core.models.backbone import Backbone
from morph_core.models.text import Text
from morph_core.morphing.alphas import alpha_schedule, reschedule_alphas
from morph_core.morphing.perceptual import perceptual_distances
from morph_core.recipes.image import PreparedImage, prepare_image
from morph_core.recipes.keyframe import keyframes_of
from morph_core.recipes.morph import Morph, morph_prepared
from morph_core.recipes.morph_frames import MorphFrames
from morph_core.toy.model import IMAGE_SIZE, ToyModel, load_toy_model

RANK = 16


def over_the_bare_network(repeats: int, network: str, rows: int, threads: int, side: int = 0) -> list[str]:
    """A call's time with LoRAs blended, with the ends' attention and with both, over one without.

    side: of the latent; 0: the network's own.
    """
    torch.set_num_threads(threads)
    at = place(network, side)
    x, sigma, alphas = at.noise(rows), at.sigmas[5], alpha_schedule(rows)
    denoise = at.backbone.denoiser(Text(at.text.context.repeat(rows, 1, 1)))
    start, end = (read_lora(random_lora(at.backbone, seed), at.backbone.network) for seed in (0, 1))
    loras, layers = StackedLoras(start, end), at.backbone.attention_layers()
    blend, attention = partial(loras.applied, alphas), partial(mixed_self_attention, layers, alphas)

    @torch.no_grad()
    def call(*patches: Callable[[], AbstractContextManager[None]]) -> None:
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            denoise(x, sigma)

    works = [partial(call, *patches) for patches in ((blend,), (attention,), (blend, attention))]
    return [f"{value:.2f}" for value in ratios(works, call, repeats)]


def random_lora(backbone: Backbone, seed: int) -> LoraWeights:
    """Of the published rank, on all attention projections."""
    generator, lora = torch.Generator().manual_seed(seed), {}
    for path, layer in backbone.attention_projections().items():
        name = f"{PREFIX}{path.replace('.', '_')}"
        lora[f"{name}.lora_down.weight"] = torch.randn(RANK, layer.in_features, generator=generator) / RANK
        lora[f"{name}.lora_up.weight"] = torch.randn(layer.out_features, RANK, generator=generator) * 0.005
    return lora


def random_ends(model: ToyModel) -> tuple[PreparedImage, PreparedImage]:
    """Two latents with prompts and LoRAs."""
    latents = place("toy").noise(2).split(1)
    texts = [model.encode_text([caption]) for caption in ("a happy red cat on mint", "a sad blue mouse on sky")]
    start, end = (PreparedImage(latents[i], texts[i], random_lora(model.backbone, i)) for i in (0, 1))
    return start, end


@contextmanager
def counted(network: torch.nn.Module) -> Iterator[list[int]]:
    """The rows of each call of a network within this context."""
    calls: list[int] = []

    def count(module: torch.nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        calls.append(len(args[0]))

    handle = network.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def whole_morph(config: Morph, repeats: int = 3) -> list[str]:
    """Of a morph without fits: rows sampled, calls inverted in, its time over that of its calls of the bare network."""
    model = load_toy_model()
    start, end = random_ends(model)
    work = partial(morph_prepared, model, start, end, config)
    with counted(model.backbone.network) as calls:
        work()
    inverting, sampling = calls[: config.steps], calls[config.steps :]
    [over] = ratios([work], partial(bare_calls, place("toy"), list(calls)), repeats)
    return [str(sum(sampling)), f"{len(inverting)} of {max(inverting)} rows", f"{over:.2f}"]


@torch.no_grad()
def bare_calls(at: Place, calls: Sequence[int]) -> None:
    """Of the bare network, each of so many rows."""
    for rows in calls:
        denoise = at.backbone.denoiser(Text(at.text.context.expand(rows, -1, -1)))
        denoise(at.noise(rows), at.sigmas[0])


@torch.no_grad()
def against_frames(frames: int, frames_per_batch: int, steps: int = 4) -> tuple[float, float]:
    """Seconds of one pass, and what the process took more of memory for it, in MB."""
    model, side = load_toy_model(), IMAGE_SIZE // 4
    config = Morph(frames=frames, steps=steps, reschedule=False, frames_per_batch=frames_per_batch)
    ends = keyframes_of(model, random_ends(model), config)
    passes, x = MorphFrames(model, ends[0], ends[1], config, keep=False), torch.randn(frames, 4, side, side)
    passes.sample(x[:2], (0.0, 1.0))
    before = peak_memory()
    return seconds(lambda: passes.sample(x, alpha_schedule(frames))), (peak_memory() - before) / 1e6


def cheaper_first_passes(pair: int, pairs: int, strides: Sequence[int]) -> list[tuple[float, float]]:
    """Of a morph between held-out drawings: how far the alphas that a first pass of fewer steps leads to are from those
    of one in all steps, mean and greatest, in mean spacings; for each stride.
    """
    model, drawings = load_toy_model(), held_out(2 * pairs)
    ends = [
        prepare_image(model, drawings.render(IMAGE_SIZE)[i : i + 1], drawings.captions[i], LORA)
        for i in (2 * pair, 2 * pair + 1)
    ]
    config = Morph(frames=9)
    found = [rescheduled(model, ends, replace(config, first_pass_stride=stride)) for stride in (1, *strides)]
    off = [(alphas - found[0]).abs() * (config.frames - 1) for alphas in found[1:]]
    return [(away.mean().item(), away.max().item()) for away in off]


@torch.no_grad()
def rescheduled(model: ToyModel, ends: Sequence[PreparedImage], config: Morph) -> Tensor:
    """The alphas (F,) that a morph's first pass leads to."""
    start, end = keyframes_of(model, ends, config)
    alphas, frames = alpha_schedule(config.frames), MorphFrames(model, start, end, config)
    pictures = torch.cat([frame.picture for frame in frames.at(alphas, config.first_pass_stride)])
    return torch.tensor(reschedule_alphas(alphas, perceptual_distances(pictures).tolist(), config.frames))
