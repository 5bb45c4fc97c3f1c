"""Between ComfyUI's values and the core's: unwrapping with checks, wrapping, progress and cancelling."""

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ...morph_core.errors import InvalidInput, shown
from ...morph_core.morphing.alphas import Alphas, check_alphas
from ...morph_core.morphing.timeline import Timeline
from .versions import stock_name

CATEGORY = "morph & drag"
AlphasType = io.Custom("ALPHAS")


def latent_batch(latent: dict[str, Any], name: str) -> Tensor:
    """The samples (B, C, H, W) of a LATENT, or (B, C, T, H, W) of video models. name: of the input, for errors."""
    samples = latent["samples"]
    if samples.ndim not in (4, 5):
        raise InvalidInput(f"{name} must be a latent of images (B, C, H, W), got shape {tuple(samples.shape)}")
    return samples


def single_latent(latent: dict[str, Any], name: str) -> Tensor:
    """The samples (1, C, H, W) of a LATENT that must be of one image."""
    samples = latent_batch(latent, name)
    _check_single(samples, name)
    return samples


def _check_single(samples: Tensor, name: str) -> None:
    if len(samples) != 1:
        raise InvalidInput(
            f"{name} must hold one image, got a batch of {len(samples)}; pick one with {stock_name('LatentFromBatch')}"
        )


def check_pair(start: Tensor, end: Tensor, frames: int = 1) -> None:
    """Raise unless the samples of the inputs `start` and `end` are of one image each, of one size.

    frames: as many rows are taken, too, one of each frame.
    """
    for samples, name in ((start, "start"), (end, "end")):
        if len(samples) != frames:
            _check_single(samples, name)
    check_like(start[:1], end[:1], "end", "start")


def check_like(first: Tensor, other: Tensor, name: str, of_first: str) -> None:
    """Raise unless `other` is of one image, of the size of `first`. name, of_first: what the samples are called."""
    _check_single(other, name)
    if first.shape != other.shape:
        raise InvalidInput(
            f"{of_first} and {name} must have the same size and channels, got {_size(first)} and {_size(other)}; "
            "scale or crop the images to one size before VAE Encode"
        )


def _size(samples: Tensor) -> str:
    channels, *_, height, width = samples.shape[1:]
    frames = f" of {samples.shape[2]} frames" if samples.ndim == 5 else ""
    return f"{width}x{height}{frames} with {channels} channels"


def images_batch(images: Tensor, name: str) -> Tensor:
    """The pictures (B, H, W, 3) of an IMAGE, one at least. name: of the input, for errors."""
    if images.ndim != 4 or images.shape[-1] < 3 or not images.shape[0] * images.shape[1] * images.shape[2]:
        raise InvalidInput(f"{name} must be an IMAGE (B, H, W, 3) of some pixels, got shape {tuple(images.shape)}")
    return images[..., :3]


def image_of_one(images: Tensor, name: str) -> Tensor:
    """The one picture (H, W, 3) of an IMAGE. name: of the input, for errors."""
    pictures = images_batch(images, name)
    if len(pictures) != 1:
        raise InvalidInput(
            f"{name} must hold one picture, got a batch of {len(images)}; pick one with {stock_name('ImageFromBatch')}"
        )
    return pictures[0]


def single_conditioning(conditioning: list[Any], name: str) -> tuple[Tensor, dict[str, Any]]:
    """The one (embedding (1, T, D), options) of a CONDITIONING of one prompt."""
    if len(conditioning) != 1:
        raise InvalidInput(f"{name} must be one prompt's conditioning, got {len(conditioning)} combined")
    embedding, options = conditioning[0]
    if len(embedding) != 1:
        raise InvalidInput(f"{name} must be one prompt's conditioning, got a batch of {len(embedding)}")
    return embedding, options


def alphas_input(alphas: Any) -> Alphas:
    """The value of an input `alphas` of a morph, checked; lists and tensors of other makers are welcome."""
    if isinstance(alphas, Timeline):
        raise InvalidInput("alphas are of a sequence, from Sequence Schedule; connect Alpha Schedule's")
    return check_alphas(places_input(alphas))


def places_input(alphas: Any) -> Alphas:
    """The value of an input `alphas` that may be any numbers: above 1 where there are more pictures, or falling."""
    if isinstance(alphas, Timeline):
        return alphas.positions
    numbers = alphas.tolist() if isinstance(alphas, Tensor) else alphas
    is_list = isinstance(numbers, (list, tuple)) and all(isinstance(n, (int, float)) for n in numbers)
    if not is_list:
        raise InvalidInput(f"alphas must be one number a frame, for example from Alpha Schedule; got {shown(alphas)}")
    return tuple(float(number) for number in numbers)


def timeline_input(alphas: Any) -> Timeline:
    """The value of an input `alphas` of a sequence."""
    if not isinstance(alphas, Timeline):
        raise InvalidInput(f"alphas must be of a sequence, from Sequence Schedule; got {shown(alphas)}")
    return alphas


def progress(steps: int) -> Callable[..., None]:
    """An `on_step` that moves the node's progress bar; raises ComfyUI's own exception on Cancel."""
    bar = comfy.utils.ProgressBar(steps)

    def on_step(done: int, total: int, *_: Any) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return on_step
