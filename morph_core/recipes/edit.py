"""An image edited by its prompt: inversion, then Prompt-to-Prompt beside the source (Hertz et al. 2023).

The chosen inversion undoes what guidance leads away from the image; this file only puts the parts together. FlowEdit
and Uni-Edit, which touch no attention, are in `difference_edit`.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..attention.prompt_to_prompt import PromptToPrompt, check_layers, prompt_to_prompt
from ..attention.word_edit import WordEdit
from ..denoise import Denoise
from ..errors import InvalidInput
from ..lora.merge import whole_lora
from ..models.latent_diffusion import LatentDiffusion
from ..models.text import Text, concatenated
from ..sampling import ddim
from ..sampling.direct_inversion import DirectInversion
from ..sampling.guidance import guided_denoiser
from ..sampling.null_text import DenoiserOf, NullText, NullTextResult, null_text_denoiser, null_text_inversion
from ..sampling.trajectory import Trajectory
from .difference_edit import DifferenceEdit, edit_prepared_by_difference
from .image import EditedImage, PreparedImage, inverted, lora_layers, prepare_image, text_for
from .stages import OnStage, stage_reporter

Inversion = Literal["DDIM", "Null-text", "Direct"]


@dataclass(frozen=True)
class PromptEdit:
    """What to do. Defaults are the published ones, with Direct Inversion."""

    steps: int = 50
    guidance: float = 7.5
    inversion: Inversion = "Direct"
    """How the source is led back to the image: not at all, by Null-text embeddings, or held to it."""
    words: WordEdit | None = field(default_factory=WordEdit)
    """What Prompt-to-Prompt controls; None: nothing, the edited prompt alone, which any network can do."""
    null_text: NullText = field(default_factory=NullText)
    """How to optimise the embeddings; its guidance is taken from this edit."""
    set_alpha_to_one: bool = True
    """The ᾱ of an image: 1, as in ComfyUI, or, as in the published code, ᾱ_0; see `sampling.schedule.ddim_sigmas`."""

    def __post_init__(self) -> None:
        if self.inversion not in get_args(Inversion):
            known = ", ".join(get_args(Inversion))
            raise InvalidInput(f"inversion must be one of {known}; got {self.inversion!r}")


def edit(
    model: LatentDiffusion,
    image: Tensor,
    source_prompt: str,
    edited_prompt: str,
    config: PromptEdit | DifferenceEdit | None = None,
    on_stage: OnStage | None = None,
) -> EditedImage:
    """Edit an image (1, 3, H, W) in 0..1, which source_prompt describes, into what edited_prompt describes."""
    prepared = prepare_image(model, image, source_prompt, None)
    if isinstance(config, DifferenceEdit):
        return edit_prepared_by_difference(model, prepared, edited_prompt, config, on_stage)
    return edit_prepared(model, prepared, source_prompt, edited_prompt, config or PromptEdit(), on_stage)


def edit_prepared(
    model: LatentDiffusion,
    image: PreparedImage,
    source_prompt: str,
    edited_prompt: str,
    config: PromptEdit,
    on_stage: OnStage | None = None,
    null_text: NullTextResult | None = None,
) -> EditedImage:
    """As `edit`, of an image whose latent, text, LoRA and perhaps trajectory are known.

    null_text: the embeddings, where an earlier edit has them, see `null_text_of`; else they are optimised.
    """
    backbone = model.backbone
    sigmas = backbone.schedule.spaced(config.steps, config.set_alpha_to_one).to(image.latent)
    run = config.words and _control_of(config.words, model, (source_prompt, edited_prompt), image.latent, sigmas)
    trajectory = inverted(model, image, sigmas, on_stage)
    if config.inversion == "Null-text" and null_text is None:
        null_text = null_text_of(model, image, trajectory, config, on_stage)
    empty = text_for(model, image, "")
    unconditional = backbone.denoiser(empty)
    if config.inversion == "Null-text" and null_text is not None:
        unconditional = null_text_denoiser(_with_context(model, empty), null_text.embeddings, sigmas)
    conditional = backbone.denoiser(concatenated([image.text, text_for(model, image, edited_prompt)]))
    corrections: list[ddim.Correction] = []
    if config.inversion == "Direct":
        corrections.append(DirectInversion({0: trajectory}))
    if run:
        conditional = _controlled(model, conditional, run)
        corrections.append(run.blend)
    with torch.no_grad(), whole_lora(lora_layers(model, image)):
        denoise = guided_denoiser(unconditional, conditional, config.guidance)
        rows = trajectory.noise.repeat(2, 1, 1, 1)
        x = ddim.sample(denoise, rows, sigmas, stage_reporter(on_stage, "sampling"), corrections)
    images = model.decode_latents(x / backbone.schedule.scale(sigmas[-1]))
    return EditedImage(images[:1], images[1:])


def null_text_of(
    model: LatentDiffusion,
    image: PreparedImage,
    trajectory: Trajectory,
    config: PromptEdit,
    on_stage: OnStage | None = None,
) -> NullTextResult:
    """The embeddings with which guided sampling follows the trajectory, whatever the edited prompt will be."""
    empty = text_for(model, image, "")
    settings = replace(config.null_text, guidance=config.guidance)
    with whole_lora(lora_layers(model, image)):
        return null_text_inversion(
            model.backbone.denoiser(image.text),
            _with_context(model, empty),
            empty.context,
            trajectory,
            settings,
            stage_reporter(on_stage, "optimising the empty prompt"),
        )


def _with_context(model: LatentDiffusion, text: Text) -> DenoiserOf:
    """From an embedding to the model with it in the place of the text's own."""
    return lambda context: model.backbone.denoiser(replace(text, context=context))


def _control_of(
    words: WordEdit, model: LatentDiffusion, prompts: tuple[str, str], latent: Tensor, sigmas: Tensor
) -> PromptToPrompt:
    check_layers(model.backbone.attention_layers())
    source, edited = model.tokenize(list(prompts))
    controls = words.of_tokens(source, edited, model.word_tokens)
    return PromptToPrompt(controls, sigmas, (latent.shape[2], latent.shape[3]))


def _controlled(model: LatentDiffusion, conditional: Denoise, run: PromptToPrompt) -> Denoise:
    """The conditional prediction of the source's and the edited row, under the run's control."""
    layers = model.backbone.attention_layers()

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        with prompt_to_prompt(layers, run, sigma):
            return conditional(x, sigma)

    return denoise
