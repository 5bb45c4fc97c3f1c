"""Two prepared images whose layouts are matched, so that a morph leads one to the other instead of ghosting."""

from ..matching.aligned import AlignedEnds
from ..matching.descriptors import descriptors
from ..matching.matches import match_layouts
from ..models.latent_diffusion import LatentDiffusion
from .image import PreparedImage


def aligned_ends(
    model: LatentDiffusion, start: PreparedImage, end: PreparedImage, strength: float = 1.0
) -> AlignedEnds:
    """The ends, matched by what the model, without their LoRAs, knows of them.

    strength: the share (0..1) of the way that their layouts are led. Raises `InvalidInput` as `match_layouts` does and
    `UnsupportedModel` as `descriptors` does.
    """
    first, second = (
        descriptors(model.backbone, image.text, image.latent, seed=seed) for seed, image in enumerate((start, end))
    )
    return AlignedEnds(match_layouts(first, second).scaled(strength))
