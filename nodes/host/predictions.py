"""Changes to a sampler's prediction that come after every other one: guidance of any kind, caches, other patches.

What ComfyUI calls a post-CFG function runs in the order of connection, and guiders may add to what it returns; these
are wrapped around the whole prediction, in one order whatever the order of the nodes.
"""

from collections.abc import Callable
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...morph_core.sampling.trajectory import REL_TOL

DIRECT_INVERSION = "morph_drag_direct_inversion"
BLEND = "morph_drag_blend"
FROM_OUTSIDE = (BLEND, DIRECT_INVERSION)  # a blend sees the rows where they really go


def wrap_prediction(model: Any, key: str, wrapper: Callable[..., Tensor]) -> None:
    """Let a MODEL's predictions of z0 go through `wrapper`, one of ComfyUI's for PREDICT_NOISE. key: its place."""
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, key, wrapper)
    wrappers = model.wrappers[WrappersMP.PREDICT_NOISE]
    ours = {name: wrappers[name] for name in FROM_OUTSIDE if name in wrappers}
    model.wrappers[WrappersMP.PREDICT_NOISE] = {**ours, **wrappers}


def current_step(timestep: Tensor, model_options: dict[str, Any]) -> tuple[int, Tensor, Tensor]:
    """Of a prediction's arguments: the step of the run, its sigma, and the one that it leads to.

    Between two steps' sigmas, where some samplers look too, it is the step that has begun; from the last sigma, 0.
    """
    sigma = timestep.max()
    sigmas = model_options["transformer_options"]["sample_sigmas"].to(sigma)
    begun = int((sigmas >= sigma * (1 - REL_TOL)).sum())
    return begun - 1, sigma, sigmas[begun] if begun < len(sigmas) else torch.zeros_like(sigma)
