"""An inversion's trajectory as a value between nodes."""

import weakref
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ...morph_core.errors import InvalidInput
from ...morph_core.sampling.trajectory import Trajectory

TrajectoryType = io.Custom("INVERSION_TRAJECTORY")


@dataclass(frozen=True)
class Inverted:
    """INVERSION_TRAJECTORY: a scaled latent's, the prompt that it was inverted with, and the network."""

    trajectory: Trajectory
    positive: list[Any]
    network: "weakref.ref[Any]"


def trajectory_input(model: Any, value: Any) -> Inverted:
    """The value of an input `trajectory`. Raises `InvalidInput` for other values and another model's trajectory."""
    if not isinstance(value, Inverted):
        raise InvalidInput(f"trajectory must come from DDIM Invert, got {type(value).__name__}")
    if value.network() is not model.model:
        raise InvalidInput("trajectory was inverted with another model; connect both nodes to one checkpoint's MODEL")
    return value
