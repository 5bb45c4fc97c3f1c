"""The morph with SDXL."""

from ..description import Workflow
from ..parts.models import SDXL
from .large_morph import large_morph


def workflow() -> Workflow:
    """Large frames go through the model in parts."""
    return large_morph(SDXL, "sdxl", save_memory=True)
