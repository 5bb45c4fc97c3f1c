"""The morph with Flux.1 [dev]."""

from ..description import Workflow
from ..parts.models import FLUX
from .large_flow_morph import large_flow_morph


def workflow() -> Workflow:
    """Its files are ComfyUI's own."""
    return large_flow_morph(FLUX, "flux")
