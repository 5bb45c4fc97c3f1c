"""Matched layouts as a value between nodes."""

from typing import Any

from comfy_api.latest import io

from ...morph_core.errors import InvalidInput, shown
from ...morph_core.matching.aligned import AlignedEnds
from ...morph_core.matching.matches import Matches
from ...morph_core.morphing.alphas import Alphas
from .backbone import unet_config

MatchesType = io.Custom("MATCHES")


def layouts_input(value: Any, model: Any, alphas: Alphas | None) -> AlignedEnds:
    """The value of an input `matches`, for the attention of a MODEL's frames.

    Raises `InvalidInput` for other values and without alphas, `UnsupportedModel` for another network than a UNet.
    """
    if not isinstance(value, Matches):
        raise InvalidInput(f"matches must come from Match Layouts, got {shown(value)}")
    if alphas is None:
        raise InvalidInput("matches are of a morph's ends; connect its alphas, too, or leave matches empty")
    unet_config(model, ", or leave matches empty")
    return AlignedEnds(value)
