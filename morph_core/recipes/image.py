"""An image as the recipes work on it: encoded, described, known to the model, and inverted once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..lora.blend import blended_loras
from ..lora.fit import LoraFit, fit_lora
from ..lora.low_rank import LoraWeights, LowRank, read_lora
from ..lora.merge import whole_lora
from ..models.latent_diffusion import LatentDiffusion
from ..models.text import Text
from ..morphing.blend_text import blended
from ..sampling import ddim
from ..sampling.trajectory import Trajectory
from .stages import OnStage, stage_reporter


@dataclass(frozen=True)
class PreparedImage:
    """latent: (1, C, h, w), scaled. text: of one row. lora: the image's, or {}. trajectory: its inversion, if made."""

    latent: Tensor
    text: Text
    lora: LoraWeights
    trajectory: Trajectory | None = None


@dataclass(frozen=True)
class EditedImage:
    """source, edited: (1, 3, H, W) in 0..1, the source as the model redraws it."""

    source: Tensor
    edited: Tensor


def prepare_image(
    model: LatentDiffusion, image: Tensor, caption: str, lora: LoraFit | None, on_stage: OnStage | None = None
) -> PreparedImage:
    """Encode an image (1, 3, H, W) in 0..1 and its caption, and fit its LoRA; lora=None leaves that out."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise InvalidInput(f"an image is of shape (1, 3, H, W), got {tuple(image.shape)}")
    if len(image) != 1:
        raise InvalidInput(f"a prepared image is one image, got a batch of {len(image)}")
    latent, text = model.encode_images(image), model.encode_text([caption], (image.shape[2], image.shape[3]))
    if lora is None:
        return PreparedImage(latent, text, {})
    fitted = fit_lora(model.backbone, latent, text, lora, stage_reporter(on_stage, "fitting LoRA"))
    return PreparedImage(latent, text, fitted.weights)


@torch.no_grad()
def inverted(
    model: LatentDiffusion,
    image: PreparedImage,
    sigmas: Tensor,
    on_stage: OnStage | None = None,
    iterations: int = 0,
) -> Trajectory:
    """The image's own trajectory where it goes through these sigmas (S + 1,), else one made by DDIM inversion.

    iterations: of the fixed point, see `ddim.trace`.
    """
    if (known := _known(image, sigmas)) is not None:
        return known
    schedule, denoise = model.backbone.schedule, model.backbone.denoiser(image.text)
    with whole_lora(lora_layers(model, image)):
        x, reporter = image.latent * schedule.scale(sigmas[-1]), stage_reporter(on_stage, "inverting")
        return ddim.trace(denoise, x, sigmas, schedule, reporter, iterations)


@torch.no_grad()
def inverted_pair(
    model: LatentDiffusion, start: PreparedImage, end: PreparedImage, sigmas: Tensor, on_stage: OnStage | None = None
) -> tuple[Trajectory, Trajectory]:
    """Both images' trajectories: as one batch, each row with its own LoRA, where both prompts have as many tokens."""
    are_alike = start.text.context.shape == end.text.context.shape  # else one would be repeated, see `blend_text`
    if not are_alike or any(_known(image, sigmas) is not None for image in (start, end)):
        return inverted(model, start, sigmas, on_stage), inverted(model, end, sigmas, on_stage)
    schedule, alphas = model.backbone.schedule, (0.0, 1.0)
    denoise = model.backbone.denoiser(blended(start.text, end.text, alphas))
    with blended_loras(lora_layers(model, start), lora_layers(model, end), alphas):
        x = torch.cat([start.latent, end.latent]) * schedule.scale(sigmas[-1])
        both = ddim.trace(denoise, x, sigmas, schedule, stage_reporter(on_stage, "inverting"))
    return both.row(0), both.row(1)


def all_inverted(
    model: LatentDiffusion, images: Sequence[PreparedImage], sigmas: Tensor, on_stage: OnStage | None = None
) -> list[Trajectory]:
    """Each image's trajectory, two at a time, see `inverted_pair`."""
    found: list[Trajectory] = []
    for start, end in zip(images[::2], images[1::2], strict=False):
        found += inverted_pair(model, start, end, sigmas, on_stage)
    if len(images) % 2:
        found.append(inverted(model, images[-1], sigmas, on_stage))
    return found


def _known(image: PreparedImage, sigmas: Tensor) -> Trajectory | None:
    """The image's own trajectory, if it goes through these sigmas."""
    known = image.trajectory
    if known is None or known.sigmas.shape != sigmas.shape or not torch.allclose(known.sigmas.to(sigmas), sigmas):
        return None
    return known


def with_trajectory(
    model: LatentDiffusion, image: PreparedImage, sigmas: Tensor, on_stage: OnStage | None = None
) -> PreparedImage:
    """The image with its trajectory through these sigmas, for recipes that use it more than once."""
    return replace(image, trajectory=inverted(model, image, sigmas, on_stage))


def text_for(model: LatentDiffusion, image: PreparedImage, prompt: str) -> Text:
    """Another prompt, for a picture of the image's size."""
    sizes = image.text.sizes
    return model.encode_text([prompt], None if sizes is None else (int(sizes[0, 0]), int(sizes[0, 1])))


def lora_layers(model: LatentDiffusion, image: PreparedImage) -> dict[nn.Module, LowRank]:
    """What an image's LoRA updates, see `lora.blend.read_lora`; nothing if it has none."""
    return read_lora(image.lora, model.backbone.network) if image.lora else {}
