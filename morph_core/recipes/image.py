"""An image as the recipes work on it: encoded, described, known to the model, and inverted once."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import InvalidInput
from ..lora.blend import LoraWeights, LowRank, blended_loras, read_lora
from ..lora.fit import LoraFit, fit_lora
from ..models.latent_diffusion import LatentDiffusion
from ..models.text import Text
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
    known = image.trajectory
    if known is not None and known.sigmas.shape == sigmas.shape and torch.allclose(known.sigmas.to(sigmas), sigmas):
        return known
    backbone = model.backbone
    with blended_loras(lora_layers(model, image), {}, (0.0,)):
        x = image.latent * backbone.schedule.scale(sigmas[-1])
        reporter = stage_reporter(on_stage, "inverting")
        return ddim.trace(backbone.denoiser(image.text), x, sigmas, backbone.schedule, reporter, iterations)


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
