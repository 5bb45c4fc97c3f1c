"""The morph with Stable Diffusion 1.5."""

from ..description import Workflow
from ..parts.models import SD15
from .large_morph import large_morph


def workflow() -> Workflow:
    """All frames go through the model at once."""
    return large_morph(SD15, "sd15", save_memory=False)
