"""An inversion's trajectory as a value between nodes, and Direct Inversion, which holds rows of a batch to it."""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from ..morph_core.errors import InvalidInput
from ..morph_core.trajectory import Trajectory, x0_leading_to
from .adapters import CATEGORY
from .inputs import checked
from .named_errors import named
from .sigmas import step_under_way
from .versions import schema

TrajectoryType = io.Custom("INVERSION_TRAJECTORY")
LOST = 1e-2  # of a latent of unit variance: a row this far from its trajectory was not brought there by ddim


@dataclass(frozen=True)
class Inverted:
    """INVERSION_TRAJECTORY: the way, as the UNet takes latents, the prompt it was walked with, and whose it is."""

    way: Trajectory
    positive: list[Any]
    network: "weakref.ref[Any]"


def trajectory_input(model: Any, value: Any) -> Inverted:
    """The value of an input `trajectory`. Raises `InvalidInput` for other values and another model's trajectory."""
    if not isinstance(value, Inverted):
        raise InvalidInput(f"trajectory must come from DDIM Invert, got {type(value).__name__}")
    if value.network() is not model.model:
        raise InvalidInput("trajectory was inverted with another model; connect both nodes to one checkpoint's MODEL")
    return value


class DirectInversion(io.ComfyNode):
    """Ju et al.'s Direct Inversion as a model patch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="MorphDragDirectInversion",
            display_name="Direct Inversion",
            category=f"{CATEGORY}/inversion",
            search_aliases=["inversion", "exact reconstruction", "pin", "PnP inversion"],
            description=(
                "Puts one row of the sampled batch back on its inversion's trajectory after every step, so that it "
                "ends as exactly the image that was inverted, whatever the guidance. For KSampler with ddim or euler."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with; its other patches stay."),
                TrajectoryType.Input("trajectory", tooltip="The image's way to noise, from DDIM Invert."),
                io.Int.Input(
                    "row",
                    default=0,
                    min=-1024,
                    max=1023,
                    tooltip="Which of the batch: 0 is the first (a drag's original), -1 the last (a morph's end).",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the row may differ from the image: only the rest is put back. None: all.",
                ),
            ],
            outputs=[io.Model.Output("patched_model", display_name="MODEL", tooltip="The model with the patch.")],
        )

    @classmethod
    @checked
    def execute(cls, model: Any, trajectory: Any, row: int, mask: Tensor | None = None) -> io.NodeOutput:
        way = trajectory_input(model, trajectory).way
        patched = model.clone()
        patched.set_model_sampler_post_cfg_function(_PutBack(way, row, _pinned_cells(mask, way)))
        # before every other change of the prediction, which then sees where the row really goes
        functions = patched.model_options["sampler_post_cfg_function"]
        patched.model_options["sampler_post_cfg_function"] = [functions[-1], *functions[:-1]]
        return io.NodeOutput(patched)


def _pinned_cells(mask: Tensor | None, way: Trajectory) -> Tensor:
    """(h, w) of the latent, whether a cell is put back: none of whose pixels the mask lets differ."""
    size = way.latents.shape[-2:]
    if mask is None or not mask.any():
        return torch.ones(size, dtype=torch.bool)
    if mask.ndim not in (2, 3) or len(mask.reshape(-1, *mask.shape[-2:])) != 1:
        raise InvalidInput(f"mask must be one mask (H, W), got shape {tuple(mask.shape)}")
    free = adaptive_max_pool2d(mask.reshape(1, 1, *mask.shape[-2:]).float(), size)
    return free[0, 0] <= 0


class _PutBack:
    """ComfyUI's post-CFG function: sees the prediction before the sampler's step, and where that step should lead."""

    def __init__(self, way: Trajectory, row: int, pinned: Tensor) -> None:
        self.way, self.row, self.pinned = way, row, pinned

    def __deepcopy__(self, memo: Any) -> "_PutBack":
        return self  # ComfyUI copies a MODEL's options with each clone; the latents need no copies

    def __call__(self, args: dict[str, Any]) -> Tensor:
        with named("Direct Inversion"):
            return self._put_back(args)

    def _put_back(self, args: dict[str, Any]) -> Tensor:
        denoised, x = args["denoised"], args["input"]
        row = self._row_of(x)
        place, sigma, next_sigma = step_under_way(args)
        step = self.way.step_at(sigma)
        if step + 1 < len(self.way.sigmas) - 1:
            self.way.step_at(next_sigma)  # the next step must be one of the trajectory's too
        pinned = self.pinned.to(x.device)
        if place > 0:
            self._check_on_its_way(x[row], self.way.latents[step, 0].to(x), sigma, pinned)
        target = self.way.latents[step + 1, 0].to(x)
        result = denoised.clone()
        result[row] = torch.where(pinned, x0_leading_to(target, x[row], sigma, next_sigma), denoised[row])
        return result

    def _row_of(self, x: Tensor) -> int:
        if not -len(x) <= self.row < len(x):
            raise InvalidInput(f"row is {self.row} but the sampled latent is a batch of {len(x)}")
        if x.shape[1:] != self.way.latents.shape[2:]:
            inverted, sampled = (f"{s[-1]}x{s[-2]} with {s[-3]} channels" for s in (self.way.latents.shape, x.shape))
            raise InvalidInput(f"trajectory is of a latent of {inverted}, the sampled latent is {sampled}")
        return self.row % len(x)

    def _check_on_its_way(self, x: Tensor, expected: Tensor, sigma: Tensor, pinned: Tensor) -> None:
        away = ((x - expected) * pinned).square().mean().sqrt() / (sigma**2 + 1) ** 0.5
        if away > LOST:
            raise InvalidInput(
                f"the sampler did not lead row {self.row} where it was put; use ddim or euler in KSampler, whose steps "
                "are those of the inversion"
            )
